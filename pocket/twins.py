"""Drawings for the partners of the UNet: latents, thumbnails, and hints taken from a recoloured twin.

A twin shows the same object at the same place, mostly in other colours. Hints of the twin are all that a
control may know of a drawing, so it learns to take colours from the prompt. Everything is drawn in
chunks with a generator each, so that further hints can be added to a folder later.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.conditioning.preprocess.cpds import cpds
from engine.conditioning.preprocess.pyra_canny import pyra_canny
from pocket.cache import CHUNK, encode, from_row, to_row
from pocket.draw import draw
from pocket.parts import library
from pocket.sight import quick_thumbnails
from pocket.world import BUCKETS, COLOURS, GROUNDS, Scene, seen_scenes

log = logging.getLogger(__name__)

Pictures = NDArray[np.uint8]
Preprocess = Callable[[Pictures], Pictures]
"""(H, W, 3) to (H, W)."""

HINTS: Mapping[str, Preprocess] = {"edges": pyra_canny, "layout": cpds}
"""Names of the ControlNets, and what each is shown of a picture."""

SMALL_SHARE = 16
"""Of so many chunks of squares each other bucket gets one."""

_RECOLOURED = 0.75


@dataclass(frozen=True)
class Chunk:
    """Drawings of one bucket, and their twins."""

    scenes: list[Scene]
    drawings: Pictures
    twins: Pictures


def recoloured(rng: np.random.Generator, scene: Scene) -> Scene:
    """The same object in other colours, on another ground."""
    colour, background = rng.choice(len(COLOURS), size=2, replace=False)
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    return replace(scene, colour=COLOURS[colour], background=COLOURS[background], ground=ground)


def draw_chunk(bucket: int, index: int) -> Chunk:
    """Draw a chunk; the same numbers give the same pixels."""
    rng = np.random.default_rng([31, bucket, index])
    source = seen_scenes(rng)
    scenes = [next(source) for _ in range(CHUNK)]
    others = [recoloured(rng, s) if rng.random() < _RECOLOURED else s for s in scenes]
    width, height = BUCKETS[bucket]

    def poses() -> np.random.Generator:
        return np.random.default_rng([32, bucket, index])

    return Chunk(
        scenes,
        draw(scenes, poses(), width=width, height=height),
        draw(others, poses(), width=width, height=height),
    )


def _chunks(bucket: int, count: int) -> range:
    chunks = max(1, count // CHUNK)
    return range(chunks if bucket == 0 else max(1, chunks // SMALL_SHARE))


def _file(folder: Path, what: str, bucket: int) -> Path:
    width, height = BUCKETS[bucket]
    return folder / "twins" / f"{what}.{width}x{height}.npy"


def _write(file: Path, arrays: list[NDArray[np.generic]]) -> None:
    """Write the arrays as one, whole: to a file beside it, then renamed."""
    beside = file.with_suffix(".tmp.npy")
    np.save(beside, np.concatenate(arrays))
    beside.replace(file)


def fill_twins(folder: Path, count: int) -> None:
    """Draw and encode `count` squares and a few of each other bucket, where they are not there yet."""
    (folder / "twins").mkdir(exist_ok=True)
    vae = library.AutoencoderKL.from_pretrained(folder / "vae")
    vae.to(memory_format=torch.channels_last)
    for bucket in range(len(BUCKETS)):
        if _file(folder, "latents", bucket).exists():
            continue
        latents, scenes, thumbnails = [], [], []
        for index in _chunks(bucket, count):
            chunk = draw_chunk(bucket, index)
            latents.append(encode(vae, chunk.drawings))
            scenes.append(np.asarray([to_row(scene) for scene in chunk.scenes], np.uint8))
            thumbnails.append(quick_thumbnails(chunk.drawings))
        _write(_file(folder, "scenes", bucket), list(scenes))
        _write(_file(folder, "thumbnails", bucket), list(thumbnails))
        _write(_file(folder, "latents", bucket), list(latents))
        log.info("twins: %d of %dx%d", CHUNK * len(latents), *BUCKETS[bucket])


def fill_hints(folder: Path, hints: Mapping[str, Preprocess]) -> None:
    """Preprocess the twins of all drawings in the folder, for the hints that are not there yet."""
    for name, preprocess in hints.items():
        for bucket in range(len(BUCKETS)):
            if _file(folder, name, bucket).exists():
                continue
            known = len(np.load(_file(folder, "scenes", bucket), mmap_mode="r"))
            parts = [
                np.stack([preprocess(twin) for twin in draw_chunk(bucket, index).twins])
                for index in range(known // CHUNK)
            ]
            _write(_file(folder, name, bucket), list(parts))
            log.info("twins: %s of %dx%d", name, *BUCKETS[bucket])


class Twins:
    """All drawings of a folder, with one kind of thing that partners see: thumbnails or a hint."""

    def __init__(self, folder: Path, seen: str) -> None:
        def read(what: str, bucket: int) -> NDArray[np.generic]:
            return np.asarray(np.load(_file(folder, what, bucket), mmap_mode="r"))

        buckets = range(len(BUCKETS))
        self.latents = [read("latents", bucket) for bucket in buckets]
        self.scenes = [read("scenes", bucket) for bucket in buckets]
        self.seen = [read(seen, bucket) for bucket in buckets]

    def sample(
        self, rng: np.random.Generator, count: int, bucket: int
    ) -> tuple[Tensor, list[Scene], NDArray[np.uint8]]:
        """(count, 4, h, w) float32 latents of one bucket, their scenes, and what partners see."""
        rows = np.sort(rng.integers(len(self.scenes[bucket]), size=count))
        latents = torch.from_numpy(self.latents[bucket][rows].astype(np.float32))
        scenes = [from_row(row) for row in self.scenes[bucket][rows].astype(np.uint8)]
        return latents, scenes, self.seen[bucket][rows].astype(np.uint8)
