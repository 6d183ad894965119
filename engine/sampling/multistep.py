"""Multistep samplers: one question a step, and the answers of the steps before to bend the way."""

import math
from collections import deque

from torch import Tensor

from engine.sampling.walk import Ask, NoiseSource, Sampling, Sigmas, slope, steps

LMS_ORDER = 4


def lms(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """Linear multistep: integrate the polynomial through the latest four slopes (Adams and Bashforth, uneven steps)."""
    ds: deque[Tensor] = deque(maxlen=LMS_ORDER)
    for i, sigma, _ in steps(sigmas):
        denoised = yield Ask(x, sigma, i)
        ds.appendleft(slope(x, denoised, sigma))
        for j, d in enumerate(ds):
            x = x + lms_coefficient(sigmas, i, j, len(ds)) * d
    return x


def lms_coefficient(sigmas: Sigmas, i: int, j: int, order: int) -> float:
    """Integrate from level i to the next the Lagrange polynomial that is 1 at level i - j.

    Args:
        sigmas: The levels.
        i: Index of the step.
        j: How many steps ago the slope was taken, below `order`.
        order: Slopes in use, at most 4.
    """
    start, end = sigmas[i], sigmas[i + 1]
    nodes = [sigmas[i - k] for k in range(order) if k != j]
    here = sigmas[i - j]

    def basis(at: float) -> float:
        return math.prod((at - node) / (here - node) for node in nodes)

    # Gauss's rule with two points is exact up to degree 3.
    middle, half = (start + end) / 2, (end - start) / 2
    return half * (basis(middle - half / math.sqrt(3)) + basis(middle + half / math.sqrt(3)))


def dpmpp_2m(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """DPM-Solver++(2M) (Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2)."""
    old: Tensor | None = None
    h_last = 0.0
    for i, sigma, sigma_next in steps(sigmas):
        denoised = yield Ask(x, sigma, i)
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
    for i, sigma, sigma_next in steps(sigmas):
        denoised = yield Ask(x, sigma, i)
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


def dpmpp_3m_sde(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """SDE-DPM-Solver++(3M) with eta = 1: first and second differences of the latest three estimates."""
    old: Tensor | None = None
    older: Tensor | None = None
    h_1 = h_2 = 0.0
    for i, sigma, sigma_next in steps(sigmas):
        denoised = yield Ask(x, sigma, i)
        if sigma_next == 0:
            x = denoised
            continue
        h = math.log(sigma / sigma_next)
        share = -math.expm1(-2 * h)
        phi_2 = 1 - share / (2 * h)
        phi_3 = phi_2 / (2 * h) - 0.5
        x = math.exp(-2 * h) * x + share * denoised
        if old is not None:
            r_0 = h_1 / h
            d_1 = (denoised - old) / r_0
            if older is not None:
                r_1 = h_2 / h
                bend = (d_1 - (old - older) / r_1) / (r_0 + r_1)
                d_1 = d_1 + bend * r_0
                x = x - phi_3 * bend
            x = x + phi_2 * d_1
        x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(share))
        old, older, h_1, h_2 = denoised, old, h, h_1
    return x
