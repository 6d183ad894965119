"""The world the pocket model knows: one object on a background, described by a `Scene`.

Which scenes exist, how they are drawn at random, and which are kept from training. Knows nothing of
pixels, words or models; standard library and numpy only.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (218, 32, 36),
    "orange": (255, 138, 10),
    "yellow": (252, 222, 40),
    "green": (30, 150, 62),
    "blue": (34, 84, 224),
    "purple": (128, 44, 178),
    "pink": (250, 146, 196),
    "black": (22, 22, 26),
    "white": (248, 248, 248),
}
"""Colour names and their sRGB values, far enough apart to survive shading and the autoencoder."""

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
SIZES = ("large", "medium", "small")
PLACES = ("centre", "left", "right", "top", "bottom")
STYLES = ("flat", "outlined", "striped", "shaded")
GROUNDS = ("plain", "gradient")
COLOURS = tuple(PALETTE)

NATIVE_SIZE = 128
"""Side of the square picture that the model is trained on, in pixels."""

BUCKETS = ((128, 128), (112, 144), (144, 112))
"""(width, height) of the pictures that training sees: square, portrait, landscape."""

_RESERVED_SHARE = 16
_SIZE_ODDS = (0.52, 0.44, 0.04)


@dataclass(frozen=True)
class Scene:
    """What is on a picture, in words of the world."""

    shape: str
    colour: str
    background: str
    size: str = "large"
    place: str = "centre"
    style: str = "flat"
    ground: str = "plain"

    @property
    def reserved(self) -> bool:
        """Whether this scene belongs to the sixteenth kept for measuring; the ground does not matter."""
        words = (self.shape, self.colour, self.background, self.size, self.place, self.style)
        return zlib.crc32(" ".join(words).encode()) % _RESERVED_SHARE == 0


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw any scene of the world, reserved or not."""
    colour, background = rng.choice(len(COLOURS), size=2, replace=False)
    return Scene(
        shape=SHAPES[rng.integers(len(SHAPES))],
        colour=COLOURS[colour],
        background=COLOURS[background],
        size=SIZES[rng.choice(len(SIZES), p=_SIZE_ODDS)],
        place=PLACES[rng.integers(len(PLACES))],
        style=STYLES[rng.integers(len(STYLES))],
        ground=GROUNDS[rng.integers(len(GROUNDS))],
    )


def seen_scenes(rng: np.random.Generator) -> Iterator[Scene]:
    """Yield scenes that training may show, without end."""
    while True:
        scene = random_scene(rng)
        if not scene.reserved:
            yield scene


def unseen_scenes(rng: np.random.Generator, *, small: bool = False) -> Iterator[Scene]:
    """Yield scenes reserved for measuring, without end; small objects only where asked for."""
    while True:
        scene = random_scene(rng)
        if scene.reserved and (small or scene.size != "small"):
            yield scene
