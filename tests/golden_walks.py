"""Walks samplers as the golden trajectories were recorded, and tells what Fooocus reports of each step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.sampling.levels import NoiseLevels, sdxl_table
from engine.sampling.noise import brownian_noise, draw_noise, independent_noise, seeded_generator
from engine.sampling.prediction import model_sampling
from engine.sampling.samplers import SAMPLERS
from engine.sampling.schedules import initial_latents
from engine.sampling.walk import Ask, NoiseSource, Sigmas

Walk = tuple[list[Ask], list[Tensor], Tensor]
"""What a sampler asked, what it was told, and the final latents."""


def walk(
    sampler: str,
    x: Tensor,
    sigmas: Sigmas,
    noise: NoiseSource,
    denoise: Callable[[Tensor, float], Tensor],
    *,
    levels: NoiseLevels | None = None,
) -> Walk:
    """Run a sampler to its end."""
    run = SAMPLERS[sampler].run(x, sigmas, noise, levels or sdxl_table())
    asked: list[Ask] = []
    told: list[Tensor] = []
    try:
        ask = next(run)
        while True:
            asked.append(ask)
            told.append(denoise(ask.x, ask.sigma))
            ask = run.send(told[-1])
    except StopIteration as end:
        return asked, told, end.value


def walk_case(case: Mapping[str, Any], arrays: Mapping[str, Any]) -> Walk:
    """Walk one case of samplers.json, with the analytic denoiser that it was recorded with."""
    sigmas, mu = tuple(case["sigmas"]), torch.tensor(arrays["mu"])
    shape = tuple(mu.shape)
    latents = torch.tensor(arrays["latent"]) if case["latent"] else torch.zeros(shape)
    generator = seeded_generator(case["seed"])
    levels = model_sampling(case["scheduler"]).levels
    x = initial_latents(draw_noise(generator, shape), latents, sigmas[0], levels)
    noise = independent_noise(generator, shape)
    if SAMPLERS[case["sampler"]].noise == "brownian":
        noise = brownian_noise(case["seed"], shape, tuple(case["brownian_interval"]))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        variance = 1 + sigma**2
        return (x + sigma**2 * mu) / variance + 0.2 * sigma / variance * torch.sin(2 * x)

    return walk(case["sampler"], x, sigmas, noise, denoise, levels=levels)


def reported(
    sampler: str, asked: Sequence[Ask], told: Sequence[Tensor], final: Tensor
) -> dict[str, Tensor]:
    """Gather what compares to the golden arrays ``x`` (latents) and ``x0`` (estimates), both (steps, 4, h, w).

    uni_pc reports latents of another space, and tcd what it puts noise on instead of the estimate: these are left out.
    dpm_adaptive reports the latents after a step of three questions.
    """
    if sampler == "dpm_adaptive":
        opens = list(range(0, len(asked), 3))
        x = [*(asked[i].x for i in opens[1:]), final]
    else:
        opens = [i for i, ask in enumerate(asked) if ask.step is not None]
        x = [asked[i].x for i in opens]
    reports = {"x": torch.cat(x), "x0": torch.cat([told[i] for i in opens])}
    if sampler.startswith("uni_pc"):
        del reports["x"]
    if sampler == "tcd":
        del reports["x0"]
    return reports


def finite_part(actual: Tensor, expected: Any) -> tuple[Tensor, Any]:
    """Cut both down to the steps before Fooocus first gives NaN."""
    good = [bool(torch.as_tensor(item).isfinite().all()) for item in expected]
    count = good.index(False) if False in good else len(good)
    return actual[:count], expected[:count]
