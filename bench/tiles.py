"""Seams in pictures of the pocket model that are painted in tiles.

    python -m bench.tiles [--count 32] [--steps 20] [--models-dir models] [--write]

Pictures of unseen scenes go through the engine, from requests to files, and are read from pixels. ``--write`` keeps the table beside
this file: TILES.md.

What is measured is the gradient, the mean distance of neighbouring pixels, across the borders of tiles, and across all other borders of
latent cells: the pocket model's VAE draws those itself, so the borders of tiles must be compared with their like.
"""

import argparse
import datetime
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from engine import TextRequest, plan
from engine.begin import tiles_of
from engine.geometry import LATENT_FACTOR, Size
from engine.library import Library
from engine.plan import Plan
from engine.sampling.tiling import Tiles
from pocket.measure import Settings, prompts
from pocket.measure_modes import Studio, open_studio
from pocket.world import NATIVE_SIZE

RESULTS = Path(__file__).parent / "TILES.md"
LIMIT = 1.2
"""What counts as a seam."""
SDXL_NATIVE = 1024
"""Native size that pixels of a request are meant for."""

Pictures = NDArray[np.uint8]
"""(N, H, W, 3)."""


class Gradients(NamedTuple):
    """Mean distances of neighbouring pixels, in levels of 255."""

    borders: float
    """Across the borders of tiles."""
    cells: float
    """Across the other borders of latent cells."""
    inside: float
    """Inside latent cells."""

    @property
    def seam(self) -> float:
        """How much the borders of tiles stand out; 1 is not at all."""
        return self.borders / self.cells


@dataclass(frozen=True)
class Layout:
    """Pictures of one kind, in pixels of the pocket model."""

    size: Size
    stride: int
    tile: int = NATIVE_SIZE

    def settle(self, text: str, library: Library, *, seed: int, **fields: Any) -> Plan:
        """Plan a picture; its file is as large as it is painted."""
        scale = SDXL_NATIVE // NATIVE_SIZE
        tile, stride = scale * self.tile, scale * self.stride
        tiles = {"width": tile, "height": tile, "stride_width": stride, "stride_height": stride}
        asked = {
            "prompt": text,
            "num_images": 1,
            "aspect_ratio": str(Size(*(scale * side for side in self.size))),
            "output_format": "png",
            "advanced": {"base_model": "pocket"},
            "studio": {"guidance_scale": 4.0, "tiles": tiles, **fields},
        }
        settled = plan(TextRequest.parse(asked), library, seed=seed)
        return replace(settled, size=settled.sample_size)


LAYOUTS = (
    Layout(Size(256, 128), 64),
    Layout(Size(256, 128), 32),
    Layout(Size(256, 128), 96),
    Layout(Size(320, 128), 64),
    Layout(Size(256, 256), 64),
    Layout(Size(256, 256), 96),
)


def gradients(pictures: Pictures, tiles: Tiles) -> Gradients:
    """Measure pictures that were painted in these tiles, in each direction in which there are several."""
    found: Mapping[str, list[float]] = {"borders": [], "cells": [], "inside": []}
    for axis, starts, length in (
        (1, tiles.tops, tiles.tile.height),
        (2, tiles.lefts, tiles.tile.width),
    ):
        if len(starts) == 1:
            continue
        borders = {LATENT_FACTOR * cell for start in starts for cell in (start, start + length)}
        others = tuple({1, 2, 3} - {axis})
        distances = np.abs(np.diff(pictures.astype(np.float64), axis=axis)).mean((0, *others))
        for place, distance in enumerate(distances, start=1):
            where = (
                "borders" if place in borders else "inside" if place % LATENT_FACTOR else "cells"
            )
            found[where].append(distance)
    return Gradients(**{where: float(np.mean(values)) for where, values in found.items()})


def paint(studio: Studio, layout: Layout, texts: Sequence[str], **fields: Any) -> Pictures:
    """Paint a prompt each with the seeds 0, 1, 2 and so on; fields are of the studio's part of the requests."""
    jobs = [
        layout.settle(text, studio.library, seed=seed, **fields) for seed, text in enumerate(texts)
    ]
    return studio.run_plans(jobs, {})


def measure(studio: Studio, layout: Layout, texts: Sequence[str], **fields: Any) -> Gradients:
    """Paint, and look for seams."""
    tiles = tiles_of(layout.settle("", studio.library, seed=0))
    assert tiles is not None
    return gradients(paint(studio, layout, texts, **fields), tiles)


def laid_together(studio: Studio, texts: Sequence[str], **fields: Any) -> Gradients:
    """Lay pictures that were painted apart side by side, each beside another one of its prompt: so a seam looks."""
    native = Size(NATIVE_SIZE, NATIVE_SIZE)
    jobs = [
        Layout(native, NATIVE_SIZE).settle(text, studio.library, seed=seed, **fields)
        for side in (0, len(texts))
        for seed, text in enumerate(texts, start=side)
    ]
    left, right = np.split(studio.run_plans(jobs, {}), 2)
    cells = native.latent
    whole = Size(2 * cells.width, cells.height)
    tiles = Tiles(whole, cells, tops=(0,), lefts=(0, cells.width))
    return gradients(np.concatenate([left, right], axis=2), tiles)


def report(studio: Studio, count: int, steps: int) -> str:
    """The table, with its date."""
    _, texts = prompts(Settings(count))
    fields = {"num_inference_steps": steps}
    lines = [
        "# Pictures in tiles",
        "",
        f"Made by `python -m bench.tiles --write` on {datetime.date.today()}: pocket model, {count} pictures of unseen scenes a line,"
        f" {steps} steps, guidance 4, tiles of {NATIVE_SIZE}x{NATIVE_SIZE}, float32 on {platform.machine()}, torch {torch.__version__}."
        " Gradients are mean distances of neighbouring pixels, in levels of 255. The VAE draws the borders of its cells, so those of"
        f" tiles are compared with them; {LIMIT} is the most that is allowed.",
        "",
        "| picture, stride | across tiles' borders | across other cells' borders | ratio | inside cells |",
        "|---|---|---|---|---|",
    ]
    for layout in LAYOUTS:
        name = f"{layout.size}, {layout.stride}"
        lines.append(_line(name, measure(studio, layout, texts, **fields)))
    lines.append(_line("two painted apart", laid_together(studio, texts, **fields)))
    return "\n".join(lines) + "\n"


def _line(name: str, found: Gradients) -> str:
    return f"| {name} | {found.borders:.2f} | {found.cells:.2f} | {found.seam:.2f} | {found.inside:.2f} |"


def main() -> None:
    """Measure, print, and keep the table where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    table = report(open_studio(options.models_dir), options.count, options.steps)
    sys.stdout.write(table)
    if options.write:
        RESULTS.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
