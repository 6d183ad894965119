"""A Brownian path that answers for any two times, in any order, with the numbers of `torchsde.BrownianTree`.

The path is a tree of halved intervals, each with a seed of its own (Li et al. 2020, https://arxiv.org/abs/2001.01328,
algorithm 3). What a query went through is kept for the next one: steps of a sampler lie side by side, and a third of the draws
remain.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

DIGITS = 6
"""Times are resolved to this many decimals."""
POOL = 24
"""Words of entropy that a seed is mixed from, as torchsde has them."""


@dataclass(frozen=True, slots=True)
class _Interval:
    """One node of the tree."""

    start: float
    end: float
    key: int = 0
    """Its place from the left among the nodes of its depth."""
    depth: int = 0

    @property
    def middle(self) -> float:
        return round(0.5 * (self.end + self.start), DIGITS)

    @property
    def halves(self) -> "tuple[_Interval, _Interval]":
        below = self.depth + 1
        return (
            _Interval(self.start, self.middle, 2 * self.key, below),
            _Interval(self.middle, self.end, 2 * self.key + 1, below),
        )


class BrownianPath:
    """Tensors whose elements each walk a Brownian path of their own."""

    def __init__(
        self, seed: int, shape: tuple[int, ...], *, start: float, end: float, device: str = "cpu"
    ) -> None:
        """Settle the path; nothing but its end is drawn.

        Args:
            seed: At least 0.
            shape: Of the tensors.
            start: First time.
            end: Last time, above `start`.
            device: Where it is drawn; the numbers differ between CPU and CUDA.
        """
        self._seed, self._shape, self._device = seed, shape, device
        self._top = _Interval(round(start, DIGITS), round(end, DIGITS))
        self._whole = self._randn(()) * math.sqrt(end - start)
        self._left: dict[_Interval, Tensor] = {}
        self._before: dict[_Interval, Tensor] = {}

    def increment(self, start: float, end: float) -> Tensor:
        """Say how far the path goes from one time to a later one; what lies outside the path adds nothing."""
        low, high = self._top.start, self._top.end
        start, end = (round(min(max(at, low), high), DIGITS) for at in (start, end))
        if start == end:
            return torch.zeros(self._shape, device=self._device)
        self._before, self._left = self._left, {}
        first, *others = self._parts(self._top, self._whole, start, end)
        total = first.clone()  # it may be kept for the next query
        for part in others:
            total.add_(part)
        return total

    def _parts(self, node: _Interval, whole: Tensor, start: float, end: float) -> list[Tensor]:
        """Give the increments of the largest nodes that together are the interval, from the left."""
        if (start, end) == (node.start, node.end):
            return [whole]
        left, right = node.halves
        on_left = self._left_of(node, whole)
        parts = []
        if start < left.end:
            parts += self._parts(left, on_left, start, min(end, left.end))
        if end > right.start:
            parts += self._parts(right, whole - on_left, max(start, right.start), end)
        return parts

    def _left_of(self, node: _Interval, whole: Tensor) -> Tensor:
        """Give the increment of a node's left half: a Brownian bridge's middle, drawn with the node's seed."""
        known = self._before.get(node)
        if known is None:
            before, after = node.middle - node.start, node.end - node.middle
            share = 1 / (node.end - node.start)
            noise = self._randn((node.key, node.depth)).mul_(math.sqrt(before * after * share))
            known = whole.mul(before).mul_(share).add_(noise)
        self._left[node] = known
        return known

    def _randn(self, key: tuple[int, ...]) -> Tensor:
        import numpy as np

        sequence = np.random.SeedSequence(entropy=self._seed, spawn_key=key, pool_size=POOL)
        generator = torch.Generator(self._device).manual_seed(int(sequence.generate_state(1)[0]))
        return torch.randn(self._shape, generator=generator, device=self._device)
