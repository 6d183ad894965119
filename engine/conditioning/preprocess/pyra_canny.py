"""Edges of a picture at several sizes at once, as Fooocus' PyraCanny ControlNet was trained on them."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.conditioning.preprocess.levels import stretch_levels

_COARSEST = 0.2
_FINER = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Sides as shares of the picture's."""
_KEPT = np.float32(0.75)
"""Share of the coarser sizes at each finer one."""


def pyra_canny(image: NDArray[np.uint8], low: int = 64, high: int = 128) -> NDArray[np.uint8]:
    """Draw the edges of a picture: strong ones that are seen at every size are white.

    Args:
        image: (H, W, 3) RGB.
        low: Gradient from which an edge goes on once it has begun, 1 to 255.
        high: Gradient from which an edge begins, 1 to 255.

    Returns:
        (H, W) of 0 to 255.

    Source: Canny 1986, "A Computational Approach to Edge Detection".
    """
    edges: NDArray[Any] = _edges(image, _COARSEST, low, high)
    for share in _FINER:
        found = _edges(image, share, low, high)
        coarser = cv2.resize(edges, found.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        edges = coarser * _KEPT + found * (1 - _KEPT)
    return stretch_levels(edges.sum(axis=2), 1, 99)


def _edges(image: NDArray[np.uint8], share: float, low: int, high: int) -> NDArray[np.float32]:
    """Find the edges of each channel at a share of the size, (h, w, 3) of 0 and 1."""
    height, width = image.shape[:2]
    size = (max(1, int(width * share)), max(1, int(height * share)))
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    channels = [cv2.Canny(channel, low, high) for channel in cv2.split(smaller)]
    return np.stack(channels, axis=2).astype(np.float32) / np.float32(255)
