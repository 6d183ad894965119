"""Drawings for other ControlNets by the detectors of controlnet-aux: depth, normals, poses, edges and lines.

The library is no requirement: it is imported when a detector is asked for. Its weights lie in one folder, under the names
that `lllyasviel/Annotators` on the hub gives them.
"""

import importlib
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.hashes import sha256_of

URL = "https://huggingface.co/lllyasviel/Annotators/resolve/main/"
"""Where the weights come from."""
_REMEDY = "install it beside PyTorch's own torchvision: pip install 'controlnet-aux>=0.0.10,<0.1'"
_SHORTEST = 64
"""Pixels of a picture's shorter side as the detectors see it, at least: they work on multiples of that."""

Draw = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Makes a drawing (H, W, 3) of an RGB picture (H, W, 3)."""


@dataclass(frozen=True)
class Detector:
    """What draws one kind of drawing."""

    name: str
    """Of the class in controlnet-aux."""
    files: Mapping[str, str]
    """Names of its weights, and their sha256."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What it is told at each picture."""


_HED = {"ControlNetHED.pth": "5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa"}

DETECTORS: Mapping[str, Detector] = {
    "depth": Detector(
        "MidasDetector",
        {
            "dpt_hybrid-midas-501f0c75.pt": "501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853"
        },
    ),
    "normal": Detector(
        "NormalBaeDetector",
        {"scannet.pt": "03dbf1600c51ee3d45c29f77b77bf1a3b7a24c3452dba62a4ae658f37330c209"},
    ),
    "pose": Detector(
        "OpenposeDetector",
        {
            "body_pose_model.pth": "25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746",
            "hand_pose_model.pth": "b76b00d1750901abd07b9f9d8c98cc3385b8fe834a26d4b4f0aad439e75fc600",
            "facenet.pth": "8beb52e548624ffcc4aed12af7aee7dcbfaeea420c75609fee999fe7add79d43",
        },
    ),
    "soft_edge": Detector("HEDdetector", _HED),
    "scribble": Detector("HEDdetector", _HED, {"scribble": True}),
    "lineart": Detector(
        "LineartDetector",
        {
            "sk_model.pth": "c686ced2a666b4850b4bb6ccf0748031c3eda9f822de73a34b8979970d90f0c6",
            "sk_model2.pth": "30a534781061f34e83bb9406b4335da4ff2616c95d22a585c1245aa8363e74e0",
        },
    ),
    "straight_lines": Detector(
        "MLSDdetector",
        {
            "mlsd_large_512_fp32.pth": "5696f168eb2c30d4374bbfd45436f7415bb4d88da29bea97eea0101520fba082"
        },
    ),
}
"""By kind of drawing, named as the kinds of ControlNet Union are."""


def load_preprocessor(
    kind: str, folder: Path, device: torch.device | str, *, allow_pickle: bool = False
) -> Draw:
    """Bring what draws one kind of drawing into memory.

    Args:
        kind: A key of `DETECTORS`.
        folder: Of the weights.
        device: Where it works.
        allow_pickle: Whether weights may be read whose hash is not known; none of these files is anything but pickled.

    Raises:
        ModelNotFound: controlnet-aux or a file of weights is not there; the message says what to do.
        ModelIncompatible: weights are not known and not allowed, or broken, or the library cannot be imported.
    """
    detector = DETECTORS[kind]
    for name, sha256 in detector.files.items():
        _require(kind, folder / name, sha256, allow_pickle=allow_pickle)
    made = _loaded(detector, folder).to(device)

    def draw(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        side = max(_SHORTEST, min(height, width))
        with torch.inference_mode():
            drawn = made(
                image,
                detect_resolution=side,
                image_resolution=side,
                output_type="np",
                **detector.options,
            )
        resized = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, dtype=np.uint8)

    return draw


def _require(kind: str, path: Path, sha256: str, *, allow_pickle: bool) -> None:
    if not path.is_file():
        raise ModelNotFound(
            f"{kind}: expected {path.name} in {path.parent}, found none; fetch it from {URL}{path.name}"
        )
    if not allow_pickle and sha256_of(path) != sha256:
        raise ModelIncompatible(
            f"{path.name}: expected a file whose hash is known, got another pickled one, which may carry code; "
            "start with --allow-pickle if you trust it"
        )


def _loaded(detector: Detector, folder: Path) -> Any:
    """Make a detector and read its weights, which torch reads without running what they may carry."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library = importlib.import_module("controlnet_aux")
    except ImportError as error:
        raise ModelNotFound(f"controlnet-aux is not there ({error}); {_REMEDY}") from error
    except RuntimeError as error:  # a torchvision for another torch
        raise ModelIncompatible(
            f"controlnet-aux cannot be imported ({error}); {_REMEDY}"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(library, detector.name).from_pretrained(str(folder))
    except (RuntimeError, pickle.UnpicklingError, KeyError, TypeError, EOFError) as error:
        names = ", ".join(detector.files)
        raise ModelIncompatible(
            f"{names}: expected the weights of {detector.name}, got: {error}"
        ) from error
