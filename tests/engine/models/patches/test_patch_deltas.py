"""Each kind of the LoRA family adds exactly its formula, written out here anew, and knows which weights it fits."""

import pytest
import torch
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
    third,
)

pytestmark = pytest.mark.torch
OUT, IN, RANK, KERNEL = 12, 8, 3, (3, 3)
SCALE, FACTOR = 0.7, 0.5


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape)


def added(delta: Delta, weight: Tensor, scale: float = SCALE) -> Tensor:
    """What the delta adds; also that it works in place and says that it fits."""
    assert delta.fits(weight.shape)
    changed = weight.clone()
    delta.add_to(changed, scale)
    return changed - weight


def same(actual: Tensor, expected: Tensor) -> bool:
    assert expected.abs().max() > 0.01
    return torch.allclose(actual, expected, atol=1e-5)


def test_lora_of_a_matrix() -> None:
    up, down, weight = draw(OUT, RANK), draw(RANK, IN), draw(OUT, IN)
    assert same(added(LowRank(up, down, FACTOR), weight), SCALE * FACTOR * up @ down)


def test_lora_of_a_convolution() -> None:
    up, down = draw(OUT, RANK, 1, 1), draw(RANK, IN, *KERNEL)
    expected = torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    assert same(added(LowRank(up, down), draw(OUT, IN, *KERNEL)), SCALE * expected)


def test_lora_of_a_1x1_convolution_fits_a_matrix() -> None:
    up, down = draw(OUT, RANK, 1, 1), draw(RANK, IN, 1, 1)
    expected = SCALE * up[:, :, 0, 0] @ down[:, :, 0, 0]
    assert same(added(LowRank(up, down), draw(OUT, IN)), expected)
    assert same(added(LowRank(up, down), draw(OUT, IN, 1, 1)), expected[:, :, None, None])


def test_lora_in_tuckers_form_is_three_convolutions() -> None:
    up, mid, down = draw(OUT, 3, 1, 1), draw(3, 4, *KERNEL), draw(4, IN, 1, 1)
    weight, picture = torch.zeros(OUT, IN, *KERNEL), draw(1, IN, 6, 6)
    delta = LowRank(up, down, FACTOR, mid)
    conv = torch.nn.functional.conv2d
    expected = conv(conv(conv(picture, down), mid), up) * FACTOR * SCALE
    assert same(conv(picture, added(delta, weight)), expected)


def test_loha() -> None:
    a, b, c, d = draw(OUT, RANK), draw(RANK, IN * 9), draw(OUT, RANK), draw(RANK, IN * 9)
    expected = SCALE * FACTOR * ((a @ b) * (c @ d)).reshape(OUT, IN, *KERNEL)
    assert same(added(Hadamard((a, b), (c, d), FACTOR), draw(OUT, IN, *KERNEL)), expected)


def test_loha_in_tuckers_form() -> None:
    first, second = ((draw(RANK, OUT), draw(RANK, IN), draw(RANK, RANK, *KERNEL)) for _ in range(2))
    expected = torch.ones(OUT, IN, *KERNEL)
    for rows, columns, kernel in (first, second):
        inner = torch.tensordot(rows.T, kernel, dims=1)  # (out, rank, height, width)
        expected *= torch.einsum("orkl,ri->oikl", inner, columns)
    delta = Hadamard(first, second)
    assert same(added(delta, draw(OUT, IN, *KERNEL)), SCALE * expected)


W1, W2 = (3, 2), (4, 4)
"""Sides of the two factors of a Kronecker product of (12, 8)."""


@pytest.mark.parametrize("is_split_1", [False, True])
@pytest.mark.parametrize("is_split_2", [False, True])
def test_lokr_of_a_matrix(is_split_1: bool, is_split_2: bool) -> None:
    first = (draw(W1[0], 2), draw(2, W1[1])) if is_split_1 else (draw(*W1),)
    second = (draw(W2[0], 2), draw(2, W2[1])) if is_split_2 else (draw(*W2),)
    whole = [torch.linalg.multi_dot(side) if len(side) > 1 else side[0] for side in (first, second)]
    expected = SCALE * FACTOR * torch.kron(*whole)
    assert same(added(Kronecker(first, second, FACTOR), draw(OUT, IN)), expected)


@pytest.mark.parametrize("form", ["whole", "split", "tucker"])
def test_lokr_of_a_convolution(form: str) -> None:
    rows, columns = draw(2, W2[0]), draw(2, W2[1])
    whole, wide, kernel = draw(*W2, *KERNEL), draw(2, W2[1] * 9), draw(2, 2, *KERNEL)
    second, product = {
        "whole": ((whole,), whole),
        "split": ((rows.T, wide), (rows.T @ wide).reshape(*W2, *KERNEL)),
        "tucker": (
            (rows, columns, kernel),
            torch.einsum("pqkl,po,qi->oikl", kernel, rows, columns).contiguous(),
        ),
    }[form]
    first = draw(*W1)
    expected = torch.kron(first[:, :, None, None], product)
    assert same(added(Kronecker((first,), second), draw(OUT, IN, *KERNEL)), SCALE * expected)


def test_glora_mixes_the_weight_as_it_is() -> None:
    a_up, a_down, up, down = draw(IN, RANK), draw(RANK, IN), draw(OUT, RANK), draw(RANK, IN)
    weight = draw(OUT, IN)
    expected = SCALE * FACTOR * (weight @ a_up @ a_down + up @ down)
    assert same(added(Generalised(a_up, a_down, up, down, FACTOR), weight), expected)


def test_glora_of_a_convolution_mixes_input_channels() -> None:
    a_up, a_down = draw(IN, RANK, 1, 1), draw(RANK, IN, 1, 1)
    up, down = draw(OUT, RANK, 1, 1), draw(RANK, IN, *KERNEL)
    weight = draw(OUT, IN, *KERNEL)
    mixed = torch.einsum("oikl,ij->ojkl", weight, a_up[..., 0, 0] @ a_down[..., 0, 0])
    expected = SCALE * (mixed + torch.einsum("or,rikl->oikl", up[..., 0, 0], down))
    assert same(added(Generalised(a_up, a_down, up, down), weight), expected)


def test_differences_written_out() -> None:
    weight, bias = draw(OUT, IN, 1, 1), draw(OUT)
    assert same(added(Full(change := draw(OUT, IN)), weight), SCALE * change[:, :, None, None])
    assert same(added(Full(change := draw(OUT).half()), bias), SCALE * change.float())


def test_differences_in_levels() -> None:
    levels = torch.randint(0, 256, (OUT, IN), dtype=torch.uint8)
    low, high = draw(OUT, 1), torch.tensor(3.0)
    expected = SCALE * (levels.float() / 255 * (high - low) + low)
    assert same(added(Quantised(levels, low, high), draw(OUT, IN)), expected)


def decomposed(weight: Tensor, change: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    """DoRA channel by channel: the changed weight at the magnitude's length."""
    result = weight + change
    for channel in range(result.shape[axis]):
        part = result.select(axis, channel)
        part.mul_(float(magnitude.flatten()[channel]) / float(part.square().sum().sqrt()))
    return result


@pytest.mark.parametrize("kernel", [(), KERNEL], ids=["matrix", "convolution"])
@pytest.mark.parametrize("axis", [0, 1], ids=["by output", "by input"])
@pytest.mark.parametrize("scale", [0.0, 0.6, 1.0, -1.5])
def test_dora_goes_in_a_straight_line_to_its_weight(
    kernel: tuple[int, ...], axis: int, scale: float
) -> None:
    weight = draw(OUT, IN, *kernel)
    inner = LowRank(draw(OUT, RANK), draw(RANK, IN, *kernel), FACTOR)
    change = FACTOR * torch.tensordot(inner.up, inner.down, dims=1)
    channels = weight.shape[axis]
    sides = [1] * weight.ndim
    sides[axis] = channels
    magnitude = draw(channels).abs().reshape(sides)
    whole = decomposed(weight, change, magnitude, axis)
    actual = added(Decomposed(inner, magnitude), weight, scale)
    assert torch.allclose(actual, scale * (whole - weight), atol=1e-4)
    assert torch.equal(actual, torch.zeros_like(actual)) == (scale == 0)


def test_dora_around_other_kinds() -> None:
    weight, magnitude = draw(OUT, IN), draw(OUT, 1).abs()
    a, b, c, d = draw(OUT, RANK), draw(RANK, IN), draw(OUT, RANK), draw(RANK, IN)
    for inner, change in (
        (Hadamard((a, b), (c, d)), (a @ b) * (c @ d)),
        (Kronecker((f := draw(*W1),), (g := draw(*W2),)), torch.kron(f, g)),
    ):
        expected = decomposed(weight, change, magnitude, 0) - weight
        assert same(added(Decomposed(inner, magnitude), weight, 1.0), expected)


MISFITS = {
    "ranks": LowRank(torch.zeros(OUT, 2), torch.zeros(3, IN)),
    "rows": LowRank(torch.zeros(OUT + 1, 2), torch.zeros(2, IN)),
    "columns": LowRank(torch.zeros(OUT, 2), torch.zeros(2, IN, 3, 3)),
    "middle": LowRank(torch.zeros(OUT, 2), torch.zeros(2, IN), 1.0, torch.zeros(2, 3, 1, 1)),
    "flat middle": LowRank(torch.zeros(OUT, 2), torch.zeros(2, IN), 1.0, torch.zeros(2, 2)),
    "loha": Hadamard([torch.zeros(OUT, 2), torch.zeros(2, IN)], [torch.zeros(OUT, 1), torch.zeros(2, IN)]),
    "loha kernel": Hadamard([torch.zeros(2, OUT), torch.zeros(2, IN), torch.zeros(3, 2, 1, 1)], [torch.zeros(OUT, IN)]),
    "lokr": Kronecker([torch.zeros(3, 2)], [torch.zeros(3, 4)]),
    "lokr flat": Kronecker([torch.zeros(3, 2, 1), torch.zeros(2, 2)], [torch.zeros(4, 4)]),
    "glora": Generalised(torch.zeros(OUT, 2), torch.zeros(2, OUT), torch.zeros(OUT, 2), torch.zeros(2, IN)),
    "full": Full(torch.zeros(IN, OUT)),
    "levels": Quantised(torch.zeros(OUT, IN), torch.zeros(IN, 1), torch.zeros(())),
    "magnitude": Decomposed(Full(torch.zeros(OUT, IN)), torch.zeros(IN)),
    "magnitudes": Decomposed(Full(torch.zeros(OUT, IN)), torch.zeros(OUT, 2)),
}  # fmt: skip


@pytest.mark.parametrize("delta", MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_says_so(delta: Delta) -> None:
    assert not delta.fits((OUT, IN))
    assert not delta.fits(())


def test_a_change_of_three_matrices_in_one_is_taken_apart() -> None:
    up, down = draw(3 * OUT, RANK), draw(RANK, IN)
    for delta in (LowRank(up, down), Full(up @ down)):
        parts = [added(third(delta, index), draw(OUT, IN)) for index in range(3)]
        assert same(torch.cat(parts), SCALE * up @ down)
    assert third(Kronecker([draw(3, 1)], [draw(OUT, IN)]), 0) is None
