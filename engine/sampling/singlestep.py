"""Single-step exponential integrators: several questions inside a step, no memory of the steps before.

Their time is ``-log(sigma)``. Source: Lu et al. 2022, DPM-Solver, https://arxiv.org/abs/2206.00927, and DPM-Solver++,
https://arxiv.org/abs/2211.01095.
"""

import math
from collections.abc import Generator

import torch
from torch import Tensor

from engine.sampling.walk import (
    Ask,
    NoiseSource,
    Sampling,
    Sigmas,
    ancestral_step,
    lowest_level,
    slope,
    steps,
    to_float32,
    to_sigma,
    to_time,
)

RELATIVE_TOLERANCE = 0.05
ABSOLUTE_TOLERANCE = 0.0078
FIRST_STEP = 0.05
"""Length of the first step of `dpm_adaptive` in time."""
ACCEPTED = 0.81
"""Smallest factor of the next step's length at which `dpm_adaptive` takes the step."""


def dpmpp_2s_ancestral(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """DPM-Solver++(2S) down below the next level, and new noise up to it (eta = 1, r = 1/2)."""
    for i, sigma, sigma_next in steps(sigmas):
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next)
        denoised = yield Ask(x, sigma, i)
        if sigma_down == 0:
            x = denoised
            continue
        middle = _middle(sigma, sigma_down)
        denoised = yield Ask(_toward(x, denoised, sigma, middle), middle, None)
        x = _toward(x, denoised, sigma, sigma_down) + noise(sigma, sigma_next) * sigma_up
    return x


def dpmpp_sde(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """SDE-DPM-Solver++(2S) with eta = 1 and r = 1/2: noise half-way and at the end of each step."""
    for i, sigma, sigma_next in steps(sigmas):
        denoised = yield Ask(x, sigma, i)
        if sigma_next == 0:
            x = denoised
            continue
        middle = _middle(sigma, sigma_next)
        # The path is asked for the levels as they come back from their logarithms.
        start, end = to_sigma(to_time(sigma)), to_sigma(to_time(sigma_next))
        down, up = ancestral_step(start, middle)
        half = _toward(x, denoised, start, down) + noise(start, middle) * up
        denoised = yield Ask(half, middle, None)
        down, up = ancestral_step(start, end)
        x = _toward(x, denoised, start, down) + noise(start, end) * up
    return x


def dpm_fast(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """DPM-Solver-fast: steps of order 3 at even times, as many questions as `sigmas` has steps.

    Only the ends of `sigmas` count, and the last level above 0 is where it stops. A list with one level above 0 is
    answered by the denoised estimate.
    """
    n = len(sigmas) - 1
    if n < 1:
        return x
    start, end = sigmas[0], lowest_level(sigmas)
    if start == end:
        return (yield Ask(x, start, 0))
    orders = [3] * (n // 3 - 1) + [2, 1] if n % 3 == 0 else [3] * (n // 3) + [n % 3]
    times = torch.linspace(to_time(start), to_time(end), len(orders) + 1).tolist()
    for i, order in enumerate(orders):
        x = yield from _solver_step(x, times[i], times[i + 1], order, i)
    return x


def dpm_adaptive(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """DPM-Solver-12-23's order-3 form: each step as long as its error allows, whatever the number of `sigmas`.

    Only the ends of `sigmas` count, as in `dpm_fast`. Whether a step is taken is read from the device, once in each step.
    """
    if len(sigmas) < 2:
        return x
    start, end = sigmas[0], lowest_level(sigmas)
    if start == end:
        return (yield Ask(x, start, 0))
    time, last, h, i = to_time(start), to_time(end), FIRST_STEP, 0
    low_before = x
    while time < last - 1e-5:
        time_next = min(last, to_float32(time + h))
        low, high = yield from _embedded_step(x, time, time_next, i)
        i += 1
        error = _step_error(low, high, low_before)
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1)
        h *= factor
        if factor >= ACCEPTED:
            low_before, x, time = low, high, time_next
    return x


def _middle(sigma: float, sigma_next: float) -> float:
    """Give the level half-way in time."""
    time = to_time(sigma)
    return to_sigma(to_float32(time + to_float32(to_time(sigma_next) - time) / 2))


def _toward(x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Go straight to the denoised estimate as far as the level falls."""
    share = sigma_next / sigma
    return share * x + (1 - share) * denoised


def _step_error(low: Tensor, high: Tensor, before: Tensor) -> float:
    """Measure the two orders' difference in units of the tolerance: 1 is as large as may be."""
    tolerance = (RELATIVE_TOLERANCE * torch.maximum(low.abs(), before.abs())).clamp_min(
        ABSOLUTE_TOLERANCE
    )
    return float(torch.linalg.norm((low - high) / tolerance)) / math.sqrt(high.numel())


def _solver_step(x: Tensor, time: float, time_next: float, order: int, i: int) -> Sampling:
    """DPM-Solver-1, -2 or -3: go from one time to a later one."""
    first = yield from _epsilon(x, time, i)
    if order == 1:
        return _first_order(x, first, time, time_next)
    if order == 2:
        return (yield from _second_order(x, first, time, time_next, 1 / 2))[0]
    _, second = yield from _second_order(x, first, time, time_next, 1 / 3)
    return (yield from _third_order(x, (first, second), time, time_next, None))


def _embedded_step(
    x: Tensor, time: float, time_next: float, i: int
) -> Generator[Ask, Tensor, tuple[Tensor, Tensor]]:
    """Make a step of order 2 and one of order 3 from the same three questions."""
    first = yield from _epsilon(x, time, None)
    low, second = yield from _second_order(x, first, time, time_next, 1 / 3)
    high = yield from _third_order(x, (first, second), time, time_next, i)
    return low, high


def _first_order(x: Tensor, epsilon: Tensor, time: float, time_next: float) -> Tensor:
    return x - to_sigma(time_next) * math.expm1(time_next - time) * epsilon


def _second_order(
    x: Tensor, first: Tensor, time: float, time_next: float, share: float
) -> Generator[Ask, Tensor, tuple[Tensor, Tensor]]:
    """Ask at a share of the step; gives the end of the step and the second epsilon."""
    h = time_next - time
    inner = to_float32(time + to_float32(share * to_float32(h)))
    second = yield from _epsilon(_first_order(x, first, time, inner), inner, None)
    bend = to_sigma(time_next) / (2 * share) * math.expm1(h)
    return _first_order(x, first, time, time_next) - bend * (second - first), second


def _third_order(
    x: Tensor, known: tuple[Tensor, Tensor], time: float, time_next: float, i: int | None
) -> Sampling:
    """Finish a step of order 3 whose epsilons at its start and at a third of it are known."""
    first, second = known
    h = time_next - time
    part = 2 / 3 * h
    inner = to_float32(time + to_float32(2 / 3 * to_float32(h)))
    bend = to_sigma(inner) * 2 * (math.expm1(part) / part - 1)
    look = _first_order(x, first, time, inner) - bend * (second - first)
    third = yield from _epsilon(look, inner, i)
    bend = to_sigma(time_next) * 1.5 * (math.expm1(h) / h - 1)
    return _first_order(x, first, time, time_next) - bend * (third - first)


def _epsilon(x: Tensor, time: float, i: int | None) -> Sampling:
    sigma = to_sigma(time)
    denoised = yield Ask(x, sigma, i)
    return slope(x, denoised, sigma)
