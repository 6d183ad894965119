"""Drawings as latents on disk: the UNet is trained on these and never sees a pixel.

One pair of files for each bucket: latents (float16, scaled) and the scenes they show, as numbers.
"""

import logging
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pocket.draw import draw
from pocket.parts import SCALING_FACTOR, Vae, library
from pocket.team import Team
from pocket.train_vae import pixels
from pocket.world import (
    BUCKETS,
    COLOURS,
    GROUNDS,
    PLACES,
    SHAPES,
    SIZES,
    STYLES,
    Scene,
    seen_scenes,
)

log = logging.getLogger(__name__)

CHUNK = 64
_VALUES = {
    "shape": SHAPES,
    "colour": COLOURS,
    "background": COLOURS,
    "size": SIZES,
    "place": PLACES,
    "style": STYLES,
    "ground": GROUNDS,
}


def to_row(scene: Scene) -> list[int]:
    """A scene as numbers, in the order of its fields."""
    return [_VALUES[f.name].index(getattr(scene, f.name)) for f in fields(Scene)]


def from_row(row: NDArray[np.uint8]) -> Scene:
    """The scene that `to_row` wrote."""
    names = [f.name for f in fields(Scene)]
    return Scene(**{n: _VALUES[n][int(i)] for n, i in zip(names, row, strict=True)})


def _paths(folder: Path, size: tuple[int, int], rank: int) -> tuple[Path, Path]:
    stem = f"{size[0]}x{size[1]}.{rank}"
    return folder / f"latents.{stem}.npy", folder / f"scenes.{stem}.npy"


@torch.no_grad()
def encode(vae: Vae, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        mean = vae.encode(pixels(pictures)).latent_dist.mean * SCALING_FACTOR
    return np.asarray(mean.contiguous().numpy(), np.float16)


def fill_cache(team: Team, folder: Path, count: int) -> None:
    """Draw and encode `count` square pictures and a twentieth of that for each other bucket."""
    vae = library.AutoencoderKL.from_pretrained(folder / "vae").to(
        memory_format=torch.channels_last
    )
    target = folder / "cache"
    target.mkdir(exist_ok=True)
    for index, size in enumerate(BUCKETS):
        rng = np.random.default_rng([11, index, team.rank])
        source = seen_scenes(rng)
        latents, rows = [], []
        share = count if index == 0 else count // 20
        for _ in range(max(1, share // team.size // CHUNK)):
            scenes = [next(source) for _ in range(CHUNK)]
            latents.append(encode(vae, draw(scenes, rng, width=size[0], height=size[1])))
            rows += [to_row(scene) for scene in scenes]
        to_latents, to_scenes = _paths(target, size, team.rank)
        np.save(to_latents, np.concatenate(latents))
        np.save(to_scenes, np.asarray(rows, np.uint8))
        if team.leads:
            log.info("cache: %d pictures of %dx%d in each process", len(rows), *size)


class Cache:
    """All cached drawings, by bucket."""

    def __init__(self, folder: Path) -> None:
        self.latents: list[NDArray[np.float16]] = []
        self.scenes: list[NDArray[np.uint8]] = []
        for size in BUCKETS:
            files = sorted((folder / "cache").glob(f"latents.{size[0]}x{size[1]}.*.npy"))
            if not files:
                raise FileNotFoundError(f"{folder / 'cache'}: no latents of {size[0]}x{size[1]}")
            self.latents.append(np.concatenate([np.load(f) for f in files]))
            scenes = [f.with_name(f.name.replace("latents", "scenes")) for f in files]
            self.scenes.append(np.concatenate([np.load(f) for f in scenes]))

    def sample(
        self, rng: np.random.Generator, count: int, bucket: int
    ) -> tuple[Tensor, list[Scene]]:
        """(count, 4, h, w) float32 latents of one bucket, and their scenes."""
        rows = rng.integers(len(self.scenes[bucket]), size=count)
        latents = torch.from_numpy(self.latents[bucket][rows].astype(np.float32))
        return latents, [from_row(row) for row in self.scenes[bucket][rows]]
