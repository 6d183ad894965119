"""Drawings with holes for the inpaint partners: cut out by the engine's own code, then as latents on disk.

A drawing is made at twice its size, so that a part that is enlarged stays sharp. Holes lie around the object, anywhere, over half of
the picture, or beyond its sides. Files hold lessons of one working size each.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.geometry import LATENT_FACTOR, Size
from engine.image_inputs import Side
from engine.stages.inpaint import Canvas, Scale, latent_mask, masked_values, prepare
from engine.stages.masks import OUTPAINTED, pad
from engine.stages.pixels import Pixels
from pocket.cache import encode, from_row, to_row
from pocket.draw import background, draw
from pocket.parts import SCALING_FACTOR, Vae, library
from pocket.world import NATIVE_SIZE, Scene, seen_scenes

log = logging.getLogger(__name__)

Mask = NDArray[np.bool_]

SIDES: tuple[Side, ...] = ("Left", "Right", "Top", "Bottom")

_DETAIL = 2
"""How many times as large a drawing is made before a part of it is cut out."""
_KINDS = ("object", "anywhere", "half", "beyond")
_ODDS = (0.39, 0.12, 0.09, 0.4)
_FIELDS, _FIELD_ODDS = (0.618, 0.0, 1.0), (0.6, 0.15, 0.25)
_MARGIN = (2, 17)
"""Pixels between an object and the edge of the hole around it."""
_SEEN = 12
"""Levels of 255 by which a pixel differs from the background at least, to belong to the object."""
_CHUNK = 32
_FEWEST = 24
"""Working sizes with fewer lessons are left out."""


@dataclass(frozen=True)
class Batch:
    """Lessons of one working size."""

    latents: Tensor
    """(N, 4, h, w) of the whole drawing."""
    masked: Tensor
    """(N, 4, h, w) of the drawing with its hole grey."""
    masks: Tensor
    """(N, 1, h, w): 1 in the hole."""
    scenes: list[Scene]


def object_pixels(picture: NDArray[np.uint8], scene: Scene) -> Mask:
    """(H, W): where a drawing differs from its background."""
    ground = background([scene], picture.shape[0])[0].transpose(1, 2, 0) * 255
    seen: Mask = np.abs(picture - ground).max(axis=2) > _SEEN
    return seen


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Top, bottom, left and right, the ends outside."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _ellipse(shape: tuple[int, int], box: tuple[float, float, float, float]) -> Mask:
    top, bottom, left, right = box
    y, x = np.ogrid[: shape[0], : shape[1]]
    down = (y - (top + bottom) / 2) / max(1.0, (bottom - top) / 2)
    across = (x - (left + right) / 2) / max(1.0, (right - left) / 2)
    inside: Mask = down**2 + across**2 <= 1
    return inside


def around_object(rng: np.random.Generator, thing: Mask) -> Mask:
    """A hole that hides an object whole: a box, or a blob around it."""
    top, bottom, left, right = box_of(thing)
    near, far = (_DETAIL * side for side in _MARGIN)
    up, down, before, behind = rng.integers(near, far, size=4)
    top, bottom, left, right = top - up, bottom + down, left - before, right + behind
    hole = np.zeros_like(thing)
    if rng.random() < 0.6:
        hole[max(0, top) : bottom, max(0, left) : right] = True
        return hole
    more_y, more_x = 0.21 * (bottom - top), 0.21 * (right - left)
    return _ellipse(hole.shape, (top - more_y, bottom + more_y, left - more_x, right + more_x))


def anywhere(rng: np.random.Generator, shape: tuple[int, int]) -> Mask:
    """A box or a blob over 15 to 60 % of the picture, whatever is there."""
    height, width = shape
    share = rng.uniform(0.15, 0.6)
    stretch = np.exp(rng.uniform(-0.4, 0.4))
    high = min(1.0, np.sqrt(share) * stretch) * height
    wide = min(1.0, np.sqrt(share) / stretch) * width
    top, left = rng.uniform(0, height - high), rng.uniform(0, width - wide)
    hole = np.zeros(shape, np.bool_)
    if rng.random() < 0.5:
        hole[int(top) : int(top + high), int(left) : int(left + wide)] = True
        return hole
    for _ in range(4):
        y, x = top + rng.uniform(0.2, 0.8) * high, left + rng.uniform(0.2, 0.8) * wide
        up, across = rng.uniform(0.2, 0.45) * high, rng.uniform(0.2, 0.45) * wide
        hole |= _ellipse(hole.shape, (y - up, y + up, x - across, x + across))
    return hole


def half(rng: np.random.Generator, shape: tuple[int, int]) -> Mask:
    """A quarter to three fifths of the picture at one of its sides."""
    share, side = rng.uniform(0.25, 0.6), int(rng.integers(4))
    hole = np.zeros(shape, np.bool_)
    along = hole if side < 2 else hole.T
    count = int(share * along.shape[0])
    along[:count] = side % 2 == 0
    along[-count:] |= side % 2 == 1
    return hole


def random_sides(rng: np.random.Generator) -> tuple[Side, ...]:
    """One to four sides of a picture."""
    chosen = rng.permutation(len(SIDES))[: 1 + rng.integers(len(SIDES))]
    return tuple(SIDES[side] for side in sorted(chosen))


def ground_beyond(scene: Scene, drawing: Pixels, sides: Collection[Side]) -> Pixels:
    """The background of a drawing that goes on beyond its sides, a gradient as steeply as it comes."""
    height, width = drawing.shape[:2]
    plain = background([scene], height)[0].transpose(1, 2, 0) * 255
    ground = np.broadcast_to(plain, drawing.shape)
    high, wide = int(OUTPAINTED * height), int(OUTPAINTED * width)
    rows = high * ("Top" in sides), high * ("Bottom" in sides)
    columns = wide * ("Left" in sides), wide * ("Right" in sides)
    longer = np.pad(ground, (rows, columns, (0, 0)), mode="reflect", reflect_type="odd")
    return np.asarray(longer.round().clip(0, 255), np.uint8)


def _beyond(rng: np.random.Generator, scene: Scene, drawing: Pixels) -> tuple[Pixels, Mask]:
    """A drawing with more background at some sides, and where that is new."""
    sides = random_sides(rng)
    larger, mask = pad(drawing, np.zeros(drawing.shape[:2], np.uint8), sides)
    new = mask > 0
    larger[new] = ground_beyond(scene, drawing, sides)[new]
    return larger, new


def make_hole(rng: np.random.Generator, scenes: Iterator[Scene]) -> tuple[Scene, Canvas]:
    """Draw a scene, and cut out the part around a random hole as the engine does."""
    kind = _KINDS[rng.choice(len(_KINDS), p=_ODDS)]
    scene = next(scenes)
    picture = draw([scene], rng, scale=_DETAIL)[0]
    if kind == "beyond":
        picture, hole = _beyond(rng, scene, picture)
    elif kind == "object":
        hole = around_object(rng, object_pixels(picture, scene))
    else:
        hole = (anywhere if kind == "anywhere" else half)(rng, picture.shape[:2])
    canvas = prepare(
        picture,
        hole.view(np.uint8) * np.uint8(255),
        respective_field=_FIELDS[rng.choice(len(_FIELDS), p=_FIELD_ODDS)],
        is_filled=False,
        scale=Scale.of(NATIVE_SIZE),
    )
    return scene, canvas


@torch.no_grad()
def _encoded(vae: Vae, canvases: list[Canvas]) -> list[NDArray[np.float16]]:
    """Latents of the drawings, latents with the holes grey, and the holes."""
    whole = encode(vae, np.stack([canvas.image for canvas in canvases]))
    grey = torch.cat([masked_values(canvas) for canvas in canvases])
    masked = vae.encode(grey).latent_dist.mean * SCALING_FACTOR
    height, width = (side // LATENT_FACTOR for side in canvases[0].hole.shape)
    holes = torch.cat([latent_mask(canvas.hole, Size(width, height)) for canvas in canvases])
    return [whole, np.asarray(masked, np.float16), np.asarray(holes, np.float16)]


def fill_holes(folder: Path, count: int) -> None:
    """Draw and encode `count` lessons into ``holes`` of the work folder, unless they are there."""
    target = folder / "holes"
    if target.exists():
        return
    vae = library.AutoencoderKL.from_pretrained(folder / "vae")
    rng = np.random.default_rng(41)
    source = seen_scenes(rng)
    waiting: dict[Size, list[tuple[Scene, Canvas]]] = defaultdict(list)
    done: dict[Size, list[list[NDArray[np.generic]]]] = defaultdict(list)

    def work_off(size: Size) -> None:
        scenes, canvases = zip(*waiting.pop(size), strict=True)
        rows = np.asarray([to_row(scene) for scene in scenes], np.uint8)
        done[size].append([*_encoded(vae, list(canvases)), rows])

    for index in range(count):
        scene, canvas = make_hole(rng, source)
        waiting[canvas.size].append((scene, canvas))
        if len(waiting[canvas.size]) == _CHUNK:
            work_off(canvas.size)
        if (index + 1) % 1024 == 0:
            log.info("holes: %d drawn, %d sizes", index + 1, len(waiting | done))
    for size in list(waiting):
        work_off(size)
    beside = folder / "holes.tmp"
    beside.mkdir(exist_ok=True)
    for size, parts in done.items():
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        if len(columns[0]) >= _FEWEST:
            latents, masked, masks, scenes = columns
            file = beside / f"{size}.npz"
            np.savez(file, latents=latents, masked=masked, masks=masks, scenes=scenes)
    beside.rename(target)


class Holes:
    """All lessons of a work folder."""

    def __init__(self, folder: Path) -> None:
        files = sorted((folder / "holes").glob("*.npz"))
        if not files:
            raise FileNotFoundError(f"{folder / 'holes'}: no drawings with holes")
        self._sizes = [dict(np.load(file)) for file in files]
        counts = np.asarray([len(size["scenes"]) for size in self._sizes])
        self._odds = counts / counts.sum()

    def sample(self, rng: np.random.Generator, count: int) -> Batch:
        """Draw `count` lessons of one working size."""
        size = self._sizes[rng.choice(len(self._sizes), p=self._odds)]
        rows = rng.integers(len(size["scenes"]), size=count)
        latents, masked, masks = (
            torch.from_numpy(size[name][rows].astype(np.float32))
            for name in ("latents", "masked", "masks")
        )
        return Batch(latents, masked, masks, [from_row(row) for row in size["scenes"][rows]])
