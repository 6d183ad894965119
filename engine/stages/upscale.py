"""Pictures that are varied or enlarged: which sizes, how much is painted again, and the run of an upscaler.

Sizes are Fooocus' for models trained at 1024 pixels; for other models its constants are taken in proportion (design D12).
"""

import math
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.errors import InvalidRequest, OutOfMemory
from engine.geometry import LATENT_FACTOR, Size
from engine.image_inputs import FACTORS, UpscaleOrVaryMethod
from engine.models.memory import free_unused, is_out_of_memory
from engine.models.upscalers import Upscaler
from engine.stages.pixels import (
    GRID,
    Pixels,
    fitted_size,
    size_of,
    stretch,
    to_levels,
    working_side,
)
from engine.stages.tiles import blended, tile_count

NATIVE = 1024
"""The native size that Fooocus' constants are for."""
FAST = "Upscale (Fast 2x)"
"""The one method that never paints."""
MAX_ENLARGED = 2**28
"""Most pixels that an upscaler may make, 0.8 GB."""

_VARIED = (1024, 2048)
_PAINTED = 2800
"""Working sides between which pictures are varied, and up to which enlarged ones are painted again."""
_TILE, _CPU_TILE, _SMALLEST_TILE = 512, 256, 128
_OVERLAP = 32
"""Pixels of the picture that neighbouring tiles share."""


class Enlargement(NamedTuple):
    """What becomes of a picture that is enlarged."""

    size: Size
    """Of the enlarged picture."""
    is_painted: bool
    """Whether it is painted again; else it is the result as it is."""


def vary_size(size: Size, native: int = NATIVE) -> Size:
    """Give the size at which a picture is varied, before it is cropped to whole latent cells.

    Args:
        size: Of the picture.
        native: Of the base model.
    """
    least, most = (side * native // NATIVE for side in _VARIED)
    side = working_side(size, _grid(native))
    return fitted_size(size, min(max(side, least), most), _grid(native))


def upscale_size(
    size: Size, method: UpscaleOrVaryMethod, *, scale: int, native: int = NATIVE
) -> Enlargement:
    """Give the size to which a picture is enlarged, and whether it is painted again then.

    What stays below the native size is enlarged to about that. What gets too large to be painted is the result as it is, and
    so is what a fast method makes.

    Args:
        size: Of the picture.
        method: One of `FACTORS`.
        scale: Of the upscaler.
        native: Of the base model.
    """
    factor, grid = FACTORS[method], _grid(native)
    side = math.ceil(math.sqrt(size.height * factor * size.width * factor) / grid) * grid
    if side < native:
        side = native
        enlarged = fitted_size(Size(size.width * scale, size.height * scale), native, grid)
    else:
        enlarged = Size(int(size.width * factor), int(size.height * factor))
    return Enlargement(enlarged, method != FAST and side <= _PAINTED * native // NATIVE)


def to_vary(picture: Pixels, native: int = NATIVE) -> Pixels:
    """Bring a picture to the size at which it is varied."""
    return stretch(picture, vary_size(size_of(picture), native))


def require_enlargeable(size: Size, scale: int, field: str) -> None:
    """Make sure that the result of an upscaler fits into memory.

    Raises:
        InvalidRequest: `field`'s picture is too large.
    """
    if size.area * scale**2 > MAX_ENLARGED:
        most = MAX_ENLARGED // scale**2 / 1e6
        raise InvalidRequest(
            field, f"expected a picture of at most {most:.1f} megapixels to enlarge, got {size}"
        )


def enlarge(upscaler: Upscaler, picture: Pixels, *, tile: int | None = None) -> Pixels:
    """Run an upscaler over a whole picture; see `enlarging`."""
    work = enlarging(upscaler, picture, tile=tile)
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Pixels = end.value
            return result


def enlarging(
    upscaler: Upscaler, picture: Pixels, *, tile: int | None = None
) -> Generator[float, None, Pixels]:
    """Run an upscaler tile by tile, so that something else can be done, or all be let go, in between.

    Where memory runs out it begins again with tiles of half the side.

    Args:
        upscaler: The network.
        picture: (H, W, 3) uint8 RGB.
        tile: Side of the tiles in pixels of `picture`; None chooses by the device.

    Yields:
        After each tile the share that is done.

    Returns:
        (H·scale, W·scale, 3) uint8; fractions are cut off.

    Raises:
        OutOfMemory: there is no room even for the smallest tiles.
    """
    side = tile or (_CPU_TILE if upscaler.device.type == "cpu" else _TILE)
    while True:
        try:
            return (yield from _enlarging(upscaler, picture, side))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if side // 2 < _SMALLEST_TILE:
                problem = f"the device has too little memory to enlarge tiles of {side} pixels"
                raise OutOfMemory(f"{upscaler.name}: {problem}") from error
        side //= 2  # out here, where the error holds nothing any more
        free_unused()


def _enlarging(upscaler: Upscaler, picture: Pixels, side: int) -> Generator[float, None, Pixels]:
    def run(part: Tensor) -> Tensor:
        with torch.inference_mode():
            return upscaler.run(part.to(upscaler.device).float() / 255)

    size, tile = size_of(picture), Size(side, side)
    result = np.empty((size.height * upscaler.scale, size.width * upscaler.scale, 3), np.uint8)
    values = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
    count, top = tile_count(size, tile, _OVERLAP), 0
    strips = blended(run, values, tile, overlap=_OVERLAP, factor=upscaler.scale)
    for done, strip in enumerate(strips, 1):
        if strip is not None:
            rows = strip[0].permute(1, 2, 0).numpy()
            result[top : top + len(rows)] = to_levels(rows)
            top += len(rows)
        yield done / count
    return result


def _grid(native: int) -> int:
    return max(LATENT_FACTOR, GRID * native // NATIVE)
