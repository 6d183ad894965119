"""Masks: which parts of a picture are painted anew.

A mask is (H, W) uint8, 255 where something is painted and 0 where the picture stays. Knows neither models nor plans.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import InvalidRequest
from engine.geometry import Size
from engine.image_inputs import Side
from engine.stages.pixels import Pixels, size_of, stretch

HALF = 127
"""What is lighter belongs to a mask."""
FEATHER = 32
"""Pixels over which a repainted part fades into the picture, at the native size 1024."""
OUTPAINTED = 0.3
"""What each side adds to a picture, as a share of its side."""
MASK_FIELD = "mask_image_url"
_SQUARE = np.ones((3, 3), np.uint8)
_STRIP_PIXELS = 2**21
_CHANNELS = ((), (1,), (2,), (3,), (4,))


def read_mask(values: NDArray[Any], size: Size, field: str = MASK_FIELD) -> Pixels:
    """Make a mask of a picture that shows one: light parts are painted, dark and transparent ones stay.

    Args:
        values: (H, W) or (H, W, channels) with 1 to 4 channels (grey, grey and alpha, RGB, RGBA) of bool, uint8 or uint16. The mean
            of its colours decides; alpha weakens it.
        size: Of the picture that the mask is for; a mask of another size is resized (Lanczos).
        field: Names the mask in errors.

    Returns:
        0 or 255 for each pixel of `size`.

    Raises:
        InvalidRequest: it has no pixels, other channels or other values.
    """
    levels = stretch(_to_levels(values, field), size)
    if levels.ndim == 2:
        return _white_where(levels > HALF)
    mask = np.empty(levels.shape[:2], np.uint8)
    for rows in strips(size):
        mask[rows] = _white_where(_is_light(levels[rows].astype(np.uint32)))
    return mask


def union(masks: Sequence[Pixels]) -> Pixels:
    """Join masks of one size."""
    return reduce(np.maximum, masks)


def grow(mask: Pixels, by: int) -> Pixels:
    """Widen a mask by so many pixels on all sides; below 0 it shrinks."""
    if by == 0:
        return mask
    change = cv2.dilate if by > 0 else cv2.erode
    return np.asarray(change(mask, _SQUARE, iterations=abs(by)), np.uint8)


def invert(mask: Pixels) -> Pixels:
    """Paint what stayed, and keep what was painted."""
    return 255 - mask


def shape_mask(
    mask: Pixels,
    *,
    by: int = 0,
    is_inverted: bool = False,
    needs_hole: bool = True,
    field: str = MASK_FIELD,
) -> Pixels:
    """Grow or shrink a mask, then invert it.

    Args:
        mask: (H, W).
        by: Pixels to grow, below 0 to shrink.
        is_inverted: Whether the kept part is what is painted.
        needs_hole: Whether something must be left to paint; not so beside outpainting.
        field: Names the mask in errors.

    Raises:
        InvalidRequest: nothing is left to paint where something must be.
    """
    shaped = grow(mask, by)
    shaped = invert(shaped) if is_inverted else shaped
    if needs_hole and not is_hole_in(shaped):
        change = f" after growing it by {by} pixels" if by else ""
        change += " and inverting it" if is_inverted else ""
        rule = "expected a mask with light parts that are painted anew, got one without any"
        raise InvalidRequest(field, rule + change)
    return shaped


def is_hole_in(mask: Pixels) -> bool:
    """Whether there is anything to paint."""
    return bool((mask > HALF).any())


def pad(
    image: Pixels, mask: Pixels, sides: Collection[Side], share: float = OUTPAINTED
) -> tuple[Pixels, Pixels]:
    """Enlarge a picture for outpainting: its edges are drawn out, and the mask covers what is new.

    Args:
        image: (H, W, 3).
        mask: (H, W).
        sides: Where it grows.
        share: Of the height that each of top and bottom adds, and of the width that each of left and right adds; fractions of
            pixels are cut off.

    Returns:
        The picture and the mask, larger.
    """
    size = size_of(image)
    high, wide = int(share * size.height), int(share * size.width)
    rows = (high * ("Top" in sides), high * ("Bottom" in sides))
    columns = (wide * ("Left" in sides), wide * ("Right" in sides))
    enlarged = np.pad(image, (rows, columns, (0, 0)), mode="edge")
    return enlarged, np.pad(mask, (rows, columns), constant_values=255)


def soften(mask: Pixels, feather: int = FEATHER) -> Pixels:
    """Let a mask fade out: ``256 - 256 / feather · d``, d pixels away from its light part along rows, columns or diagonals.

    Args:
        mask: (H, W).
        feather: Pixels until nothing is left, 1 to 255.
    """
    left = (mask > HALF).view(np.uint8) * np.uint8(feather)
    for _ in range(feather):
        near = grow(left, 1)
        np.subtract(near, near > 0, out=near)
        np.maximum(left, near, out=left)
    levels = np.minimum(np.arange(256) * 256 // feather, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(left, levels), np.uint8)


def strips(size: Size) -> Iterator[slice]:
    """Cut a picture into bands of rows, so that arithmetic in floats needs little memory however large it is."""
    height = max(1, _STRIP_PIXELS // size.width)
    for top in range(0, size.height, height):
        yield slice(top, min(top + height, size.height))


def _to_levels(values: NDArray[Any], field: str) -> Pixels:
    """Bring values to 0 to 255, and grey with one channel to (H, W)."""
    if values.ndim not in (2, 3) or not values.size or values.shape[2:] not in _CHANNELS:
        rule = "expected a picture with 1 to 4 channels"
        raise InvalidRequest(field, f"{rule}, got values of shape {values.shape}")
    if values.shape[2:] == (1,):
        values = values[..., 0]
    if values.dtype == np.bool_:
        return _white_where(values)
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    if values.dtype != np.uint8:
        rule = "expected a picture of 8 or 16 bits a channel"
        raise InvalidRequest(field, f"{rule}, got {values.dtype} values")
    return values


def _is_light(levels: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Say where the mean of the colours, weakened by alpha, is above `HALF`; (H, W, 2), RGB or RGBA."""
    has_alpha = levels.shape[2] in (2, 4)
    colours = levels[..., :-1] if has_alpha else levels
    alpha = levels[..., -1] if has_alpha else np.uint32(255)
    light: NDArray[np.bool_] = colours.sum(axis=2) * alpha > HALF * 255 * colours.shape[2]
    return light


def _white_where(condition: NDArray[np.bool_]) -> Pixels:
    return condition.view(np.uint8) * np.uint8(255)
