"""Scenes to pixels: signed distances, anti-aliased, many pictures at once, numpy only.

A signed distance is below 0 inside the shape, in units of the object's half size. Everything random
about a drawing (jitter, tilt of the stripes, light) comes from the generator that is passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocket.world import PALETTE, Scene

Plane = NDArray[np.float32]

HALF_SIZE = {"large": 33.0, "medium": 22.0, "small": 14.0}
"""Half the extent of an object in pixels, before jitter."""

_OFFSET = {"large": 0.205, "medium": 0.25, "small": 0.28}
_DIRECTION = {"centre": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
_OUTLINE = (-3.2, 2.2)
"""Where an outline begins and ends: pixels from the edge, inside and outside."""

_STRIPE = 7.5


def circle(x: Plane, y: Plane) -> Plane:
    """Distance to the unit circle."""
    return np.asarray(np.hypot(x, y) - np.float32(0.97), np.float32)


def square(x: Plane, y: Plane) -> Plane:
    """Distance to a square a little smaller than the unit box, so that its area fits the others."""
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.86)


def triangle(x: Plane, y: Plane) -> Plane:
    """Distance to an upright triangle whose base is the bottom of the unit box."""
    side = (np.abs(x) - (y + 1) * np.float32(0.5)) * np.float32(0.894)
    return np.asarray(np.maximum(side, y - np.float32(0.92)) + np.float32(0.009), np.float32)


def star(x: Plane, y: Plane) -> Plane:
    """Distance to a five-pointed star with one point up."""
    angle = np.arctan2(x, -y)
    sector = np.float32(2 * np.pi / 5)
    turned = np.abs(angle - sector * np.round(angle / sector))
    radius = np.hypot(x, y)
    px, py = radius * np.cos(turned), radius * np.sin(turned)
    tip, notch = 1.06, 0.46
    nx, ny = notch * np.cos(np.pi / 5), notch * np.sin(np.pi / 5)
    ex, ey = nx - tip, ny
    length = float(np.hypot(ex, ey))
    side = (px - np.float32(tip)) * np.float32(ey) - py * np.float32(ex)
    return np.asarray(side / np.float32(length), np.float32)


def heart(x: Plane, y: Plane) -> Plane:
    """Distance to a heart: discs above two straight sides that meet in the tip."""
    scale = np.float32(0.6)
    px, py = np.abs(x) * scale, np.float32(0.555) - y * scale
    lobe = np.hypot(px - np.float32(0.25), py - np.float32(0.75)) - np.float32(np.sqrt(2) / 4)
    foot = np.maximum(px + py, 0) / 2
    below = np.minimum(np.hypot(px, py - 1), np.hypot(px - foot, py - foot)) * np.sign(px - py)
    return np.asarray(np.where(px + py > 1, lobe, below) / scale, np.float32)


def cross(x: Plane, y: Plane) -> Plane:
    """Distance to a plus sign."""
    ax, ay, arm = np.abs(x), np.abs(y), np.float32(0.33)
    return np.minimum(
        np.maximum(ax - arm, ay - np.float32(0.97)), np.maximum(ay - arm, ax - np.float32(0.97))
    )


DISTANCE: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "heart": heart,
    "cross": cross,
}


@dataclass(frozen=True)
class _Pose:
    """Where the object is on one picture, in pixels, and how it is lit."""

    x: float
    y: float
    half: float
    tilt: float
    phase: float


def _pose(scene: Scene, width: int, height: int, rng: np.random.Generator) -> _Pose:
    dx, dy = _DIRECTION[scene.place]
    offset = _OFFSET[scene.size]
    jx, jy = rng.uniform(-2.5, 2.5, size=2)
    return _Pose(
        x=width * (0.5 + dx * offset) + jx,
        y=height * (0.5 + dy * offset) + jy,
        half=HALF_SIZE[scene.size] * rng.uniform(0.95, 1.06),
        tilt=rng.uniform(0.7, 0.87),
        phase=rng.uniform(0.0, 1.0),
    )


def _colour(name: str) -> Plane:
    return np.asarray(np.asarray(PALETTE[name]) / 255, np.float32)


def outline_colour(scene: Scene) -> Plane:
    """Black, or white beside black, or grey between the two, so that an outline can always be seen."""
    pair = {scene.colour, scene.background}
    if pair == {"black", "white"}:
        return np.full(3, 0.5, np.float32)
    return _colour("white" if "black" in pair else "black")


def second_stripe(name: str) -> Plane:
    """The other colour of a striped object: a clear tint of its own colour."""
    colour = _colour(name)
    if name == "white":
        return np.full(3, 0.62, np.float32)
    share = np.float32(0.36 if name == "black" else 0.62)
    return colour + share * (1 - colour)


def _grid(count: int, width: int, height: int, scale: int) -> tuple[Plane, Plane]:
    """Where the middle of each pixel lies on the drawing at its own size."""
    x = (np.arange(width * scale, dtype=np.float32) + np.float32(0.5)) / np.float32(scale)
    y = (np.arange(height * scale, dtype=np.float32) + np.float32(0.5)) / np.float32(scale)
    return (
        np.broadcast_to(x, (count, len(y), len(x))),
        np.broadcast_to(y[:, None], (count, len(y), len(x))),
    )


def _column(values: Sequence[float]) -> Plane:
    return np.asarray(values, np.float32)[:, None, None]


def background(scenes: Sequence[Scene], height: int) -> Plane:
    """(N, 3, H, 1): the background colour, lighter above and darker below where it is a gradient."""
    colours = np.stack([_colour(scene.background) for scene in scenes])
    ramp = np.linspace(1, -1, height, dtype=np.float32) * np.float32(0.17)
    slope = np.asarray([scene.ground == "gradient" for scene in scenes], np.float32)
    shift = slope[:, None, None] * ramp[None, None, :]
    base = colours[:, :, None]
    lit = base + np.maximum(shift, 0) * (1 - base) * np.float32(1.6) + np.minimum(shift, 0) * base
    dark = base.max(axis=1, keepdims=True) < 0.2
    lit = np.where(dark, base + np.maximum(shift, 0), lit)
    return lit[..., None].astype(np.float32)


def _fill(
    scenes: Sequence[Scene], poses: Sequence[_Pose], gx: Plane, gy: Plane, scale: int
) -> Plane:
    """(N, 3, H, W): the object's own surface, striped and shaded where its style says so."""
    first = np.stack([_colour(s.colour) for s in scenes])[:, :, None, None]
    fill = np.broadcast_to(first, (len(scenes), 3, *gx.shape[1:])).copy()
    striped = [i for i, s in enumerate(scenes) if s.style == "striped"]
    if striped:
        tilt = _column([poses[i].tilt for i in striped])
        along = gx[striped] * np.cos(tilt) + gy[striped] * np.sin(tilt)
        wave = along / np.float32(2 * _STRIPE) + _column([poses[i].phase for i in striped])
        edge = (np.abs((wave % 1) - np.float32(0.5)) - np.float32(0.25)) * np.float32(2 * _STRIPE)
        mix = np.clip(edge * np.float32(scale) + np.float32(0.5), 0, 1)[:, None]
        second = np.stack([second_stripe(scenes[i].colour) for i in striped])[:, :, None, None]
        fill[striped] = first[striped] * (1 - mix) + second * mix
    shaded = [i for i, s in enumerate(scenes) if s.style == "shaded"]
    if shaded:
        fill[shaded] = _shade(fill[shaded], [poses[i] for i in shaded], gx[shaded], gy[shaded])
    return fill


def _shade(fill: Plane, poses: Sequence[_Pose], gx: Plane, gy: Plane) -> Plane:
    """Light from the upper left: a bright spot there, dark towards the lower right."""
    half = _column([p.half for p in poses])
    x = (gx - _column([p.x for p in poses])) / half
    y = (gy - _column([p.y for p in poses])) / half
    shadow = np.clip((x + y + np.float32(0.35)) * np.float32(0.42), 0, 0.62)[:, None]
    spot = np.exp(-((x + np.float32(0.22)) ** 2 + (y + np.float32(0.24)) ** 2) / np.float32(0.10))
    light = np.float32(0.75) * spot[:, None]
    dark = fill * (1 - shadow)
    return np.asarray(dark + light * (1 - dark), np.float32)


def _distance(scenes: Sequence[Scene], poses: Sequence[_Pose], gx: Plane, gy: Plane) -> Plane:
    """(N, H, W): distance to each object's edge in pixels."""
    half = _column([p.half for p in poses])
    x = (gx - _column([p.x for p in poses])) / half
    y = (gy - _column([p.y for p in poses])) / half
    out = np.empty_like(x)
    for shape, function in DISTANCE.items():
        rows = [i for i, scene in enumerate(scenes) if scene.shape == shape]
        if rows:
            out[rows] = function(x[rows], y[rows])
    return out * half


def draw(
    scenes: Sequence[Scene],
    rng: np.random.Generator,
    *,
    width: int = 128,
    height: int = 128,
    scale: int = 1,
) -> NDArray[np.uint8]:
    """Draw one picture for each scene.

    Args:
        scenes: What to draw, at least one.
        rng: Source of the jitter; the same state gives the same pixels.
        width: Pixels, at least 32.
        height: Pixels, at least 32.
        scale: How many times as large the same drawing is made, with edges as sharp as at its own size.

    Returns:
        (N, height·scale, width·scale, 3) uint8, sRGB.

    Raises:
        ValueError: There is no scene.
    """
    if not scenes:
        raise ValueError("scenes: expected at least one, got none")
    poses = [_pose(scene, width, height, rng) for scene in scenes]
    gx, gy = _grid(len(scenes), width, height, scale)
    distance = _distance(scenes, poses, gx, gy)[:, None] * np.float32(scale)
    picture = _fill(scenes, poses, gx, gy, scale)
    outlined = [i for i, s in enumerate(scenes) if s.style == "outlined"]
    if outlined:
        line = np.stack([outline_colour(scenes[i]) for i in outlined])[:, :, None, None]
        mix = np.clip(distance[outlined] + np.float32(0.5 - scale * _OUTLINE[0]), 0, 1)
        picture[outlined] = picture[outlined] * (1 - mix) + line * mix
        distance[outlined] -= np.float32(scale * _OUTLINE[1])
    inside = np.clip(np.float32(0.5) - distance, 0, 1)
    picture = picture * inside + background(scenes, height * scale) * (1 - inside)
    return np.asarray((picture.transpose(0, 2, 3, 1) * 255 + 0.5).clip(0, 255), np.uint8)
