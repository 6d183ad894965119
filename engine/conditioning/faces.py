"""FaceSwap sees a face and little else: found, turned upright and cut out of its picture."""

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 512
"""Pixels along each side of a face that was cut out."""
_TEMPLATE = np.array(
    [
        (192.98138, 239.94708),
        (318.90277, 240.1936),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ],
    dtype=np.float32,
)
"""Where eyes, nose and the ends of the mouth come to lie, x and y, as face adapters were trained."""
_OUTSIDE = (132, 133, 135)
"""Red, green and blue of what lies outside the picture."""

FindLandmarks = Callable[[NDArray[np.uint8]], NDArray[np.float32] | None]
"""Gives eyes, nose and the ends of the mouth in an RGB picture, (5, 2) x and y in pixels; None where there is no face."""


class FaceCrop(NamedTuple):
    """What was made of a picture."""

    image: NDArray[np.uint8]
    """(512, 512, 3) with the face upright in it, or the whole picture where none was found."""
    found: bool
    """Whether a face was found."""


def crop_face(image: NDArray[np.uint8], detector: FindLandmarks) -> FaceCrop:
    """Cut the clearest face out of a picture.

    Args:
        image: (H, W, 3) RGB.
        detector: For example a `FaceDetector` of `engine.conditioning.retinaface`.
    """
    landmarks = detector(image)
    aligned = None if landmarks is None else align_face(image, landmarks)
    return FaceCrop(image, found=False) if aligned is None else FaceCrop(aligned, found=True)


def align_face(
    image: NDArray[np.uint8], landmarks: NDArray[np.float32]
) -> NDArray[np.uint8] | None:
    """Turn, scale and shift a picture so that the landmarks of a face come to lie where adapters expect them.

    Args:
        image: (H, W, 3) RGB.
        landmarks: (5, 2), x and y in pixels.

    Returns:
        (512, 512, 3); None where the landmarks do not belong to a face, such as five times the same point.
    """
    matrix: Any
    matrix, _ = cv2.estimateAffinePartial2D(landmarks, _TEMPLATE, method=cv2.LMEDS)
    if matrix is None:
        return None
    aligned = cv2.warpAffine(
        image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=_OUTSIDE
    )
    return np.asarray(aligned, dtype=np.uint8)
