"""Faces, as adapters of faces are shown them: what tells one from others, and its picture brought upright.

Read by insightface where that is installed, with a pack of models of the owner's; the packs' licences are their own.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.checkpoints import reading

LIBRARIES = ("insightface", "onnxruntime")
CROP = 224
"""Pixels along each side of a face's picture."""
_SEARCHED = (640, 640)
"""Size at which faces are searched for."""
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


@dataclass(frozen=True, eq=False, slots=True)
class FoundFace:
    """A face in a picture."""

    vector: NDArray[np.float32]
    """(512,), of any length."""
    crop: NDArray[np.uint8]
    """(CROP, CROP, 3) RGB: eyes and mouth where they always are."""


FaceReader = Callable[[NDArray[np.uint8]], FoundFace | None]
"""Reads the largest face of a picture, (H, W, 3) RGB; None where there is none."""


def load_face_reader(folder: Path, field: str) -> FaceReader:
    """Load a pack of insightface's models, such as buffalo_l.

    Args:
        folder: With the ``.onnx`` files of a detector and of what tells faces apart.
        field: The request's field that asked for it, for messages.

    Raises:
        ModelNotFound: insightface is not installed; the message begins with `field`.
        ModelIncompatible: the folder holds no such pack.
    """
    for library in LIBRARIES:
        if importlib.util.find_spec(library) is None:
            problem = f"expected {library}, which reads faces, got none"
            raise ModelNotFound(f"{field}: {problem}: pip install {' '.join(LIBRARIES)}")
    if not folder.is_dir():
        raise ModelIncompatible(f"{folder.name}: expected a folder of face models, got a file")
    analysis: Any = importlib.import_module("insightface.app").FaceAnalysis
    align: Any = importlib.import_module("insightface.utils.face_align")
    runtime: Any = importlib.import_module("onnxruntime")
    there = [name for name in _PROVIDERS if name in runtime.get_available_providers()]
    with reading(folder.name):
        # A name that is a whole path is taken as the folder, and nothing is fetched.
        pack = analysis(
            name=str(folder.absolute()),
            allowed_modules=["detection", "recognition"],
            providers=there,
        )
        if "recognition" not in pack.models:
            raise ModelIncompatible(f"{folder.name}: expected a model that tells faces apart")
        pack.prepare(ctx_id=0, det_size=_SEARCHED)

    def read(image: NDArray[np.uint8]) -> FoundFace | None:
        flipped = np.ascontiguousarray(image[..., ::-1])  # the models know blue, green, red
        faces = pack.get(flipped)
        if not faces:
            return None
        face = max(faces, key=lambda face: _area(face.bbox))
        crop = align.norm_crop(flipped, landmark=face.kps, image_size=CROP)
        return FoundFace(
            np.asarray(face.embedding, np.float32), np.ascontiguousarray(crop[..., ::-1])
        )

    return read


def _area(box: NDArray[np.float32]) -> float:
    """Give the area of (left, top, right, bottom)."""
    return float((box[2] - box[0]) * (box[3] - box[1]))
