"""UniPC: a multistep predictor whose every estimate also corrects the step that led to it.

Source: Zhao et al. 2023, https://arxiv.org/abs/2302.04867, with data prediction. Written in noise levels: latents here are
those of the paper divided by alpha.
"""

import math
from collections import deque

import torch
from torch import Tensor

from engine.sampling.walk import Ask, NoiseSource, Sampling, Sigmas, to_float32

ORDER = 3
LAST_LEVEL = to_float32(0.001)
"""Stands for 0 at the end of a list, where the logarithm has no end."""


def uni_pc(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """UniPC with B(h) = h."""
    return _uni_pc(x, sigmas, is_bh2=False)


def uni_pc_bh2(x: Tensor, sigmas: Sigmas, noise: NoiseSource) -> Sampling:
    """UniPC with B(h) = exp(h) - 1."""
    return _uni_pc(x, sigmas, is_bh2=True)


def _uni_pc(x: Tensor, sigmas: Sigmas, *, is_bh2: bool) -> Sampling:
    n = len(sigmas) - 1
    if n < 1:
        return x
    levels = [_coarse(sigma) for sigma in (*sigmas[:-1], sigmas[-1] or LAST_LEVEL)]
    known: deque[tuple[float, Tensor]] = deque(maxlen=ORDER)
    known.appendleft((levels[0], (yield Ask(x, sigmas[0], 0))))
    for step in range(1, n + 1):
        order = max(1, min(ORDER, n - 1, step, n + 1 - step))
        update = _Update(x, levels[step], list(known)[:order], is_bh2=is_bh2)
        x = update.predict()
        if step < n:
            denoised = yield Ask(x, sigmas[step], step)
            x = update.correct(denoised)
            known.appendleft((levels[step], denoised))
    return x


class _Update:
    """One step from the latest known level to the next, by the estimates at the latest levels."""

    def __init__(
        self, x: Tensor, level: float, known: list[tuple[float, Tensor]], *, is_bh2: bool
    ) -> None:
        (last_level, self._last), *older = known
        h = math.log(last_level / level)
        self._order = len(known)
        self._places = [math.log(last_level / at) / h for at, _ in older]
        self._slopes = [
            (denoised - self._last) / place
            for (_, denoised), place in zip(older, self._places, strict=True)
        ]
        self._scale = math.expm1(-h) if is_bh2 else -h
        self._moments = _moments(-h, self._order, self._scale)
        self._base = (level / last_level) * x - math.expm1(-h) * self._last

    def predict(self) -> Tensor:
        """Go to the next level by what is known."""
        count = self._order - 1
        return self._bent([0.5] if count == 1 else self._shares(self._places, count))

    def correct(self, denoised: Tensor) -> Tensor:
        """Go there again, now that the estimate at its end is known as well."""
        order = self._order
        shares = [0.5] if order == 1 else self._shares([*self._places, 1.0], order)
        return self._bent(shares[:-1]) - self._scale * shares[-1] * (denoised - self._last)

    def _bent(self, shares: list[float]) -> Tensor:
        x = self._base
        for share, d in zip(shares, self._slopes, strict=True):
            x = x - self._scale * share * d
        return x

    def _shares(self, places: list[float], count: int) -> list[float]:
        """Weigh the slopes so that the first `count` moments are met."""
        if not count:
            return []
        powers = torch.tensor([[place**k for place in places] for k in range(count)])
        moments = torch.tensor(self._moments[:count])
        shares: list[float] = torch.linalg.solve(powers.double(), moments.double()).tolist()
        return shares


def _coarse(sigma: float) -> float:
    """Give the level that float32 makes of `sigma` on its way through ``alpha² = 1 / (sigma² + 1)``, as in Fooocus.

    Near 0 it differs in the second digit, which shows in the fifth digit of the picture.
    """
    log_alpha = 0.5 * torch.log(1 / (torch.tensor(sigma, dtype=torch.float32) ** 2 + 1))
    log_spread = 0.5 * torch.log(1 - torch.exp(2 * log_alpha))
    return float((log_spread - log_alpha).exp())


def _moments(h: float, order: int, scale: float) -> list[float]:
    """Give ``k! · phi_(k+1)(h) / B(h) · h`` for k from 1 to `order`, where phi are those of exponential integrators."""
    phi = math.expm1(h) / h - 1
    moments = []
    for k in range(1, order + 1):
        moments.append(phi * math.factorial(k) / scale)
        phi = phi / h - 1 / math.factorial(k + 1)
    return moments
