"""Large pictures through a network piece by piece: overlapping tiles, blended by weights that fall towards their edges.

Numbers equal Fooocus', with its one oddity: towards the end a tile shorter than its overlap is weighted down twice.
"""

from collections.abc import Callable, Generator

import torch
from torch import Tensor

from engine.geometry import Size


def tiled(
    run: Callable[[Tensor], Tensor], x: Tensor, tile: Size, *, overlap: int, factor: float
) -> Tensor:
    """Run a network over all of `x` and blend what comes out; see `blended`."""
    strips = blended(run, x, tile, overlap=overlap, factor=factor)
    return torch.cat([strip for strip in strips if strip is not None], dim=2)


def blended(
    run: Callable[[Tensor], Tensor], x: Tensor, tile: Size, *, overlap: int, factor: float
) -> Generator[Tensor | None]:
    """Run a network tile by tile; memory is taken for one row of tiles.

    Args:
        run: (1, C, h, w) to (1, D, h·factor, w·factor), on any device.
        x: (1, C, H, W).
        tile: Largest size that `run` is given.
        overlap: Pixels of `x` that neighbours share.
        factor: How many times as long the sides become; sides of tiles are multiples of its inverse.

    Yields:
        After each tile the rows of the result that it finished, (1, D, h, W·factor) float32 on the CPU from the top, or None.

    Raises:
        ValueError: tiles are not larger than their overlap.
    """
    if min(tile) <= overlap:
        raise ValueError(f"tile: expected more than the overlap of {overlap}, got {tile}")
    height, width = x.shape[-2:]
    feather = round(overlap * factor)
    total = torch.zeros(0)
    weight = torch.zeros(1, 1, 0, round(width * factor))
    tops = _starts(height, tile.height, overlap)
    for top in tops:
        rows = x[..., top : top + tile.height, :]
        out = round(rows.shape[-2] * factor)
        kept, weight = weight, _lengthened(weight, out)
        for left in _starts(width, tile.width, overlap):
            made = run(rows[..., left : left + tile.width]).float().cpu()
            if not total.numel():
                total = made.new_zeros(1, made.shape[1], kept.shape[2], kept.shape[3])
            total = _lengthened(total, out)
            share = _ramp(out, feather)[:, None] * _ramp(made.shape[-1], feather)
            start = round(left * factor)
            columns = slice(start, start + made.shape[-1])
            total[..., columns] += made * share
            weight[..., columns] += share
            if left + tile.width - overlap < width:
                yield None
        done = out if top == tops[-1] else round((tile.height - overlap) * factor)
        yield total[:, :, :done] / weight[:, :, :done]
        total, weight = total[:, :, done:], weight[:, :, done:]


def tile_count(size: Size, tile: Size, overlap: int) -> int:
    """Count the tiles that `blended` runs over a picture."""
    across = _starts(size.width, tile.width, overlap)
    return len(across) * len(_starts(size.height, tile.height, overlap))


def _starts(length: int, tile: int, overlap: int) -> range:
    return range(0, length, tile - overlap)


def _lengthened(strip: Tensor, rows: int) -> Tensor:
    """Add rows of zeros below."""
    missing = strip.new_zeros(*strip.shape[:2], rows - strip.shape[2], strip.shape[3])
    return torch.cat([strip, missing], dim=2) if missing.numel() else strip


def _ramp(size: int, feather: int) -> Tensor:
    """How much each line of a tile counts, from one edge to the other."""
    ramp = torch.ones(size)
    for line in range(min(size, feather)):
        share = (line + 1) / feather
        ramp[line] *= share
        ramp[size - 1 - line] *= share
    for line in range(size + 1, min(2 * size, feather)):
        ramp[2 * size - 1 - line] *= (line + 1) / feather
    return ramp
