"""Stretching values to the full range of a picture."""

import numpy as np
from numpy.typing import NDArray


def stretch_levels(values: NDArray[np.float32], lowest: float, highest: float) -> NDArray[np.uint8]:
    """Stretch values so that two percentiles become 0 and 255; what lies beyond is cut off.

    Args:
        values: (H, W) of any range.
        lowest: Percentile that becomes 0, of 0 to 100.
        highest: Percentile that becomes 255.

    Returns:
        (H, W); fractions are cut off. Where both percentiles are one value, what is above it is 255.
    """
    bottom, top = np.percentile(values, [lowest, highest])
    above = values.astype(np.float32) - np.float32(bottom)
    if top == bottom:
        return np.where(above > 0, 255, 0).astype(np.uint8)
    scaled = above / np.float32(top - bottom) * np.float32(255)
    return scaled.clip(0, 255).astype(np.uint8)
