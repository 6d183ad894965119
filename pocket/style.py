"""Drawing styles from a few measures of the surface: a small linear classifier, fitted once.

It is fitted when first used, on true drawings that were blurred and made noisy as an autoencoder
does, so its numbers are nowhere stored and cannot go stale.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pocket.draw import draw
from pocket.world import STYLES, seen_scenes

Field = NDArray[np.float64]

_SAMPLES = 400
_PENALTY = 0.03


def _expand(features: Field) -> Field:
    """Features, bounded, with their squares and products."""
    f = np.clip(features, -1.5, 1.5)
    upper = np.triu_indices(f.shape[-1])
    products = (f[..., :, None] * f[..., None, :])[..., upper[0], upper[1]]
    return np.concatenate([np.ones_like(f[..., :1]), f, products], axis=-1)


def _worsen(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur and noise of the size that autoencoder and sampling leave."""
    from scipy import ndimage

    blurred = ndimage.gaussian_filter(picture.astype(np.float64), (*(rng.uniform(0, 1.6),) * 2, 0))
    grain = ndimage.gaussian_filter(rng.normal(0, 1, picture.shape), (1.2, 1.2, 0)) * rng.uniform(
        0, 22
    )
    return np.asarray((blurred + grain).clip(0, 255), np.uint8)


@cache
def _weights() -> Field:
    """(expanded features, styles) least squares towards one-hot answers."""
    from pocket.score import features, object_mask

    rng = np.random.default_rng(3)
    source = seen_scenes(rng)
    scenes = [
        s for s, _ in zip((s for s in source if s.size != "small"), range(_SAMPLES), strict=False)
    ]
    rows, answers = [], []
    for scene, picture in zip(scenes, draw(scenes, rng), strict=True):
        worse = _worsen(picture, rng)
        mask = object_mask(worse)
        if mask.sum() > 200:
            rows.append(features(worse, mask))
            answers.append(STYLES.index(scene.style))
    x = _expand(np.stack(rows))
    y = np.eye(len(STYLES))[answers]
    ridge = _PENALTY * len(x) / 100 * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(x.T @ x + ridge, x.T @ y))


def read_style(features: Field) -> str:
    """The style whose score is highest."""
    return STYLES[int((_expand(features) @ _weights()).argmax())]
