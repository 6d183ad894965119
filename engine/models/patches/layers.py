"""From the tensors of one layer to the changes of its weight and its bias."""

from collections.abc import Callable, Iterator

from torch import Tensor

from engine.models.patches.deltas import (
    Decomposed,
    Delta,
    Full,
    Generalised,
    Hadamard,
    Kronecker,
    LowRank,
    Quantised,
)

Parts = dict[str, Tensor]
"""Tensor by slot; what is used is taken out."""
Factor = Callable[[int], float]
"""From the rank to alpha / rank."""


def deltas_of(parts: Parts, factor: Factor) -> Iterator[tuple[str, Delta]]:
    """Make the changes that a layer's tensors say.

    Args:
        parts: Its tensors by slot, without ``alpha``. Those that a change is made of are taken out; what is left is incomplete.
        factor: What products are multiplied by.

    Yields:
        ``weight`` or ``bias``, and its change.
    """
    makers = (_low_rank, _hadamard, _kronecker, _generalised)
    for make in makers:
        delta = make(parts, factor)
        if delta is not None:
            yield "weight", _decomposed(delta, parts)
    for slot, kind in (
        ("diff", "weight"),
        ("w_norm", "weight"),
        ("diff_b", "bias"),
        ("b_norm", "bias"),
    ):
        if slot in parts:
            delta = Full(parts.pop(slot))
            yield kind, _decomposed(delta, parts) if slot == "diff" else delta
    for kind in ("weight", "bias"):
        if triple := _take(parts, f"{kind}|q", f"{kind}|lo", f"{kind}|hi"):
            yield kind, Quantised(*triple)


def _take(parts: Parts, *slots: str) -> list[Tensor]:
    """Take tensors out when all are there; else none."""
    return [parts.pop(slot) for slot in slots] if all(slot in parts for slot in slots) else []


def _decomposed(delta: Delta, parts: Parts) -> Delta:
    if "dora_scale" in parts:
        return Decomposed(delta, parts.pop("dora_scale"))
    if "magnitude" in parts:
        # PEFT's are of the output channels whatever their shape
        return Decomposed(delta, parts.pop("magnitude").flatten())
    return delta


def _low_rank(parts: Parts, factor: Factor) -> Delta | None:
    pair = _take(parts, "up", "down")
    if not pair:
        return None
    up, down = pair
    return LowRank(up, down, factor(down.shape[0]), parts.pop("mid", None))


def _hadamard(parts: Parts, factor: Factor) -> Delta | None:
    factors = _take(parts, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    if not factors:
        return None
    first, second = factors[:2], factors[2:]
    rank = first[1].shape[0]
    if kernels := _take(parts, "hada_t1", "hada_t2"):
        first, second = [*first, kernels[0]], [*second, kernels[1]]
    return Hadamard(first, second, factor(rank))


def _kronecker(parts: Parts, factor: Factor) -> Delta | None:
    if not all(
        {side} & parts.keys() or {f"{side}_a", f"{side}_b"} <= parts.keys()
        for side in ("lokr_w1", "lokr_w2")
    ):
        return None
    first, second = (
        _take(parts, side) or _take(parts, f"{side}_a", f"{side}_b")
        for side in ("lokr_w1", "lokr_w2")
    )
    ranks = [side[1].shape[0] for side in (first, second) if len(side) > 1]
    if len(second) > 1:
        second += _take(parts, "lokr_t2")
    return Kronecker(first, second, factor(ranks[-1]) if ranks else 1.0)


def _generalised(parts: Parts, factor: Factor) -> Delta | None:
    factors = _take(parts, "a1", "a2", "b1", "b2")
    if not factors:
        return None
    a1, a2, b1, b2 = factors
    if a1.shape[0] < a1.shape[1]:  # older files: the second of each pair is the outer one
        return Generalised(a2, a1, b2, b1, factor(a1.shape[0]))
    return Generalised(a1, a2, b1, b2, factor(a2.shape[0]))
