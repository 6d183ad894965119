"""Noise levels are those of the SDXL training schedule, spaced as Fooocus spaces them."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.samplers import SAMPLERS
from engine.sampling.schedules import (
    SCHEDULES,
    distilled_table,
    initial_latents,
    karras_ramp,
    schedule,
    sdxl_table,
    starts_from_pure_noise,
    sub_range,
)
from tests.golden_data import golden_arrays, golden_json

pytestmark = pytest.mark.torch

TABLE = sdxl_table()
TABLES = {"base": TABLE, "lcm": distilled_table(TABLE), "tcd": distilled_table(TABLE)}
LISTS = golden_json("sigma_lists.json.gz")
TABLE_DATA = golden_arrays("sigma_tables.npz")
TABLE_NAMES = [
    key.removesuffix("_sigmas")
    for key in TABLE_DATA
    if key.endswith("_sigmas") and "_log_" not in key
]
names = st.sampled_from(sorted(SCHEDULES))


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_table_golden(name):
    if name not in TABLES:
        pytest.skip(f"no noise table {name} yet")
    table, data = TABLES[name], TABLE_DATA
    torch.testing.assert_close(
        table.sigmas, torch.tensor(data[f"{name}_sigmas"]), rtol=1e-6, atol=0
    )
    log_sigmas = torch.tensor(data[f"{name}_log_sigmas"])
    torch.testing.assert_close(table.log_sigmas, log_sigmas, rtol=1e-6, atol=1e-7)
    timesteps = [table.timestep(sigma) for sigma in data["query_sigma"].tolist()]
    assert timesteps == data[f"{name}_timestep_of_sigma"].tolist()
    sigmas = [table.sigma(t) for t in data["query_t"].tolist()]
    assert sigmas == pytest.approx(data[f"{name}_sigma_of_t"].tolist(), rel=1e-6)
    percents = [table.percent_to_sigma(p) for p in data["percent"].tolist()]
    assert percents == pytest.approx(data[f"{name}_percent_to_sigma"].tolist(), rel=1e-6)


@pytest.mark.parametrize("level", ["pipeline_level", "sampler_level"])
@pytest.mark.parametrize(
    "scheduler", sorted({k.split("/")[0] for k in LISTS.get("pipeline_level", {})})
)
def test_sigma_lists_golden(level, scheduler):
    if scheduler not in SCHEDULES:
        pytest.skip(f"no scheduler {scheduler} yet")
    for key, expected in LISTS[level].items():
        name, sampler, n, strength = key.split("/")
        if name != scheduler or sampler not in SAMPLERS:
            continue
        sigmas = schedule(name, TABLE, int(n), strength=float(strength))
        if level == "sampler_level":
            sigmas = sub_range(sigmas, last=int(n))
        assert sigmas == pytest.approx(expected, rel=2e-6, abs=0), key


@pytest.mark.parametrize("key", LISTS.get("sub_ranges", {}))
def test_sub_ranges_golden(key):
    name, n, first, last, full = key.split("/")
    sigmas = sub_range(
        schedule(name, TABLE, int(n)),
        first=int(first.removeprefix("start")),
        last=int(last.removeprefix("last")),
        ends_clean=full == "fullTrue",
    )
    assert sigmas == pytest.approx(LISTS["sub_ranges"][key] or (), rel=2e-6, abs=0)


def test_karras_worked_by_hand():
    # With rho 7 the roots of 128 and 1 are 2 and 1, so the middle is 1.5 to the 7th.
    levels = karras_ramp(3, sigma_min=1.0, sigma_max=128.0)
    assert levels == pytest.approx((128.0, 1.5**7, 1.0), rel=1e-6)


def test_sdxl_has_the_known_ends():
    assert TABLE.sigma_min == pytest.approx(0.0291671585, rel=1e-6)
    assert TABLE.sigma_max == pytest.approx(14.6146412, rel=1e-6)
    assert (TABLE.timestep(1e-9), TABLE.timestep(1e9)) == (0, 999)


@given(names, st.integers(1, 60))
def test_every_schedule_falls_to_exactly_0(name, n):
    sigmas = schedule(name, TABLE, n)
    assert len(sigmas) == n + 1
    assert sigmas[-1] == 0
    assert all(a > b for a, b in pairwise(sigmas))
    assert all(type(sigma) is float for sigma in sigmas)


@given(names, st.integers(1, 40), st.floats(0.05, 0.9999))
def test_a_strength_below_1_runs_as_many_steps_from_a_lower_level(name, n, strength):
    sigmas = schedule(name, TABLE, n, strength=strength)
    assert len(sigmas) == n + 1
    assert sigmas == schedule(name, TABLE, int(n / strength))[-(n + 1) :]


@given(st.integers(0, 999))
def test_sigma_and_timestep_undo_each_other(timestep):
    assert TABLE.timestep(TABLE.sigma(timestep)) == timestep


@given(st.integers(0, 10), st.integers(0, 12))
def test_cut_schedules_join_to_the_whole(cut, n):
    sigmas = tuple(float(n - i) for i in range(n + 1))
    head = sub_range(sigmas, last=cut, ends_clean=False)
    tail = sub_range(sigmas, first=cut)
    if 0 < cut < n:
        assert head[-1] == tail[0]
        assert (*head, *tail[1:]) == sigmas


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "karas"}, r"^scheduler: expected one of normal, karras, .*, got 'karas'$"),
        ({"n": 0}, r"^num_inference_steps: expected at least 1, got 0$"),
        ({"strength": 0.0}, r"^strength: expected above 0 and at most 1, got 0\.0$"),
        ({"strength": 1.5}, r"^strength: expected above 0 and at most 1, got 1\.5$"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedule(**{"name": "karras", "table": TABLE, "n": 4, **arguments})


def test_noise_is_scaled_to_the_whole_variance_only_at_the_highest_level():
    noise, latents = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 3.0)
    top = TABLE.sigma_max
    assert starts_from_pure_noise(top * (1 - 1e-6), TABLE)
    assert not starts_from_pure_noise(top * 0.99, TABLE)
    pure = initial_latents(noise, latents, top, TABLE)
    assert pure[0, 0, 0, 0].item() == pytest.approx(math.sqrt(1 + top**2) + 3)
    assert torch.equal(initial_latents(noise, latents, 2.0, TABLE), noise * 2 + latents)
