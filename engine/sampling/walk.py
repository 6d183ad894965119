"""What all samplers share: how they ask, and the arithmetic of noise levels.

Noise levels are Python floats. Where a level between two others is asked for, it is the float32 number that Fooocus
computes, since noise of a Brownian path depends on its last digits.
"""

import math
from collections.abc import Callable, Generator, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

NoiseSource = Callable[[float, float], Tensor]
"""Gives noise of variance 1, shaped like the latents, for the step from one sigma down to the next."""

Sigmas = tuple[float, ...]


class Ask(NamedTuple):
    """One question of a sampler: what do these noisy latents look like without noise?"""

    x: Tensor
    """(B, 4, h, w) float32, before input scaling."""
    sigma: float
    """Noise level of `x`, above 0."""
    step: int | None
    """Index of the step that the answer is reported for; None for a further question inside a step."""


Sampling = Generator[Ask, Tensor, Tensor]
"""A running sampler: it asks, is sent the denoised estimate, and returns the final latents."""


def steps(sigmas: Sigmas) -> Iterator[tuple[int, float, float]]:
    """Go through the steps of a list: index, level, next level."""
    return ((i, sigma, after) for i, (sigma, after) in enumerate(pairwise(sigmas)))


def slope(x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """Give the direction of the probability-flow ODE, ``(x - denoised) / sigma`` (Karras et al. 2022, eq. 3)."""
    return (x - denoised) / sigma


def ancestral_step(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """Split a step into the level to go down to and the noise to add there.

    Args:
        sigma: Where the step begins.
        sigma_next: Where it ends, at most `sigma`.
        eta: Share of the noise that a reversed diffusion would add, 0 to 1.

    Returns:
        ``sigma_down`` and ``sigma_up``, whose squares sum to that of `sigma_next`.
    """
    variance_up = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    sigma_up = min(sigma_next, eta * math.sqrt(variance_up))
    return math.sqrt(sigma_next**2 - sigma_up**2), sigma_up


def to_time(sigma: float) -> float:
    """Turn a noise level (above 0) into the time of exponential integrators, ``-log(sigma)``, in float32."""
    return -float(torch.tensor(sigma, dtype=torch.float32).log())


def to_sigma(time: float) -> float:
    """Turn a time back into a noise level, ``exp(-time)``, in float32."""
    return float(torch.tensor(-time, dtype=torch.float32).exp())


def to_float32(value: float) -> float:
    """Round to the nearest float32 number."""
    return float(torch.tensor(value, dtype=torch.float32))


def log_midpoint(sigma: float, sigma_next: float) -> float:
    """Give the level half-way between two (above 0) on a logarithmic scale, in float32."""
    ends = torch.tensor((sigma, sigma_next), dtype=torch.float32).log()
    return float(ends[0].lerp(ends[1], 0.5).exp())


def lowest_level(sigmas: Sigmas) -> float:
    """Give the last level above 0 of a list that may end in 0."""
    return sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]
