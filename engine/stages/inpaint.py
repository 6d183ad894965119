"""Repainting a part of a picture: what is cut out, what it starts from, and how the result goes back.

The part around the mask is cut out, brought to a size that models paint well, painted by whoever calls, and pasted back so that pixels
away from the mask stay as they are, to the last bit. Outpainting is the same with a picture that was enlarged before (`masks.pad`).
Knows neither models nor plans: the upscaler and the VAE come as functions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional

from engine.geometry import LATENT_FACTOR, Size
from engine.stages.encode_picture import cropped
from engine.stages.masks import FEATHER, HALF, is_hole_in, soften, strips
from engine.stages.pixels import GRID, Pixels, fitted_size, size_of, stretch, working_side

NATIVE = 1024
"""Native size that all pixel numbers are meant for."""
FILLS_ABOVE = 0.99
"""Strength above which a hole is filled from its surroundings before anything is painted."""
_AROUND = 1.15
"""How much larger than the mask the part around it is at least."""
_BLURS = ((512, 2), (256, 2), (128, 4), (64, 4), (33, 8), (15, 8), (5, 16), (3, 16))
"""Radius in pixels, and how often."""

Upscaler = Callable[[Pixels], Pixels]
"""Enlarges an RGB picture by whatever factor it has."""
Encode = Callable[[Tensor], Tensor]
"""From (1, 3, H, W) values of -1 to 1 to a VAE's latents (1, 4, H // 8, W // 8), not × its scaling factor (`encode_values`)."""


class Box(NamedTuple):
    """A rectangle of a picture; bottom and right are outside."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.right - self.left, self.bottom - self.top)

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """Give the part of a picture or a mask that lies inside."""
        return image[self.top : self.bottom, self.left : self.right]

    def seen_from(self, outer: "Box") -> "Box":
        """Say where it lies inside another one."""
        y, x = outer.top, outer.left
        return Box(self.top - y, self.bottom - y, self.left - x, self.right - x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Pixel numbers for a model's native size."""

    side: int = NATIVE
    """Side of the square whose area is painted, a multiple of `grid`."""
    grid: int = GRID
    feather: int = FEATHER
    blurs: tuple[tuple[float, int], ...] = _BLURS

    @classmethod
    def of(cls, native_size: int) -> "Scale":
        """Give the numbers for a base model, in proportion to its native size."""
        ratio = native_size / NATIVE
        return cls(
            side=native_size,
            grid=max(LATENT_FACTOR, round(GRID * ratio)),
            feather=max(1, round(FEATHER * ratio)),
            blurs=tuple((radius * ratio, times) for radius, times in _BLURS),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Canvas:
    """A picture with a hole, and the part of it that is worked on."""

    picture: Pixels
    """(H, W, 3): what the result is pasted into."""
    mask: Pixels
    """(H, W)."""
    box: Box
    """The part around the hole."""
    image: Pixels
    """(h, w, 3): that part at the working size."""
    hole: Pixels
    """(h, w) of 0 or 255: the mask there."""
    filled: Pixels
    """(h, w, 3): what painting starts from; `image`, or `image` with its hole filled from around."""
    scale: Scale

    @property
    def size(self) -> Size:
        """The working size in pixels. It is painted at ``size.latent``: off the grid by up to 7 pixels with `as_fooocus`."""
        return size_of(self.image)


@dataclass(frozen=True, slots=True, eq=False)
class CanvasLatents:
    """A canvas as a VAE and a UNet know it."""

    mask: Tensor
    """(1, 1, h, w): 1 where something is painted, else 0."""
    filled: Tensor
    """(1, 4, h, w), not × the scaling factor: what painting starts from, and what is kept around the hole."""
    masked: Tensor
    """(1, 4, h, w), not × the scaling factor: the picture with its hole grey, for the inpaint head."""


def crop_box(mask: Pixels, respective_field: float) -> Box:
    """Choose the part of a picture that is worked on: a square around the mask, grown evenly.

    Args:
        mask: (H, W), not all 0. Any value above 0 counts.
        respective_field: Share of the height and of the width that the part has at least: 0 is the mask with a little around, 1
            the whole picture.

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError("mask: expected one with something in it, got an empty one")
    height, width = mask.shape
    top, bottom, left, right = _bounds(mask > 0)
    y, x = (top + bottom - 1) // 2, (left + right - 1) // 2
    reach = int(max((bottom - 1 - top) // 2, (right - 1 - left) // 2) * _AROUND)
    box = _within(_widened(Box(y, y + 1, x, x + 1), reach), mask.shape)
    if respective_field == 1:
        return Box(0, height, 0, width)
    while box.size.height < height * respective_field or box.size.width < width * respective_field:
        box = _within(_grown(box, mask.shape), mask.shape)
    return box


def prepare(
    picture: Pixels,
    mask: Pixels,
    *,
    respective_field: float,
    is_filled: bool,
    upscale: Upscaler | None = None,
    scale: Scale | None = None,
    as_fooocus: bool = False,
) -> Canvas:
    """Cut out the part around the mask, and bring it to the working size.

    Args:
        picture: (H, W, 3) RGB.
        mask: (H, W), with some value above `HALF`.
        respective_field: As `crop_box` says.
        is_filled: Whether the hole is filled from its surroundings (`strength` above `FILLS_ABOVE`).
        upscale: Enlarges a part that is smaller than the working size; None leaves that to Lanczos.
        scale: Of the base model; None is SDXL's.
        as_fooocus: Keep a working size that is no multiple of 8, whose picture and result are not the same to the pixel, and a mask
            that is too thin to be seen there.

    Raises:
        ValueError: sizes differ, or nothing in the mask is above `HALF`.
    """
    if size_of(picture) != size_of(mask):
        raise ValueError(f"mask: expected size {size_of(picture)}, got {size_of(mask)}")
    if not is_hole_in(mask):
        raise ValueError("mask: expected one with light parts, got one without any")
    scale = scale or Scale()
    box = crop_box(mask, respective_field)
    part = box.cut(picture)
    if upscale is not None and working_side(box.size, scale.grid) < scale.side:
        part = upscale(part)
    size = fitted_size(size_of(part), scale.side, scale.grid)
    if not as_fooocus:
        size = Size(*(max(1, round(side / LATENT_FACTOR)) * LATENT_FACTOR for side in size))
    image = np.ascontiguousarray(stretch(part, size))
    hole = _hole(box.cut(mask), size, keeps_thin=not as_fooocus)
    filled = fill_hole(image, hole, scale.blurs) if is_filled else image
    return Canvas(
        picture=picture, mask=mask, box=box, image=image, hole=hole, filled=filled, scale=scale
    )


def fill_hole(image: Pixels, hole: Pixels, blurs: tuple[tuple[float, int], ...] = _BLURS) -> Pixels:
    """Fill a hole from its surroundings: blur all, put the rest back, again and again with smaller radii.

    Args:
        image: (h, w, 3).
        hole: (h, w); what is below `HALF` is kept.
        blurs: Radius in pixels, and how often.
    """
    is_unknown = hole >= HALF
    if not is_unknown.any():
        return image
    filled = image.copy()
    around = _bounds(is_unknown)
    unknown = around.cut(is_unknown)
    for radius, times in blurs:
        seen = _within(_widened(around, math.ceil(radius) + 1), hole.shape)
        inside = around.seen_from(seen)
        for _ in range(times):
            blurred = Image.fromarray(seen.cut(filled)).filter(ImageFilter.BoxBlur(radius))
            around.cut(filled)[unknown] = inside.cut(np.asarray(blurred))[unknown]
    return filled


def encode_canvas(canvas: Canvas, encode: Encode, *, with_head: bool = True) -> CanvasLatents:
    """Bring a canvas to latents.

    Args:
        canvas: From `prepare`.
        encode: The VAE; first asked for the picture with its hole grey, as the order of its noise matters.
        with_head: Whether `masked` is needed; else it is the same as `filled`, and the VAE works once.
    """
    masked = encode(masked_values(canvas)) if with_head else None
    filled = encode(cropped(_to_values(canvas.filled)))
    mask = latent_mask(canvas.hole, Size(filled.shape[3], filled.shape[2]))
    return CanvasLatents(mask, filled, filled if masked is None else masked)


def masked_values(canvas: Canvas) -> Tensor:
    """Give the working picture with its hole grey: (1, 3, h, w) of -1 to 1."""
    return _to_values(canvas.image) * torch.from_numpy(canvas.hole <= HALF).float()


def latent_mask(hole: Pixels, size: Size) -> Tensor:
    """Bring a mask to latent cells: a cell is painted when any of its pixels is.

    Args:
        hole: (h, w) of 0 to 255.
        size: In cells.

    Returns:
        (1, 1, height, width) of 0 or 1.
    """
    shares = torch.from_numpy(hole)[None, None].float() / 255
    pixels = (size.height * LATENT_FACTOR, size.width * LATENT_FACTOR)
    seen = functional.interpolate(shares, pixels, mode="bilinear").round()
    cells: Tensor = functional.max_pool2d(seen, LATENT_FACTOR).round()
    return cells


def paste_back(canvas: Canvas, result: Pixels) -> Pixels:
    """Put what was painted into the picture, fading into it around the mask.

    Args:
        canvas: From `prepare`.
        result: (h, w, 3) of any size: the whole box.

    Returns:
        A new picture of the size of ``canvas.picture``; a pixel farther from the mask than the feather is as it was.
    """
    picture, box, feather = canvas.picture, canvas.box, canvas.scale.feather
    near = _within(_widened(_bounds(canvas.mask > HALF), feather), canvas.mask.shape)
    soft = soften(near.cut(canvas.mask), feather)
    kept, painted = near.cut(picture), near.cut(picture).copy()
    both = _overlap(box, near)
    both.seen_from(near).cut(painted)[:] = both.seen_from(box).cut(stretch(result, box.size))
    merged = picture.copy()
    for rows in strips(near.size):
        share = soft[rows, :, None].astype(np.float32) / 255
        mixed = painted[rows] * share + kept[rows] * (1 - share)
        near.cut(merged)[rows] = mixed.clip(0, 255).astype(np.uint8)
    return merged


def _bounds(condition: NDArray[np.bool_]) -> Box:
    """Give the smallest box around all that is true; there is something."""
    rows, columns = (np.flatnonzero(condition.any(axis=axis)) for axis in (1, 0))
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _widened(box: Box, by: int) -> Box:
    return Box(box.top - by, box.bottom + by, box.left - by, box.right + by)


def _overlap(box: Box, other: Box) -> Box:
    return Box(
        max(box.top, other.top),
        min(box.bottom, other.bottom),
        max(box.left, other.left),
        min(box.right, other.right),
    )


def _grown(box: Box, shape: tuple[int, ...]) -> Box:
    """Grow the shorter side by a pixel on both ends, and the other where that one is whole."""
    height, width = box.size.height, box.size.width
    grows_high = height < width or width == shape[1]
    grows_wide = height >= width or height == shape[0]
    return Box(
        box.top - grows_high, box.bottom + grows_high, box.left - grows_wide, box.right + grows_wide
    )


def _within(box: Box, shape: tuple[int, ...]) -> Box:
    """Clip a box to a picture."""
    return _overlap(box, Box(0, shape[0], 0, shape[1]))


def _hole(mask: Pixels, size: Size, *, keeps_thin: bool) -> Pixels:
    """Bring the mask of the part to the working size, as 0 or 255."""
    resized = stretch(np.ascontiguousarray(mask), size)
    is_hole = resized > HALF
    if keeps_thin and not is_hole.any():
        is_hole = resized > 0
    return is_hole.view(np.uint8) * np.uint8(255)


def _to_values(image: Pixels) -> Tensor:
    """Turn a picture into (1, 3, h, w) of -1 to 1."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 * 2 - 1
