"""Samplers of distilled models: they jump to the denoised estimate, or near it, and put new noise on."""

import math

from torch import Tensor

from engine.sampling.levels import NoiseLevels
from engine.sampling.walk import Ask, NoiseSource, Sampling, Sigmas, slope, steps

TCD_SHARE = 0.7
"""Share of a step's timestep that a TCD model is taken down to before new noise (1 - eta)."""


def lcm(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Take the denoised estimate, and put new noise on it (Luo et al. 2023, https://arxiv.org/abs/2310.04378)."""
    for i, sigma, sigma_next in steps(sigmas):
        x = yield Ask(x, sigma, i)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * sigma_next
    return x


def tcd(
    x: Tensor,
    sigmas: Sigmas,
    noise: NoiseSource,
    levels: NoiseLevels,
    share: float = TCD_SHARE,
) -> Sampling:
    """Go below the next level along the ODE, to a share of its timestep, and put new noise on (Zheng et al. 2024).

    Where rounding puts the lower level above the next one there is no new noise.

    Source: Trajectory consistency distillation, https://arxiv.org/abs/2402.19159, algorithm 4.
    """
    for i, sigma, sigma_next in steps(sigmas):
        denoised = yield Ask(x, sigma, i)
        below = levels.sigma_below(sigma_next, share)
        x = denoised + slope(x, denoised, sigma) * below
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * math.sqrt(max(0.0, sigma_next**2 - below**2))
        else:
            x = x / math.sqrt(1 + below**2)
    return x
