"""What is on a picture, read from its pixels alone: numpy only, no model, no caption.

Background from the border, object from its distance to that background, colour by the palette, shape
by the overlap with templates, place and size by the object's box, drawing style by a few plain
measures of its surface and rim.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pocket.draw import DISTANCE
from pocket.world import COLOURS, PALETTE, PLACES, SHAPES

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Field = NDArray[np.float64]

_TEMPLATE = 48
_LEAST_PIXELS = 60


@dataclass(frozen=True)
class Reading:
    """What the scorer believes a picture shows; None where it finds no object."""

    background: str
    colour: str | None = None
    shape: str | None = None
    place: str | None = None
    size: str | None = None
    style: str | None = None


def opponent(picture: Field) -> Field:
    """sRGB 0..255 to a plain opponent space in which distances are roughly what eyes see."""
    red, green, blue = np.moveaxis(picture / 255.0, -1, 0)
    light = 0.35 * red + 0.5 * green + 0.15 * blue
    return np.stack([light * 0.8, (red - green), 0.6 * (0.5 * (red + green) - blue)], axis=-1)


_PALETTE = opponent(np.asarray([PALETTE[name] for name in COLOURS], np.float64))


def _hue_distance(pixels: Field) -> Field:
    """(..., colours) distances of pixels in the opponent space to every palette colour."""
    return np.asarray(np.linalg.norm(pixels[..., None, :] - _PALETTE, axis=-1))


def _nearest(pixel: Field) -> str:
    return COLOURS[int(_hue_distance(pixel).argmin())]


def read_background(picture: Picture) -> str:
    """The palette colour nearest to most of the border."""
    border = np.concatenate(
        [
            picture[:5].reshape(-1, 3),
            picture[-5:].reshape(-1, 3),
            picture[:, :5].reshape(-1, 3),
            picture[:, -5:].reshape(-1, 3),
        ]
    )
    votes = np.bincount(
        _hue_distance(opponent(border.astype(np.float64))).argmin(-1), minlength=len(COLOURS)
    )
    return COLOURS[int(votes.argmax())]


def _ground(picture: Field) -> Field:
    """(H, 1, 3): the background of each row, from its outermost pixels, smoothed over rows."""
    edge = np.concatenate([picture[:, :6], picture[:, -6:]], axis=1)
    rows = np.median(edge, axis=1)
    height = len(rows)
    position = np.linspace(-1, 1, height)
    spread = np.abs(rows - np.median(rows, axis=0)).sum(-1)
    keep = spread <= np.quantile(spread, 0.8) + 1e-6
    line = np.polynomial.polynomial.polyfit(position[keep], rows[keep], 2)
    return np.asarray(np.polynomial.polynomial.polyval(position, line).T[:, None, :], np.float64)


def _largest(mask: Mask) -> Mask:
    """The largest connected part of a mask, with its holes filled."""
    from scipy import ndimage

    labels, count = ndimage.label(ndimage.binary_opening(mask, iterations=1))
    if count == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()))


def object_mask(picture: Picture) -> Mask:
    """True where a pixel is clearly not background."""
    values = picture.astype(np.float64)
    distance = np.linalg.norm(opponent(values) - opponent(_ground(values)), axis=-1)
    return _largest(distance > 0.13)


@cache
def _templates() -> Field:
    """(shapes, side * side) filled templates in the box that each shape touches."""
    out = []
    for shape in SHAPES:
        axis = np.linspace(-1.3, 1.3, 260, dtype=np.float32)
        x, y = np.meshgrid(axis, axis)
        out.append(_boxed(DISTANCE[shape](x, y) < 0).ravel())
    return np.stack(out).astype(np.float64)


def _boxed(mask: Mask) -> Mask:
    """A mask cut to its box and resampled to the template's side, its proportions kept."""
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    half = max(bottom - top, right - left) / 2 + 0.5
    steps = (np.arange(_TEMPLATE) + 0.5) / _TEMPLATE * 2 - 1
    ys = np.round((top + bottom) / 2 + steps * half).astype(int)
    xs = np.round((left + right) / 2 + steps * half).astype(int)
    inside = (ys[:, None] >= 0) & (ys[:, None] < mask.shape[0]) & (xs >= 0) & (xs < mask.shape[1])
    picked = mask[ys.clip(0, mask.shape[0] - 1)[:, None], xs.clip(0, mask.shape[1] - 1)]
    return np.asarray(picked & inside)


def read_shape(mask: Mask) -> str:
    """The template that overlaps most."""
    boxed = _boxed(mask).ravel().astype(np.float64)
    templates = _templates()
    shared = templates @ boxed
    overlap = shared / (templates.sum(1) + boxed.sum() - shared)
    return SHAPES[int(overlap.argmax())]


def _centre_of_box(mask: Mask) -> tuple[float, float, float]:
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    y = (rows.min() + rows.max() + 1) / 2 / height - 0.5
    x = (columns.min() + columns.max() + 1) / 2 / width - 0.5
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    return x, y, float(extent)


def read_place(mask: Mask) -> str:
    """Where the middle of the object's box is."""
    x, y, _ = _centre_of_box(mask)
    if max(abs(x), abs(y)) < 0.11:
        return "centre"
    if abs(x) > abs(y):
        return "left" if x < 0 else "right"
    return "top" if y < 0 else "bottom"


def read_size(mask: Mask) -> str:
    """How long the longer side of the object's box is."""
    extent = _centre_of_box(mask)[2] * 128 / float(np.sqrt(mask.shape[0] * mask.shape[1]))
    return "large" if extent > 55 else "medium" if extent > 35.5 else "small"


def _depth(mask: Mask) -> Field:
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(mask))


def _surface(picture: Picture, mask: Mask) -> tuple[Field, Field, Field]:
    """Colours of the rim, of the surface behind any outline, and the surface's weights to vote."""
    depth = _depth(mask)
    values = picture.astype(np.float64)
    rim = values[(depth >= 2) & (depth <= 4)]
    behind = depth > min(8.0, 0.6 * float(depth.max()))
    return rim, values[behind], depth[behind]


def read_colour(picture: Picture, mask: Mask) -> str:
    """The palette colour of the surface behind the outline, whatever stripes and light do to it."""
    _, surface, _ = _surface(picture, mask)
    spread = opponent(surface)
    vivid = np.hypot(spread[:, 1], spread[:, 2])
    strong = spread[vivid >= np.quantile(vivid, 0.6)]
    return _nearest(np.median(strong, axis=0)) if vivid.max() > 0.2 else _grey(spread[:, 0])


def _grey(light: Field) -> str:
    """Black or white, for a surface without hue."""
    return "black" if float(np.median(light)) < 0.33 else "white"


def features(picture: Picture, mask: Mask) -> Field:
    """Numbers that tell the drawing styles apart, each roughly within 0..1."""
    rim, surface, _ = _surface(picture, mask)
    depth = _depth(mask)
    inner = depth > min(7.0, 0.55 * float(depth.max()))
    light = picture.astype(np.float64).mean(-1) / 255
    rows, columns = np.nonzero(inner)
    values = light[inner]
    x = (columns - columns.mean()) / (columns.std() + 1)
    y = (rows - rows.mean()) / (rows.std() + 1)
    design = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    fit, *_ = np.linalg.lstsq(design, values, rcond=None)
    rest = values - design @ fit
    rim_colour, surface_colour = np.median(rim, 0) / 255, np.median(surface, 0) / 255
    middle = float(np.median(values))
    return np.asarray(
        [
            np.abs(rim_colour - surface_colour).sum() / 2,
            rim.std(0).mean() / 128,
            values.std() * 4,
            rest.std() * 8,
            -(fit[1] + fit[2]) * 4,
            (np.quantile(values, 0.97) - middle) * 2,
            (middle - np.quantile(values, 0.05)) * 2,
            _swings(light, inner),
        ]
    )


def _swings(light: Field, inner: Mask) -> float:
    """How often the light crosses its middle along rows and columns: stripes do so regularly."""
    low, high = np.quantile(light[inner], (0.1, 0.9))
    if high - low < 0.04:
        return 0.0
    sign = light > (low + high) / 2
    across = (sign[:, 1:] != sign[:, :-1]) & inner[:, 1:] & inner[:, :-1]
    down = (sign[1:] != sign[:-1]) & inner[1:] & inner[:-1]
    return float((across.sum() + down.sum()) / inner.sum()) * 4


def read(picture: Picture) -> Reading:
    """Read one (H, W, 3) uint8 picture."""
    background = read_background(picture)
    mask = object_mask(picture)
    if mask.sum() < _LEAST_PIXELS:
        return Reading(background)
    from pocket.style import read_style

    return Reading(
        background,
        read_colour(picture, mask),
        read_shape(mask),
        read_place(mask),
        read_size(mask),
        read_style(features(picture, mask)),
    )


__all__ = ["PLACES", "Reading", "read"]
