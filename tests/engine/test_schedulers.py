"""What cannot be listed is refused on its field, before anything is loaded."""

import re

import pytest

from engine.errors import InvalidRequest
from engine.schedulers import check_steps


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"timesteps": (900, 100), "sigmas": (3.0,)},
            "studio.sigmas: expected nothing beside timesteps, got both",
        ),
        (
            {"timesteps": (100, 900)},
            "studio.timesteps: expected falling numbers, got 900 after 100",
        ),
        ({"timesteps": (1000, 5)}, "studio.timesteps: expected 0 to 999, got 1000 to 5"),
        ({"timesteps": (5, -1)}, "studio.timesteps: expected 0 to 999, got 5 to -1"),
        (
            {"sigmas": (3.0, 3.0)},
            "studio.sigmas: expected falling numbers, got 3.0 after 3.0",
        ),
        (
            {"sigmas": (3.0, float("nan"))},
            "studio.sigmas: expected falling numbers, got nan after 3.0",
        ),
        ({"sigmas": (0.0,)}, "studio.sigmas: expected levels above 0, got 0.0 to 0.0"),
        ({"sigmas": (3.0, -1.0)}, "studio.sigmas: expected levels above 0, got 3.0 to -1.0"),
        (
            {"sigmas": (float("inf"), 1.0)},
            "studio.sigmas: expected levels above 0, got inf to 1.0",
        ),
    ],
)
def test_a_bad_list_is_refused(asked, message):
    with pytest.raises(InvalidRequest, match=f"^{re.escape(message)}$"):
        check_steps("DDIM", 30, **asked)


@pytest.mark.parametrize("scheduler", ["LCM", "LCM (trailing timesteps)", "TCD"])
def test_a_distilled_model_has_fifty_steps(scheduler):
    check_steps(scheduler, 50)
    check_steps(scheduler, 51, timesteps=(999, 5))
    message = f"studio.num_inference_steps: expected at most 50 with '{scheduler}', got 51"
    with pytest.raises(InvalidRequest, match=f"^{re.escape(message)}$"):
        check_steps(scheduler, 51)


def test_good_lists_pass():
    check_steps("Euler", 150)
    check_steps("LCM", 4, timesteps=(999, 0))
    check_steps("Euler", 30, sigmas=(14.0, 0.0))
