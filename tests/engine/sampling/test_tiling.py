"""Tiles cover the latents, count at every cell for 1 in all, and put together what was cut."""

import random
from itertools import pairwise

import pytest
import torch

from engine.geometry import Size
from engine.sampling.tiling import LEAST_TILE, OVERLAP, lay_tiles

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("picture", "tile", "stride", "cells", "starts"),
    [
        ((256, 128), (128, 128), (64, 64), (16, 16), ((0,), (0, 8, 16))),
        ((256, 256), (128, 128), (64, 64), (16, 16), ((0, 8, 16), (0, 8, 16))),
        ((2048, 1024), (1024, 1024), (512, 512), (128, 128), ((0,), (0, 64, 128))),
        ((1536, 1200), (1024, 1024), (768, 768), (128, 128), ((0, 22), (0, 64))),
        ((2048, 1024), (1024, 4096), (2048, 2048), (128, 128), ((0,), (0, 96, 128))),
        ((264, 128), (128, 64), (128, 64), (16, 8), ((0, 4, 8), (0, 12, 17))),
        ((192, 192), (16, 100), (8, 8), (8, 12), ((0, 4, 8, 12), (0, 4, 8, 12, 16))),
    ],
)
def test_tiles_lie_on_the_stride_and_end_at_the_edges(picture, tile, stride, cells, starts):
    tiles = lay_tiles(Size(*picture), Size(*tile), Size(*stride))
    assert (tiles.whole, tiles.tile) == (Size(*picture).latent, Size(*cells))
    assert (tiles.tops, tiles.lefts) == starts
    assert tiles.count == len(starts[0]) * len(starts[1])


@pytest.mark.parametrize("tile", [(1024, 1024), (4096, 4096), (2000, 1024)])
def test_a_picture_within_one_tile_is_not_cut(tile):
    assert lay_tiles(Size(1024, 1024), Size(*tile), Size(64, 64)) is None


def layouts(count: int = 40):
    dice = random.Random(5)
    while count:
        sides = ([dice.randrange(low, 900) for _ in "wh"] for low in (200, 16, 8))
        tiles = lay_tiles(*(Size(*pair) for pair in sides))
        if tiles is not None:
            count -= 1
            yield tiles


def test_any_tiles_cover_the_latents_with_shares_above_0_that_sum_to_1():
    for tiles in layouts():
        shares = tiles.shares()
        assert shares.shape == (tiles.count, 1, tiles.tile.height, tiles.tile.width)
        assert float(shares.min()) > 0
        whole = tiles.joined([torch.ones(1, 1, *shares.shape[2:])] * tiles.count, shares)
        torch.testing.assert_close(whole, torch.ones_like(whole), rtol=0, atol=1e-6)
        assert min(tiles.tile) >= min(LEAST_TILE, *tiles.whole)


def test_any_neighbours_overlap():
    for tiles in layouts():
        for starts, length in ((tiles.tops, tiles.tile.height), (tiles.lefts, tiles.tile.width)):
            for first, second in pairwise(starts):
                assert 0 < second - first <= (1 - OVERLAP) * length


@pytest.mark.parametrize(("stride", "overlap"), [(64, 8), (96, 4), (128, 4)])
def test_a_tile_gives_way_to_the_next_evenly(stride, overlap):
    tiles = lay_tiles(Size(512, 128), Size(128, 128), Size(stride, stride))
    for place, share in enumerate(tiles.shares()[:, 0, 0]):
        assert float(share.diff().abs().max()) <= 1 / overlap + 1e-6
        if place:
            assert float(share[0]) <= 0.5 / overlap + 1e-6


def test_what_is_cut_and_joined_is_what_it_was():
    generator = torch.Generator().manual_seed(1)
    for tiles in layouts(10):
        whole = torch.randn(1, 4, tiles.whole.height, tiles.whole.width, generator=generator)
        parts = tiles.cut(whole)
        assert {part.shape[-2:] for part in parts} == {(tiles.tile.height, tiles.tile.width)}
        joined = tiles.joined(parts, tiles.shares())
        torch.testing.assert_close(joined, whole, rtol=0, atol=1e-6)


def test_half_precision_is_joined_in_float32():
    tiles = lay_tiles(Size(256, 128), Size(128, 128), Size(64, 64))
    parts = [torch.full((1, 4, 16, 16), 0.1, dtype=torch.float16)] * tiles.count
    joined = tiles.joined(parts, tiles.shares())
    assert joined.dtype == torch.float32
    torch.testing.assert_close(joined, parts[0][:1, :, :1, :1].float().expand(1, 4, 16, 32))


def test_latents_of_another_size_are_refused():
    tiles = lay_tiles(Size(256, 128), Size(128, 128), Size(64, 64))
    with pytest.raises(ValueError, match=r"^tiles: expected 32x16 cells, got 16x16$"):
        tiles.cut(torch.zeros(1, 4, 16, 16))
