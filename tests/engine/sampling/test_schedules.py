"""Noise levels are those of the SDXL training schedule, spaced as Fooocus spaces them."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.levels import sdxl_table
from engine.sampling.prediction import model_sampling
from engine.sampling.samplers import SAMPLERS
from engine.sampling.schedules import (
    SCHEDULES,
    initial_latents,
    karras_ramp,
    named_levels,
    path_ends,
    schedule,
    starts_from_pure_noise,
    sub_range,
)
from tests.golden_data import golden_json

pytestmark = pytest.mark.torch

TABLE = sdxl_table()
LISTS = golden_json("sigma_lists.json.gz")
FALLING_TO_N = sorted(set(SCHEDULES) - {"ddim_uniform", "turbo"})
names = st.sampled_from(FALLING_TO_N)


@pytest.mark.parametrize(
    "scheduler", sorted({k.split("/")[0] for k in LISTS.get("pipeline_level", {})})
)
def test_named_lists_golden(scheduler):
    for key, expected in LISTS["pipeline_level"].items():
        name, sampler, n, strength = key.split("/")
        if name == scheduler:
            spare = SAMPLERS[sampler].spare_step == "always"
            sigmas = named_levels(name, TABLE, int(n), strength=float(strength), spare_step=spare)
            assert sigmas == pytest.approx(expected, rel=2e-6, abs=0), key


@pytest.mark.parametrize(
    "scheduler", sorted({k.split("/")[0] for k in LISTS.get("sampler_level", {})})
)
def test_sampled_lists_golden(scheduler):
    for key, expected in LISTS["sampler_level"].items():
        name, sampler, n, strength = key.split("/")
        if name == scheduler:
            sigmas = schedule(
                name,
                model_sampling(name).levels,
                int(n),
                strength=float(strength),
                spare_step=SAMPLERS[sampler].spare_step != "never",
                as_fooocus=True,
            )
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


@given(st.sampled_from(FALLING_TO_N), st.integers(2, 40))
def test_a_spare_step_leaves_the_last_level_but_one_out(name, n):
    sigmas = schedule(name, TABLE, n, spare_step=True)
    whole = schedule(name, TABLE, n + 1)
    assert sigmas == (*whole[:-2], 0.0)


@pytest.mark.parametrize("n", [1, 7, 30, 60])
def test_ddim_uniform_keeps_all_its_levels_unless_as_fooocus(n):
    sigmas = schedule("ddim_uniform", TABLE, n)
    assert len(sigmas) >= n + 1
    assert sigmas[-1] == 0
    cut = schedule("ddim_uniform", TABLE, n, as_fooocus=True)
    assert cut == (*sigmas[:n], 0.0)


def test_turbo_has_ten_steps_at_most():
    sigmas = schedule("turbo", TABLE, 30)
    assert len(sigmas) == 11
    assert [TABLE.timestep(sigma) for sigma in sigmas[:-1]] == list(range(999, 0, -100))
    assert len(schedule("turbo", TABLE, 4)) == 5


@pytest.mark.parametrize("name", ["turbo", "align_your_steps"])
def test_fooocus_samples_some_names_as_normal(name):
    assert schedule(name, TABLE, 6, as_fooocus=True) == schedule("normal", TABLE, 6)
    assert schedule(name, TABLE, 6) != schedule("normal", TABLE, 6)


def test_the_brownian_path_covers_what_is_sampled_unless_as_fooocus():
    edm = model_sampling("edm_playground_v2.5").levels
    sampled = schedule("edm_playground_v2.5", edm, 8)
    covered = path_ends("edm_playground_v2.5", 8, strength=1.0, sampled=sampled)
    assert covered == (sampled[-2], sampled[0])
    kept = path_ends("edm_playground_v2.5", 8, strength=1.0, sampled=sampled, as_fooocus=True)
    assert kept == pytest.approx((TABLE.sigma_min, TABLE.sigma_max))


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
        schedule(**{"name": "karras", "levels": TABLE, "n": 4, **arguments})


def test_noise_is_scaled_to_the_whole_variance_only_at_the_highest_level():
    noise, latents = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 3.0)
    top = TABLE.sigma_max
    assert starts_from_pure_noise(top * (1 - 1e-6), TABLE)
    assert not starts_from_pure_noise(top * 0.99, TABLE)
    pure = initial_latents(noise, latents, top, TABLE)
    assert pure[0, 0, 0, 0].item() == pytest.approx(math.sqrt(1 + top**2) + 3)
    assert torch.equal(initial_latents(noise, latents, 2.0, TABLE), noise * 2 + latents)
