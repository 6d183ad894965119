"""Samplers of Euler's and Heun's kind: straight steps along the ODE, some looked at twice or three times."""

import math
from itertools import pairwise

from torch import Tensor

from engine.sampling.levels import NoiseLevels
from engine.sampling.schedules import karras_ramp
from engine.sampling.walk import (
    Ask,
    NoiseSource,
    Sampling,
    Sigmas,
    ancestral_step,
    log_midpoint,
    slope,
    steps,
)

RESTART_LEVELS = (0.1, 2.0)
"""Level near which `restart` jumps, and level near which it lands."""


def euler(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Follow the probability-flow ODE by straight steps (Karras et al. 2022, algorithm 1 without churn)."""
    for i, sigma, sigma_next in steps(sigmas):
        denoised = yield Ask(x, sigma, i)
        x = x + slope(x, denoised, sigma) * (sigma_next - sigma)
    return x


def euler_ancestral(x: Tensor, sigmas: Sigmas, noise: NoiseSource, eta: float = 1.0) -> Sampling:
    """Step down by Euler below the next level, and add new noise up to it, a share `eta` of what is usual."""
    for i, sigma, sigma_next in steps(sigmas):
        denoised = yield Ask(x, sigma, i)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        x = x + slope(x, denoised, sigma) * (sigma_down - sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * sigma_up
    return x


def ddim(
    x: Tensor, sigmas: Sigmas, noise: NoiseSource, levels: NoiseLevels, eta: float
) -> Sampling:
    """DDIM (Song et al. 2020, https://arxiv.org/abs/2010.02502, eq. 12 and 16): Euler's steps, with noise where `eta` is above 0.

    It ends at the lowest level that the model was trained on, in place of 0, and at variance 1: ``set_alpha_to_one`` is off
    in SDXL's configuration.
    """
    if len(sigmas) < 2:
        return x
    last = min(levels.sigma_below(0.0, 1.0), sigmas[-2])
    way = (*sigmas[:-1], last)
    x = yield from (euler_ancestral(x, way, noise, eta) if eta else euler(x, way, noise))
    return x / math.sqrt(1 + last**2)


def heun(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Correct each Euler step by the slope at its end (Karras et al. 2022, algorithm 2 without churn)."""
    for i, sigma, sigma_next in steps(sigmas):
        x = yield from _heun_step(x, i, sigma, sigma_next)
    return x


def heunpp2(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Heun++: look two levels ahead, and weigh the slopes by their levels; fewer looks in the last two steps."""
    for i, sigma, sigma_next in steps(sigmas):
        denoised = yield Ask(x, sigma, i)
        levels = [level for level in sigmas[i : i + 3] if level != sigmas[-1]]
        ds = [slope(x, denoised, sigma)]
        look = x
        for level, level_next in pairwise(levels):
            look = look + ds[-1] * (level_next - level)
            denoised = yield Ask(look, level_next, None)
            ds.append(slope(look, denoised, level_next))
        shares = [level / (len(levels) * sigmas[0]) for level in levels[1:]]
        d = ds[0] * (1 - sum(shares))
        for share, further in zip(shares, ds[1:], strict=True):
            d = d + share * further
        x = x + d * (sigma_next - sigma)
    return x


def dpm_2(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Step with the slope at the logarithmic middle (DPM-Solver-2 after Karras et al. 2022); the last step is Euler's."""
    for i, sigma, sigma_next in steps(sigmas):
        x = yield from _midpoint_step(x, i, sigma, sigma_next)
    return x


def dpm_2_ancestral(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Go by the midpoint step below the next level, and add new noise up to it (eta = 1)."""
    for i, sigma, sigma_next in steps(sigmas):
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next)
        x = yield from _midpoint_step(x, i, sigma, sigma_down)
        if sigma_down > 0:
            x = x + noise(sigma, sigma_next) * sigma_up
    return x


def restart(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Near the end go back up once or twice, and walk the middle of the way again (Xu et al. 2023).

    From 20 steps on; shorter lists are walked once. The number of steps stays that of `sigmas`, whose ends alone count.

    Source: Restart sampling, https://arxiv.org/abs/2306.14878
    """
    last = None
    for i, (sigma, sigma_next) in enumerate(restart_steps(sigmas)):
        if last is not None and last < sigma:
            x = x + noise(last, sigma) * math.sqrt(sigma**2 - last**2)
        x = yield from _heun_step(x, i, sigma, sigma_next)
        last = sigma_next
    return x


def restart_steps(sigmas: Sigmas) -> list[tuple[float, float]]:
    """List the steps of `restart`, each from one level to a lower one."""
    n = len(sigmas) - 1
    if n < 20:
        return [step[1:] for step in steps(sigmas)]
    again, times = (n // 4, 2) if n >= 36 else (9, 1)
    levels = karras_ramp(n - again * times, sigma_min=sigmas[-2], sigma_max=sigmas[0])
    levels = (*levels, 0.0)
    low, high = (
        min(range(len(levels)), key=lambda i: abs(levels[i] - goal)) for goal in RESTART_LEVELS
    )
    way: list[tuple[float, float]] = []
    for i, sigma, sigma_next in steps(levels):
        way.append((sigma, sigma_next))
        if i + 1 == low and high < low:
            middle = karras_ramp(again + 1, sigma_min=levels[low], sigma_max=levels[high])
            way += [step[1:] for step in steps(middle)] * times
    return way


def _heun_step(x: Tensor, i: int, sigma: float, sigma_next: float) -> Sampling:
    denoised = yield Ask(x, sigma, i)
    d = slope(x, denoised, sigma)
    ahead = x + d * (sigma_next - sigma)
    if sigma_next == 0:
        return ahead
    denoised = yield Ask(ahead, sigma_next, None)
    return x + (d + slope(ahead, denoised, sigma_next)) / 2 * (sigma_next - sigma)


def _midpoint_step(x: Tensor, i: int, sigma: float, sigma_next: float) -> Sampling:
    denoised = yield Ask(x, sigma, i)
    d = slope(x, denoised, sigma)
    if sigma_next == 0:
        return x + d * (sigma_next - sigma)
    middle = log_midpoint(sigma, sigma_next)
    half = x + d * (middle - sigma)
    denoised = yield Ask(half, middle, None)
    return x + slope(half, denoised, middle) * (sigma_next - sigma)
