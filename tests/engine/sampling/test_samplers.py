"""Samplers walk the same way as Fooocus' do, and ask for nothing but the denoised estimate."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.sampling.euler import restart_steps
from engine.sampling.levels import sdxl_table
from engine.sampling.multistep import lms_coefficient
from engine.sampling.samplers import SAMPLERS
from engine.sampling.walk import ancestral_step, log_midpoint, to_sigma, to_time
from tests.golden_data import golden_arrays, golden_json, relative_error
from tests.golden_walks import finite_part, reported, walk, walk_case

pytestmark = pytest.mark.torch

CASES = golden_json("samplers.json")
ARRAYS = golden_arrays("samplers.npz")
TOLERANCES = {"lms": 1e-4, "dpm_adaptive": 1e-4}
LEVELS = (14.0, 6.0, 2.0, 0.5, 0.0)
STOP_ABOVE_0 = {"dpm_fast", "dpm_adaptive", "uni_pc", "uni_pc_bh2", "tcd"}
"""Samplers whose last level is not quite 0."""


def silent(sigma: float, sigma_next: float) -> Tensor:
    raise AssertionError("this sampler needs no noise")


@pytest.mark.parametrize("key", CASES)
def test_trajectory_golden(key):
    case = CASES[key]
    name, tolerance = case["sampler"], TOLERANCES.get(case["sampler"], 1e-5)
    asked, told, final = walk_case(case, ARRAYS)
    assert [ask.sigma for ask in asked] == pytest.approx(case["eval_sigmas"], rel=tolerance)
    assert [ask.step for ask in asked if ask.step is not None] == [*range(case["n_callbacks"])]
    for part, values in reported(name, asked, told, final).items():
        values, expected = finite_part(values, ARRAYS[f"{case['id']}_{part}"])
        assert relative_error(values, expected) < tolerance, part
    assert bool(final.isfinite().all())
    if case["finite"]:
        assert relative_error(final, ARRAYS[case["id"] + "_final"]) < tolerance


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sure_denoiser_is_reached(name):
    goal = torch.linspace(-1, 1, 16).reshape(1, 4, 2, 2)
    source = silent if SAMPLERS[name].noise == "none" else lambda a, b: torch.ones_like(goal)
    asked, _, final = walk(name, goal + 14, LEVELS, source, lambda x, sigma: goal)
    assert asked[0].sigma == pytest.approx(14)
    slack = 0.6 if name in STOP_ABOVE_0 else 1e-5
    torch.testing.assert_close(final, goal, rtol=0, atol=slack)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigmas", [(), (3.0,)])
def test_no_step_gives_the_latents_back(name, sigmas):
    x = torch.ones(1, 4, 2, 2)
    asked, _, final = walk(name, x, sigmas, silent, lambda x, sigma: x)
    assert not asked
    assert final is x


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_takes_the_noise_off(name):
    goal = torch.ones(1, 4, 2, 2)
    asked, _, final = walk(name, goal * 9, (14.0, 0.0), silent, lambda x, sigma: goal)
    assert [ask.step for ask in asked] == [0]
    torch.testing.assert_close(final, goal, rtol=0, atol=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_ask_is_of_a_level_above_0_and_steps_are_counted_in_order(name):
    source = silent if SAMPLERS[name].noise == "none" else lambda a, b: torch.ones(1, 4, 2, 2)
    asked, _, _ = walk(name, torch.ones(1, 4, 2, 2), LEVELS, source, lambda x, sigma: x * 0)
    assert all(ask.sigma > 0 for ask in asked)
    counted = [ask.step for ask in asked if ask.step is not None]
    assert counted == list(range(len(counted)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_can_be_closed_half_way(name):
    run = SAMPLERS[name].run(
        torch.ones(1, 4, 2, 2), LEVELS, lambda a, b: torch.zeros(1, 4, 2, 2), sdxl_table()
    )
    run.send(next(run).x)
    run.close()
    with pytest.raises(StopIteration):
        next(run)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_was_yielded_is_not_changed_afterwards(name):
    source = silent if SAMPLERS[name].noise == "none" else lambda a, b: torch.ones(1, 4, 2, 2)
    run = SAMPLERS[name].run(torch.ones(1, 4, 2, 2), LEVELS, source, sdxl_table())
    first = next(run).x
    kept = first.clone()
    run.send(first * 0.5)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpm_adaptive"])
def test_no_sampler_waits_for_the_device(name):
    # Meta tensors have no numbers: reading one, as a wait for a GPU would, is an error.
    x = torch.ones(1, 4, 2, 2, device="meta")
    sigmas = (*(14.0 - 0.5 * i for i in range(25)), 0.0)
    _, _, final = walk(name, x, sigmas, lambda a, b: torch.ones_like(x), lambda x, sigma: x * 0.5)
    assert final.is_meta


@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS[name].noise == "none"])
def test_more_steps_come_nearer_to_the_truth(name):
    # Clean latents of variance 1 around 0: the ODE's way is known, x / sqrt(1 + sigma²) stays what it is.
    def final(n):
        sigmas = tuple(4.0 * (0.002 / 4) ** (i / n) for i in range(n + 1))
        return walk(name, x, sigmas, silent, lambda x, sigma: x / (1 + sigma**2))[2]

    x = torch.full((1, 4, 2, 2), 2.0)
    truth = x / math.sqrt(1 + 4.0**2)
    few, many = ((final(n) - truth).abs().max().item() for n in (12, 96))
    assert many < 0.02
    assert many < few or name == "dpm_adaptive"


@pytest.mark.parametrize("n", [20, 35, 36, 60])
def test_a_restart_walks_the_middle_again_in_as_many_steps(n):
    sigmas = (*(14.0 * (0.03 / 14) ** (i / (n - 1)) for i in range(n)), 0.0)
    way = restart_steps(sigmas)
    jumps = [i for i in range(1, n) if way[i][0] > way[i - 1][1]]
    assert len(way) == n
    assert len(jumps) == (2 if n >= 36 else 1)
    assert all(high > low for high, low in way)
    assert (way[0][0], way[-1][1]) == (pytest.approx(14.0), 0.0)


def test_tcd_never_gives_nan():
    # The lowest level is below itself at share 0: Fooocus takes the root of a rounding error there.
    table = sdxl_table()
    sigmas = (2.0, table.sigma_min, 0.0)
    ones = torch.ones(1, 4, 2, 2)
    _, _, final = walk("tcd", ones, sigmas, lambda a, b: ones, lambda x, sigma: ones)
    assert bool(final.isfinite().all())


def test_the_first_lms_step_is_eulers():
    assert lms_coefficient((3.0, 1.0), 0, 0, 1) == pytest.approx(-2.0)


def test_times_and_levels_undo_each_other():
    assert to_sigma(to_time(3.5)) == pytest.approx(3.5, rel=1e-6)
    assert log_midpoint(8.0, 2.0) == pytest.approx(4.0)


def test_euler_worked_by_hand():
    # From 2 to 1 with x = 3 and a denoised estimate of 1: slope (3 - 1) / 2, so x = 3 - 1.
    _, _, final = walk("euler", torch.tensor([3.0]), (2.0, 1.0), silent, lambda x, s: x * 0 + 1)
    assert final.tolist() == [2.0]


@given(st.floats(0.01, 100), st.floats(0.01, 0.99))
def test_an_ancestral_step_keeps_the_variance(sigma, share):
    down, up = ancestral_step(sigma, sigma * share)
    assert math.hypot(down, up) == pytest.approx(sigma * share)
    assert 0 <= up <= sigma * share
