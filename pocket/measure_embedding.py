"""Measure the textual inversion in pictures: `python -m pocket.measure_embedding`.

Prompts name an object alone, then the same with the inversion, then with the words that it stands for.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pocket.measure_modes import Studio, open_studio
from pocket.score import read
from pocket.train_embedding import FILE, SAYS
from pocket.train_upscaler import MODEL
from pocket.world import Scene, unseen_scenes

log = logging.getLogger(__name__)

WORD = f"embedding:{FILE.stem}"
LINES = {
    "the object alone": "{}",
    f"`{WORD}`": f"{{}} {WORD}",
    "its words": "{} on a purple gradient background, striped",
}


def objects(count: int, seed: int = 9) -> list[Scene]:
    """Scenes of objects that can be seen on the inversion's background."""
    source = unseen_scenes(np.random.default_rng(seed))
    seen = (scene for scene in source if scene.colour != SAYS["background"])
    return [next(seen) for _ in range(count)]


def shares(studio: Studio, scenes: Sequence[Scene], form: str, performance: str) -> list[float]:
    """Share of pictures with the inversion's background and style, then with the object's colour and shape."""
    texts = [form.format(f"a {scene.size} {scene.colour} {scene.shape}") for scene in scenes]
    readings = [read(it) for it in studio.paint(texts, {"performance": performance})]
    hits = [
        (
            reading.background == SAYS["background"],
            reading.style == SAYS["style"],
            reading.colour == scene.colour,
            reading.shape == scene.shape,
        )
        for reading, scene in zip(readings, scenes, strict=True)
    ]
    return [float(share) for share in np.mean(hits, axis=0)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODEL.parent)
    parser.add_argument("--count", type=int, default=32)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    studio, scenes = open_studio(options.models), objects(options.count)
    torch.set_num_threads(1)
    log.info("| prompt | purple background | striped | colour | shape |")
    for name, form in LINES.items():
        cells = " | ".join(f"{share:.0%}" for share in shares(studio, scenes, form, "Speed"))
        log.info("| %s | %s |", name, cells)


if __name__ == "__main__":
    main()
