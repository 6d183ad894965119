"""The layout of a picture in grey: contrast-preserving decolorisation, as Fooocus' CPDS ControlNet was trained on it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.conditioning.preprocess.levels import stretch_levels


def cpds(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the colours out of a picture so that what differs in colour differs in brightness.

    Args:
        image: (H, W, 3) RGB.

    Returns:
        (H, W) of 0 to 255.

    Source: Lu, Xu, Jia 2012, "Contrast Preserving Decolorization".
    """
    smooth = cv2.GaussianBlur(image, (0, 0), 0.8)
    grey, boosted = cv2.decolor(smooth)
    change = smooth.astype(np.float32) - boosted.astype(np.float32)
    density = grey.astype(np.float32) + np.sqrt((change**2).sum(axis=2))
    return stretch_levels(density, 4, 96)
