"""Samplers as coroutines: each yields ``(x, sigma)``, is sent the denoised estimate, and returns the final latents.

They know nothing of models, guidance or devices; noise comes from a source they are given, and noise levels are
Python floats. One that is closed half-way leaves nothing behind.
"""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor

NoiseSource = Callable[[float, float], Tensor]
"""Gives noise of variance 1, shaped like the latents, for the step from one sigma down to the next."""

Sampling = Generator[tuple[Tensor, float], Tensor, Tensor]
"""A running sampler: asks with the noisy latents and their sigma, is sent the denoised estimate of both."""

Sigmas = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sampler:
    """A way down the noise levels, and what it needs on the way."""

    run: Callable[[Tensor, Sigmas, NoiseSource], Sampling]
    """Start it on latents noised to the first of the levels. Fewer than two levels give the latents back at once."""
    noise: Literal["none", "independent", "brownian"]
    """Which noise its source must give: none (it is never called), new for each step, or of one Brownian path."""


def euler(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Follow the probability-flow ODE by straight steps (Karras et al. 2022, algorithm 1 without churn)."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        d = (x - denoised) / sigma
        x = x + d * (sigma_next - sigma)
    return x


def euler_ancestral(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Step down by Euler below the next level, and add new noise up to it (eta = 1)."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next)
        d = (x - denoised) / sigma
        x = x + d * (sigma_down - sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * sigma_up
    return x


def dpmpp_2m(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """DPM-Solver++(2M) (Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2)."""
    old: Tensor | None = None
    h_last = 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        if sigma_next == 0:
            x = denoised
            continue
        h = math.log(sigma / sigma_next)
        d = denoised
        if old is not None:
            r = h_last / h
            d = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * old
        x = (sigma_next / sigma) * x - math.expm1(-h) * d
        old, h_last = denoised, h
    return x


def dpmpp_2m_sde(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """SDE-DPM-Solver++(2M) with eta = 1, midpoint form (Lu et al. 2022, https://arxiv.org/abs/2211.01095)."""
    old: Tensor | None = None
    h_last = 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        if sigma_next == 0:
            x = denoised
            continue
        h = math.log(sigma / sigma_next)
        share = -math.expm1(-2 * h)  # of the denoised estimate in the step
        x = (sigma_next / sigma) * math.exp(-h) * x + share * denoised
        if old is not None:
            x = x + (0.5 * share * h / h_last) * (denoised - old)
        x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(share))
        old, h_last = denoised, h
    return x


def ancestral_step(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Split a step into the level to go down to and the noise to add there.

    Returns:
        ``sigma_down`` and ``sigma_up``, whose squares sum to that of `sigma_next`.
    """
    variance_up = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    sigma_up = min(sigma_next, math.sqrt(variance_up))
    return math.sqrt(sigma_next**2 - sigma_up**2), sigma_up


SAMPLERS: Mapping[str, Sampler] = {
    "euler": Sampler(euler, "none"),
    "euler_ancestral": Sampler(euler_ancestral, "independent"),
    "dpmpp_2m": Sampler(dpmpp_2m, "none"),
    "dpmpp_2m_sde": Sampler(dpmpp_2m_sde, "brownian"),
    "dpmpp_2m_sde_gpu": Sampler(dpmpp_2m_sde, "brownian"),
}
"""Samplers by the names Fooocus gives them. ``_gpu`` ones are the same: their noise never depended on the device."""
