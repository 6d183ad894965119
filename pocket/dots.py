"""Polka dots on backgrounds: how they are drawn, and how much of them a picture has.

What the example adapter teaches the model. Dots stand on a fixed lattice of latent cells, keep clear of
the object, and are a tint of the background, so that nothing else about a picture changes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pocket.draw import background, draw, second_stripe
from pocket.parts import LATENT_FACTOR
from pocket.score import object_mask, opponent
from pocket.world import Scene

Picture = NDArray[np.uint8]

RADIUS = 4.6
"""Of a dot, in pixels."""

_CLEAR = RADIUS + 5
"""Pixels from the middle of a dot to the nearest object."""


def lattice(width: int, height: int) -> Iterator[tuple[float, float]]:
    """The middles (x, y) of all dots: every fourth cell each way, and between each four one more."""
    for row in range(2, height // LATENT_FACTOR - 1, 2):
        for column in range(2, width // LATENT_FACTOR - 1, 2):
            if row % 4 == column % 4:
                yield (column + 0.5) * LATENT_FACTOR, (row + 0.5) * LATENT_FACTOR


def draw_dotted(
    scenes: Sequence[Scene],
    strengths: Sequence[float],
    rng: np.random.Generator,
    *,
    width: int = 128,
    height: int = 128,
) -> NDArray[np.uint8]:
    """Draw scenes with dotted backgrounds.

    Args:
        scenes: What to draw.
        strengths: How clear the dots are on each, 0 (there are none) to 1.
        rng: Source of the jitter; the same state as for `draw` gives the same objects.
        width: Pixels.
        height: Pixels.

    Returns:
        (N, height, width, 3) uint8, sRGB.
    """
    from scipy import ndimage

    pictures = draw(scenes, rng, width=width, height=height)
    grounds = background(scenes, height).transpose(0, 2, 3, 1) * 255  # (N, H, 1, 3)
    y, x = np.mgrid[:height, :width] + 0.5
    for i, (scene, strength) in enumerate(zip(scenes, strengths, strict=True)):
        is_object = np.abs(pictures[i] - grounds[i]).max(-1) > 6
        space = ndimage.distance_transform_edt(~is_object)
        cover = np.zeros((height, width))
        for mx, my in lattice(width, height):
            if space[int(my), int(mx)] > _CLEAR:
                cover = np.maximum(cover, np.clip(RADIUS - np.hypot(x - mx, y - my) + 0.5, 0, 1))
        mix = (strength * cover)[..., None]
        tint = second_stripe(scene.background) * 255
        pictures[i] = np.asarray(pictures[i] * (1 - mix) + tint * mix + 0.5, np.uint8)
    return pictures


def dottedness(picture: Picture) -> float:
    """How clearly dots stand out from the background: about 0 without, 0.2 to 0.5 on drawings with dots.

    The mean step in colour from around a dot to its middle, over all places of the lattice that are
    free of the object. What differs from place to place, such as grain, cancels out.
    """
    height, width = picture.shape[:2]
    colours = opponent(picture.astype(np.float64))
    from scipy import ndimage

    blocked = ndimage.binary_dilation(object_mask(picture), iterations=round(RADIUS) + 4)
    y, x = np.mgrid[:height, :width] + 0.5
    steps = []
    for mx, my in lattice(width, height):
        far = np.hypot(x - mx, y - my)
        if not blocked[int(my), int(mx)]:
            ring = (far > 2 * RADIUS) & (far < 2.6 * RADIUS) & ~blocked
            steps.append(colours[far < RADIUS / 2].mean(0) - colours[ring].mean(0))
    return float(np.linalg.norm(np.mean(steps, axis=0))) if steps else 0.0
