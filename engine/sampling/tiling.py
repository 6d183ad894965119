"""Large latents in overlapping tiles: where these lie, and how their answers become one again.

All tiles have one shape, so that they can be rows of one UNet call. What a tile says counts less and less towards its edges, so
that nothing jumps where another one begins or ends. Knows nothing of UNets.

Source: Bar-Tal et al. 2023 (MultiDiffusion), https://arxiv.org/abs/2302.08113
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.geometry import LATENT_FACTOR, Size

GRID = 4
"""Tiles and strides are multiples of so many cells, one of the coarsest cells of SDXL's UNet: all tiles round alike."""
LEAST_TILE = 2 * GRID
"""Shortest side of a tile, in cells."""
OVERLAP = 0.25
"""Least share of a tile that it has in common with the next one; with less the blend is too steep to be unseen."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """A layout of tiles over latents; all numbers are latent cells."""

    whole: Size
    """Of the latents."""
    tile: Size
    """Of every tile."""
    tops: tuple[int, ...]
    """Where the rows of tiles begin, from 0 up."""
    lefts: tuple[int, ...]
    """Where the columns begin."""

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return len(self.tops) * len(self.lefts)

    def cut(self, whole: Tensor) -> list[Tensor]:
        """Give each tile's part of something that belongs to places, row by row.

        Args:
            whole: (..., h, w) with the sides of the latents.

        Returns:
            Views of it.

        Raises:
            ValueError: it has other sides.
        """
        height, width = whole.shape[-2:]
        if (width, height) != self.whole:
            raise ValueError(f"tiles: expected {self.whole} cells, got {width}x{height}")
        return [whole[..., rows, columns] for rows, columns in self._places()]

    def shares(self) -> Tensor:
        """Say how much each tile counts at its cells: above 0, and over all tiles 1 at every cell.

        Returns:
            (tiles, 1, h, w) float32 on the CPU.
        """
        down = _shares(self.tops, self.tile.height, self.whole.height)
        across = _shares(self.lefts, self.tile.width, self.whole.width)
        shares = down[:, None, :, None] * across[None, :, None, :]
        return shares.reshape(self.count, 1, self.tile.height, self.tile.width).float()

    def joined(self, parts: Sequence[Tensor], shares: Tensor) -> Tensor:
        """Put the tiles' answers together.

        Args:
            parts: (1, C, h, w) of each tile, in the order of `cut`.
            shares: From `shares`, on the device of the parts.

        Returns:
            (1, C, h, w) float32 of the whole.
        """
        whole = parts[0].new_zeros(
            *parts[0].shape[:2], self.whole.height, self.whole.width, dtype=torch.float32
        )
        for (rows, columns), part, share in zip(self._places(), parts, shares, strict=True):
            whole[..., rows, columns] += part.float() * share
        return whole

    def _places(self) -> Iterator[tuple[slice, slice]]:
        for top in self.tops:
            for left in self.lefts:
                yield slice(top, top + self.tile.height), slice(left, left + self.tile.width)


def lay_tiles(picture: Size, tile: Size, stride: Size) -> Tiles | None:
    """Lay tiles over a picture, from its upper left corner; the last ones are moved inwards to end at its edges.

    Args:
        picture: The size that is painted, in pixels.
        tile: Size of a tile in pixels; where the picture is smaller that counts.
        stride: Pixels from one tile to the next; at most three quarters of a tile, so that neighbours overlap.

    Returns:
        None where one tile is the whole picture.
    """
    whole = picture.latent
    width, lefts = _along(whole.width, tile.width, stride.width)
    height, tops = _along(whole.height, tile.height, stride.height)
    tiles = Tiles(whole, Size(width, height), tops, lefts)
    return tiles if tiles.count > 1 else None


def _along(length: int, tile: int, stride: int) -> tuple[int, tuple[int, ...]]:
    """Lay tiles along one side.

    Args:
        length: Of the side, in cells.
        tile: In pixels.
        stride: In pixels.

    Returns:
        Length of a tile and where they begin, in cells.
    """
    cells = max(LEAST_TILE, GRID * round(tile / LATENT_FACTOR / GRID))
    if cells >= length:
        return length, (0,)
    most = math.floor(cells * (1 - OVERLAP) / GRID)
    step = GRID * max(1, min(round(stride / LATENT_FACTOR / GRID), most))
    return cells, (*range(0, length - cells, step), length - cells)


def _shares(starts: Sequence[int], tile: int, length: int) -> Tensor:
    """Say how much each tile counts along one side: as a cell is far from the tile's edge, divided by the sum of all there.

    Where two tiles overlap, one gives way to the other evenly; nothing is less steep.

    Returns:
        (tiles, cells of a tile) float64.
    """
    cells = torch.arange(tile, dtype=torch.float64) + 0.5
    window = torch.minimum(cells, tile - cells)
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + tile] += window
    return torch.stack([window / total[start : start + tile] for start in starts])
