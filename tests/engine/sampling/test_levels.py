"""Models know the noise levels they were trained on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.levels import distilled_table, edm_levels, sdxl_table
from tests.golden_data import golden_arrays

pytestmark = pytest.mark.torch

TABLE = sdxl_table()
LEVELS = {
    "base": TABLE,
    "lcm": distilled_table(TABLE),
    "tcd": distilled_table(TABLE),
    "edm": edm_levels(),
}
DATA = golden_arrays("sigma_tables.npz")
NAMES = [
    key.removesuffix("_sigmas")
    for key in DATA
    if key.endswith("_sigmas") and not key.endswith("_log_sigmas")
]


@pytest.mark.parametrize("name", NAMES)
def test_levels_golden(name):
    levels = LEVELS[name]
    torch.testing.assert_close(
        levels.sigmas, torch.tensor(DATA[f"{name}_sigmas"]), rtol=1e-6, atol=0
    )
    timesteps = [levels.timestep(sigma) for sigma in DATA["query_sigma"].tolist()]
    expected = DATA[f"{name}_timestep_of_sigma"].tolist()
    assert timesteps == (pytest.approx(expected, rel=1e-6) if name == "edm" else expected)
    queries = DATA["edm_query_t" if name == "edm" else "query_t"].tolist()
    sigmas = [levels.sigma(t) for t in queries]
    assert sigmas == pytest.approx(DATA[f"{name}_sigma_of_t"].tolist(), rel=1e-6)
    percents = [levels.percent_to_sigma(p) for p in DATA["percent"].tolist()]
    assert percents == pytest.approx(DATA[f"{name}_percent_to_sigma"].tolist(), rel=1e-6)


@pytest.mark.parametrize(
    "name", [key.removesuffix("_log_sigmas") for key in DATA if "_log_" in key]
)
def test_logarithms_golden(name):
    logs = torch.tensor(DATA[f"{name}_log_sigmas"])
    torch.testing.assert_close(LEVELS[name].log_sigmas, logs, rtol=1e-6, atol=1e-7)


def test_sdxl_has_the_known_ends():
    assert TABLE.sigma_min == pytest.approx(0.0291671585, rel=1e-6)
    assert TABLE.sigma_max == pytest.approx(14.6146412, rel=1e-6)
    assert (TABLE.timestep(1e-9), TABLE.timestep(1e9)) == (0, 999)


def test_edm_levels_are_told_as_a_quarter_of_their_logarithm():
    assert edm_levels().timestep(1.0) == 0
    assert edm_levels().last_timestep == pytest.approx(1.1969, abs=1e-4)


@given(st.integers(0, 999))
def test_sigma_and_timestep_undo_each_other(timestep):
    assert TABLE.timestep(TABLE.sigma(timestep)) == timestep


@pytest.mark.parametrize("name", LEVELS)
def test_the_level_below_is_the_trained_one_at_a_share_of_the_timestep(name):
    below = LEVELS[name].sigma_below(TABLE.sigma(999), 0.5)
    assert below == pytest.approx(TABLE.sigma(499), rel=1e-6)
    assert LEVELS[name].sigma_below(0.0, 0.5) == TABLE.sigma_min
