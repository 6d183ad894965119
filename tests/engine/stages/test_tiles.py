"""A network that runs over tiles gives what it gives over the whole, wherever its answer is local."""

import pytest
import torch
from torch import Tensor

from engine.geometry import Size
from engine.stages.tiles import blended, tile_count, tiled

pytestmark = pytest.mark.torch

SHAPES = pytest.mark.parametrize(
    ("height", "width", "tall", "wide"),
    [
        (1, 1, 3, 3),
        (3, 15, 3, 3),
        (16, 16, 16, 16),
        (17, 15, 16, 16),
        (40, 5, 16, 3),
        (5, 40, 3, 16),
        (29, 31, 7, 9),
        (8, 8, 5, 5),
    ],
)


def doubled(part: Tensor) -> Tensor:
    return part.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


@SHAPES
def test_what_is_local_does_not_know_of_tiles(height, width, tall, wide):
    x = torch.rand(1, 3, height, width)
    made = tiled(doubled, x, Size(wide, tall), overlap=2, factor=2)
    assert made.shape == (1, 3, 2 * height, 2 * width)
    torch.testing.assert_close(made, doubled(x))


@SHAPES
def test_rows_come_as_they_are_finished(height, width, tall, wide):
    x, tile = torch.rand(1, 3, height, width), Size(wide, tall)
    steps = list(blended(doubled, x, tile, overlap=2, factor=2))
    strips = [strip for strip in steps if strip is not None]
    assert len(steps) == tile_count(Size(width, height), tile, 2)
    assert max(strip.shape[2] for strip in strips) <= 2 * tall
    assert steps[-1] is not None
    torch.testing.assert_close(torch.cat(strips, dim=2), doubled(x))


def test_tiles_are_no_larger_than_asked():
    seen = []

    def look(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape[-2:]))
        return part

    tiled(look, torch.rand(1, 1, 50, 70), Size(32, 16), overlap=4, factor=1)
    assert max(seen) == (16, 32)


def test_tiles_must_be_larger_than_their_overlap():
    with pytest.raises(ValueError, match=r"^tile: expected more than the overlap of 8, got 8x9$"):
        tiled(doubled, torch.rand(1, 1, 9, 9), Size(8, 9), overlap=8, factor=2)
