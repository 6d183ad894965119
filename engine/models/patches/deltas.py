"""What one file does to one weight: the arithmetic of the LoRA family.

Each kind adds `scale` times its difference to a float32 weight in place, as (out, in) or (out, in, height, width). Those that look at the
weight see it as the patches before them left it. Knows no files and no names.

Source of the formulas: kohya-ss sd-scripts and KohakuBlueleaf/LyCORIS (both Apache-2.0), PEFT (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

import torch
from torch import Tensor

Shape = Sequence[int]


class Delta(Protocol):
    """A change of one weight."""

    def fits(self, shape: Shape) -> bool:
        """Whether its tensors fit one another and a weight of this shape."""

    def add_to(self, weight: Tensor, scale: float) -> None:
        """Add `scale` times the difference to a contiguous float32 weight, in place."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """LoRA and LoCon: ``factor · up @ down``, with a kernel between them in Tucker's form."""

    up: Tensor
    """(out, rank), or with two sides of 1 more."""
    down: Tensor
    """(rank, in), or (rank, in, height, width)."""
    factor: float = 1.0
    """alpha / rank."""
    mid: Tensor | None = None
    """(rank of up, rank of down, height, width)."""

    def fits(self, shape: Shape) -> bool:
        """As `Delta` says."""
        rank, inner = self.down.shape[0], prod(self.down.shape[1:])
        if self.mid is not None:
            if self.mid.ndim != 4 or self.mid.shape[1] != rank:
                return False
            rank, inner = self.mid.shape[0], inner * prod(self.mid.shape[2:])
        return rank == prod(self.up.shape[1:]) and _is(shape, self.up.shape[0], inner)

    def add_to(self, weight: Tensor, scale: float) -> None:
        """As `Delta` says."""
        up, down = _matrix(self.up, weight), _matrix(self.down, weight)
        if self.mid is not None:
            down = torch.einsum("pqkl,qi->pikl", self.mid.to(weight), down).flatten(1)
        weight.flatten(1).addmm_(up, down, alpha=scale * self.factor)


@dataclass(frozen=True, slots=True, eq=False)
class Hadamard:
    """LoHa: ``factor · first ⊙ second``, each a product of two matrices or, in Tucker's form, of three tensors."""

    first: Sequence[Tensor]
    """(out, rank) and (rank, in); in Tucker's form (rank, out), (rank, in) and the kernel (rank, rank, height, width)."""
    second: Sequence[Tensor]
    factor: float = 1.0

    def fits(self, shape: Shape) -> bool:
        """As `Delta` says."""
        return all(
            (size := _product_size(part)) is not None and _is(shape, *size)
            for part in (self.first, self.second)
        )

    def add_to(self, weight: Tensor, scale: float) -> None:
        """As `Delta` says."""
        first, second = _product(self.first, weight), _product(self.second, weight)
        weight.flatten(1).addcmul_(first, second, value=scale * self.factor)


@dataclass(frozen=True, slots=True, eq=False)
class Kronecker:
    """LoKr: ``factor · first ⊗ second``, each whole or a product as in `Hadamard`."""

    first: Sequence[Tensor]
    second: Sequence[Tensor]
    factor: float = 1.0

    def fits(self, shape: Shape) -> bool:
        """As `Delta` says."""
        first, second = _product_size(self.first), _product_size(self.second)
        if first is None or second is None:
            return False
        return _is(shape, first[0] * second[0], first[1] * second[1])

    def add_to(self, weight: Tensor, scale: float) -> None:
        """As `Delta` says."""
        first, second = _product(self.first, weight), _product(self.second, weight)
        blocks = weight.view(first.shape[0], second.shape[0], first.shape[1], second.shape[1])
        blocks.addcmul_(first[:, None, :, None], second[None, :, None], value=scale * self.factor)


@dataclass(frozen=True, slots=True, eq=False)
class Generalised:
    """GLoRA: ``factor · (W @ inner_up @ inner_down + up @ down)``; the first product runs over the input channels."""

    inner_up: Tensor
    """(in, rank)."""
    inner_down: Tensor
    """(rank, in)."""
    up: Tensor
    """(out, rank)."""
    down: Tensor
    """(rank, in), or (rank, in, height, width)."""
    factor: float = 1.0

    def fits(self, shape: Shape) -> bool:
        """As `Delta` says."""
        inner = (self.inner_up.shape[0], prod(self.inner_down.shape[1:]))
        return (
            prod(self.inner_up.shape[1:]) == self.inner_down.shape[0]
            and len(shape) > 1
            and inner == (shape[1], shape[1])
            and LowRank(self.up, self.down).fits(shape)
        )

    def add_to(self, weight: Tensor, scale: float) -> None:
        """As `Delta` says."""
        inner_up, inner_down = _matrix(self.inner_up, weight), _matrix(self.inner_down, weight)
        mixed = (weight.movedim(1, -1) @ inner_up @ inner_down).movedim(-1, 1)
        weight.add_(mixed, alpha=scale * self.factor)
        LowRank(self.up, self.down, self.factor).add_to(weight, scale)


@dataclass(frozen=True, slots=True, eq=False)
class Full:
    """A difference written out, of a weight or a bias."""

    difference: Tensor

    def fits(self, shape: Shape) -> bool:
        """As `Delta` says."""
        return _same(self.difference.shape, shape)

    def add_to(self, weight: Tensor, scale: float) -> None:
        """As `Delta` says."""
        weight.add_(self.difference.to(weight).reshape(weight.shape), alpha=scale)


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """A difference in 256 levels, as in Fooocus' inpaint patches: ``levels / 255 · (high - low) + low``."""

    levels: Tensor
    """uint8, of the weight's shape."""
    low: Tensor
    high: Tensor

    def fits(self, shape: Shape) -> bool:
        """As `Delta` says."""
        return (
            _same(self.levels.shape, shape)
            and _spreads(self.low.shape, self.levels.shape)
            and _spreads(self.high.shape, self.levels.shape)
        )

    def add_to(self, weight: Tensor, scale: float) -> None:
        """As `Delta` says."""
        low, high = self.low.to(weight), self.high.to(weight)
        difference = self.levels.to(weight).div_(255).mul_(high - low).add_(low)
        weight.add_(difference.reshape(weight.shape), alpha=scale)


@dataclass(frozen=True, slots=True, eq=False)
class Decomposed:
    """DoRA: the changed weight, its direction kept and its length set: ``magnitude · (W + D) / ‖W + D‖``.

    The length is that of each output channel over all its inputs, or of each input channel over all outputs; the shape of the
    magnitude says which. Between the weight and the whole change `scale` goes in a straight line, so that 0 changes nothing: LyCORIS'
    own multiplier leaves D in place at 0.

    Source: Liu et al. 2024, https://arxiv.org/abs/2402.09353, eq. 5; axes and the small number added to the length as in LyCORIS'
    `apply_weight_decompose`.
    """

    inner: Delta
    magnitude: Tensor
    """(out), (out, 1, ...) or (1, in, ...)."""

    def fits(self, shape: Shape) -> bool:
        """As `Delta` says."""
        return self.inner.fits(shape) and (
            self._is_by_output(shape)
            or (
                len(shape) > 1
                and self.magnitude.shape[:2] == (1, shape[1])
                and self._is_flat(shape[1])
            )
        )

    def add_to(self, weight: Tensor, scale: float) -> None:
        """As `Delta` says."""
        axis = 0 if self._is_by_output(weight.shape) else 1
        changed = weight.clone()
        self.inner.add_to(changed, 1.0)
        others = [dim for dim in range(weight.ndim) if dim != axis]
        length = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
        length += torch.finfo(length.dtype).eps
        changed.mul_(self.magnitude.to(weight).reshape(length.shape) / length)
        weight.lerp_(changed, scale)

    def _is_by_output(self, shape: Shape) -> bool:
        return self.magnitude.shape[:1] == (shape[0],) and self._is_flat(shape[0])

    def _is_flat(self, count: int) -> bool:
        return self.magnitude.numel() == count


def third(delta: Delta, index: int) -> Delta | None:
    """Take the part of a change of query, key and value in one matrix that belongs to one of them.

    Args:
        delta: The change of the whole matrix.
        index: 0 query, 1 key, 2 value.

    Returns:
        None where the kind cannot be taken apart.
    """
    match delta:
        case LowRank(up=up) if up.shape[0] % 3 == 0:
            return replace(delta, up=up.chunk(3)[index])
        case Full(difference=difference) if difference.ndim and difference.shape[0] % 3 == 0:
            return Full(difference.chunk(3)[index])
        case _:
            return None


def _matrix(factor: Tensor, weight: Tensor) -> Tensor:
    """Bring a factor to two sides, and to the weight's device and precision."""
    return factor.to(weight).flatten(1)


def _is(shape: Shape, rows: int, columns: int) -> bool:
    return len(shape) > 1 and (rows, columns) == (shape[0], prod(shape[1:]))


def _same(mine: Shape, shape: Shape) -> bool:
    """Whether the shapes are equal, but for sides of 1 (a 1x1 convolution is a matrix)."""
    return [side for side in mine if side != 1] == [side for side in shape if side != 1]


def _spreads(mine: Shape, shape: Shape) -> bool:
    """Whether a tensor can be broadcast to `shape`."""
    return len(mine) <= len(shape) and all(
        side in (1, wanted) for side, wanted in zip(reversed(mine), reversed(shape), strict=False)
    )


def _product_size(factors: Sequence[Tensor]) -> tuple[int, int] | None:
    """Tell the rows and columns of `_product`; None where the factors don't fit one another."""
    first = factors[0]
    if len(factors) == 1:
        return first.shape[0], prod(first.shape[1:])
    second, *kernel = factors[1:]
    if first.ndim != 2:
        return None
    if not kernel:
        return (
            (first.shape[0], prod(second.shape[1:])) if first.shape[1] == second.shape[0] else None
        )
    if (
        kernel[0].ndim != 4
        or second.ndim != 2
        or kernel[0].shape[:2] != (first.shape[0], second.shape[0])
    ):
        return None
    return first.shape[1], second.shape[1] * prod(kernel[0].shape[2:])


def _product(factors: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Multiply out one side of a LoHa or LoKr, as (rows, columns) in the weight's precision."""
    parts = [factor.to(weight) for factor in factors]
    match parts:
        case [whole]:
            return whole.flatten(1)
        case [first, second]:
            return first @ second.flatten(1)
        case [first, second, kernel]:
            return torch.einsum("pqkl,po,qi->oikl", kernel, first, second).flatten(1)
        case _:
            raise ValueError(f"expected one to three factors, got {len(parts)}")
