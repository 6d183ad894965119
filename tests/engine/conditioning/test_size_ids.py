"""Each branch is told the sizes that Fooocus tells it, and the true size in time."""

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from hypothesis import given
from hypothesis import strategies as st

from engine.conditioning.size_ids import SizeIds, size_ids
from engine.geometry import Size
from tests.golden_data import golden_arrays, golden_json

pytestmark = pytest.mark.torch

PARTS = golden_json("parts.json")
ARRAYS = golden_arrays("parts.npz")


def ids_of(case, end: float = 0.3) -> SizeIds:
    scale = case.get(f"{case['type']}_scale", 1.0)
    return size_ids(Size(case["width"], case["height"]), scale, end=end)


@pytest.mark.parametrize("case", PARTS.get("adm", []))
def test_sizes_golden(case):
    ids = ids_of(case)
    assert list(ids.emphasised) == case["emphasised"]
    assert list(ids.consistent) == case["consistent"]


@pytest.mark.parametrize("case", PARTS.get("timed_adm", []))
def test_choice_by_timestep_golden(case):
    ids = SizeIds(emphasised=(1,) * 6, consistent=(0,) * 6, end=case["adm_end"])
    assert [ids.at(timestep)[0] for timestep in case["timesteps"]] == case["emphasised"]


@pytest.mark.parametrize("branch", ["positive", "negative"])
def test_embedded_sizes_golden(branch):
    if f"adm_y_{branch}" not in ARRAYS:
        pytest.skip("not in this set")
    ids = ids_of(next(case for case in PARTS["adm"] if case["type"] == branch))
    pooled = torch.tensor(ARRAYS["adm_pooled"])[0]
    halves = []
    for numbers in (ids.emphasised, ids.consistent):
        embedded = get_timestep_embedding(
            torch.tensor(numbers), 256, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        halves += [pooled, embedded.flatten()]
    torch.testing.assert_close(
        torch.cat(halves), torch.tensor(ARRAYS[f"adm_y_{branch}"][0]), rtol=1e-4, atol=1e-4
    )


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.1, 3), st.floats(0, 1))
def test_the_true_size_is_on_the_grid_and_near(width, height, scale, end):
    size = Size(width * 8, height * 8)
    ids = size_ids(size, scale, end=end)
    told_height, told_width, *_ = ids.consistent
    assert told_width % 64 == told_height % 64 == 0
    assert abs(told_width - size.width) <= 32
    assert abs(told_height - size.height) <= 32
    assert ids.at(0) == ids.consistent


def test_a_smaller_model_has_a_smaller_grid():
    ids = size_ids(Size(88, 72), 1.5, end=0.3, grid=8)
    assert ids.consistent == (72, 88, 0, 0, 72, 88)
    assert ids.emphasised == (108, 132, 0, 0, 72, 88)
