"""Samplers walk the same way as Fooocus' do, and ask for nothing but the denoised estimate."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.sampling.noise import brownian_noise, draw_noise, independent_noise, seeded_generator
from engine.sampling.samplers import SAMPLERS, NoiseSource, ancestral_step
from engine.sampling.schedules import initial_latents, sdxl_table
from tests.golden_data import golden_arrays, golden_json, relative_error

pytestmark = pytest.mark.torch

CASES = golden_json("samplers.json")
ARRAYS = golden_arrays("samplers.npz")
LEVELS = (14.0, 6.0, 2.0, 0.5, 0.0)


def silent(sigma: float, sigma_next: float) -> Tensor:
    raise AssertionError("this sampler needs no noise")


def analytic(x: Tensor, sigma: float, mu: Tensor) -> Tensor:
    """The denoiser that the golden trajectories were recorded with."""
    variance = 1 + sigma**2
    return (x + sigma**2 * mu) / variance + 0.2 * sigma / variance * torch.sin(2 * x)


def walk(name: str, x: Tensor, sigmas: tuple[float, ...], noise: NoiseSource, denoise):
    """Run a sampler to its end; gives what it asked, what it was told, and the final latents."""
    run = SAMPLERS[name].run(x, sigmas, noise)
    asked, told = [], []
    try:
        ask = next(run)
        while True:
            asked.append(ask)
            told.append(denoise(*ask))
            ask = run.send(told[-1])
    except StopIteration as end:
        return asked, told, end.value


def noise_of(case, shape) -> NoiseSource:
    generator = seeded_generator(case["seed"])
    draw_noise(generator, shape)
    return {
        "none": silent,
        "independent": independent_noise(generator, shape),
        "brownian": brownian_noise(case["seed"], shape, tuple(case["brownian_interval"])),
    }[SAMPLERS[case["sampler"]].noise]


@pytest.mark.parametrize("key", CASES)
def test_trajectory_golden(key):
    case = CASES[key]
    if case["sampler"] not in SAMPLERS:
        pytest.skip(f"no sampler {case['sampler']} yet")
    sigmas, mu = tuple(case["sigmas"]), torch.tensor(ARRAYS["mu"])
    shape = tuple(mu.shape)
    latents = torch.tensor(ARRAYS["latent"]) if case["latent"] else torch.zeros(shape)
    noise = draw_noise(seeded_generator(case["seed"]), shape)
    x = initial_latents(noise, latents, sigmas[0], sdxl_table())
    asked, told, final = walk(
        case["sampler"], x, sigmas, noise_of(case, shape), lambda x, sigma: analytic(x, sigma, mu)
    )
    assert [sigma for _, sigma in asked] == case["eval_sigmas"]
    assert relative_error(torch.cat([x for x, _ in asked]), ARRAYS[case["id"] + "_x"]) < 1e-5
    assert relative_error(torch.cat(told), ARRAYS[case["id"] + "_x0"]) < 1e-5
    assert relative_error(final, ARRAYS[case["id"] + "_final"]) < 1e-5


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sure_denoiser_is_reached(name):
    goal = torch.linspace(-1, 1, 16).reshape(1, 4, 2, 2)
    source = silent if SAMPLERS[name].noise == "none" else lambda a, b: torch.ones_like(goal)
    asked, _, final = walk(name, goal + 14, LEVELS, source, lambda x, sigma: goal)
    assert [sigma for _, sigma in asked] == list(LEVELS[:-1])
    torch.testing.assert_close(final, goal)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigmas", [(), (3.0,)])
def test_no_step_gives_the_latents_back(name, sigmas):
    x = torch.ones(1, 4, 2, 2)
    asked, _, final = walk(name, x, sigmas, silent, lambda x, sigma: x)
    assert not asked
    assert final is x


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_can_be_closed_half_way(name):
    run = SAMPLERS[name].run(torch.ones(1, 4, 2, 2), LEVELS, lambda a, b: torch.zeros(1, 4, 2, 2))
    x, _ = next(run)
    run.send(x)
    run.close()
    with pytest.raises(StopIteration):
        next(run)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_was_yielded_is_not_changed_afterwards(name):
    source = silent if SAMPLERS[name].noise == "none" else lambda a, b: torch.ones(1, 4, 2, 2)
    run = SAMPLERS[name].run(torch.ones(1, 4, 2, 2), LEVELS, source)
    first, _ = next(run)
    kept = first.clone()
    run.send(first * 0.5)
    assert torch.equal(first, kept)


def test_euler_worked_by_hand():
    # From 2 to 1 with x = 3 and a denoised estimate of 1: slope (3 - 1) / 2, so x = 3 - 1.
    _, _, final = walk("euler", torch.tensor([3.0]), (2.0, 1.0), silent, lambda x, s: x * 0 + 1)
    assert final.tolist() == [2.0]


@given(st.floats(0.01, 100), st.floats(0.01, 0.99))
def test_an_ancestral_step_keeps_the_variance(sigma, share):
    down, up = ancestral_step(sigma, sigma * share)
    assert math.hypot(down, up) == pytest.approx(sigma * share)
    assert 0 <= up <= sigma * share
