"""Geometry of pictures held as arrays: three channels, other sizes, whole levels.

Pictures are (H, W, 3) uint8 RGB and masks (H, W) uint8; sizes are width first, as everywhere. All resizing is Lanczos.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.geometry import Size

GRID = 64
"""Pixels that working sizes are multiples of at the native size 1024."""
_FIT_ROUNDS = 256

Pixels = NDArray[np.uint8]


def size_of(image: Pixels) -> Size:
    """Say how large a picture or a mask is."""
    height, width = image.shape[:2]
    return Size(width, height)


def to_rgb(image: Pixels) -> Pixels:
    """Bring a picture to three channels: grey is repeated, what is transparent shows white.

    Args:
        image: (H, W) or (H, W, 1) grey, (H, W, 3) RGB, or (H, W, 4) RGBA.

    Returns:
        (H, W, 3); fractions are cut off.

    Raises:
        ValueError: it has another shape or other values than uint8.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"image: expected uint8 values, got {image.dtype}")
    match image.shape:
        case (_, _):
            return np.repeat(image[..., None], 3, axis=2)
        case (_, _, 1):
            return np.repeat(image, 3, axis=2)
        case (_, _, 3):
            return image
        case (_, _, 4):
            return _over_white(image)
        case shape:
            raise ValueError(f"image: expected 1, 3 or 4 channels, got shape {shape}")


def stretch(image: Pixels, size: Size) -> Pixels:
    """Resize a picture or a mask to exactly `size`, whatever its proportions."""
    if size_of(image) == size:
        return image
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def cover(image: Pixels, size: Size) -> Pixels:
    """Resize an RGB picture until it covers `size`, and cut out its middle.

    The side that is too long is rounded down, and so are both margins, as Fooocus does.
    """
    own = size_of(image)
    if size.ratio > own.ratio:
        covering = Size(size.width, own.height * size.width // own.width)
    else:
        covering = Size(own.width * size.height // own.height, size.height)
    left, top = (covering.width // 2 - size.width // 2, covering.height // 2 - size.height // 2)
    enlarged = Image.fromarray(image).resize(covering, Image.Resampling.LANCZOS)
    return np.array(enlarged.crop((left, top, left + size.width, top + size.height)))


def working_side(size: Size, grid: int = GRID) -> int:
    """Give the side of the square of the same area, rounded up to whole grid cells."""
    return math.ceil(math.sqrt(size.area) / grid) * grid


def fitted_size(size: Size, side: int, grid: int = GRID) -> Size:
    """Find a size of about the same proportions whose `working_side` is `side`.

    Args:
        size: Of the picture. Where its working side is right already it stays, even off the grid.
        side: A multiple of `grid`.
        grid: Pixels that the new width and height are multiples of.

    Returns:
        The size; a picture so thin that no such size exists gets sides of at least one grid cell.
    """
    fitted = size
    for _ in range(_FIT_ROUNDS):
        current = working_side(fitted, grid)
        if current == side:
            break
        scale = side / current
        fitted = Size(
            max(grid, round(fitted.width * scale / grid) * grid),
            max(grid, round(fitted.height * scale / grid) * grid),
        )
    return fitted


def fit(image: Pixels, side: int, grid: int = GRID) -> Pixels:
    """Resize a picture or a mask to its `fitted_size`; one that fits comes back as it is."""
    return stretch(image, fitted_size(size_of(image), side, grid))


def to_levels(shares: NDArray[np.float32]) -> Pixels:
    """Turn values of 0 to 1 into levels of 0 to 255; what lies outside and all fractions are cut off."""
    return (shares * 255).clip(0, 255).astype(np.uint8)


def _over_white(image: Pixels) -> Pixels:
    colour, alpha = image[..., :3].astype(np.float32), image[..., 3:].astype(np.float32) / 255
    return (colour * alpha + 255 * (1 - alpha)).clip(0, 255).astype(np.uint8)
