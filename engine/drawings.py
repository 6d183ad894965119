"""What a ControlNet is shown of a picture, small, for people to look at: outlines, light and depth, poses. Imports no torch."""

import io
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import Any

from engine.errors import InvalidRequest, ModelIncompatible
from engine.image_inputs import DRAWN, FURTHER
from engine.partners import require_aux

SIDE = 512
"""Longest side of a drawing in pixels."""
FIELD = "type"
_one_at_a_time = Lock()


def draw_control(
    path: Path, kind: str, low: int = 64, high: int = 128, *, annotators: Path
) -> bytes:
    """Draw a picture's file as a PNG.

    Args:
        path: The file.
        kind: A type of image prompt that becomes a drawing.
        low: Of *PyraCanny*: gradient from which an edge goes on, 1 to 255.
        high: Of *PyraCanny*: gradient from which an edge begins, 1 to 255.
        annotators: Folder of the weights of what controlnet-aux draws.

    Raises:
        InvalidRequest: it is no picture, or there is no such kind.
        ModelNotFound: controlnet-aux, or a file of weights, is not there.
        ModelIncompatible: a file of weights is not what it should be.
    """
    from PIL import Image

    from engine.conditioning.preprocess.cpds import cpds
    from engine.conditioning.preprocess.pyra_canny import pyra_canny

    if kind not in DRAWN:
        raise InvalidRequest(FIELD, f"expected one of {', '.join(DRAWN)}, got {kind[:40]!r}")
    image = _small(path)
    if kind in FURTHER:
        require_aux(FIELD)
        drawn = _drawn_elsewhere(image, FURTHER[kind], annotators)
    else:
        drawn = pyra_canny(image, low, high) if kind == "PyraCanny" else cpds(image)
    target = io.BytesIO()
    Image.fromarray(drawn).save(target, "PNG")
    return target.getvalue()


def _small(path: Path) -> Any:
    """Read a picture's file, no larger than it is shown."""
    from engine.geometry import Size
    from engine.stages.pictures import read_picture
    from engine.stages.pixels import size_of, stretch, to_rgb

    pixels = to_rgb(read_picture(path, "picture"))
    own = size_of(pixels)
    scale = min(1, SIDE / max(own))
    return stretch(
        pixels, Size(max(1, round(own.width * scale)), max(1, round(own.height * scale)))
    )


def _drawn_elsewhere(image: Any, kind: str, annotators: Path) -> Any:
    """Draw in a process of its own, which takes torch and the weights with it when it ends."""
    with _one_at_a_time, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(_draw_further, image, kind, annotators).result()
        except BrokenProcessPool as error:
            raise ModelIncompatible(f"{FIELD}: the drawing of {kind} ended the process") from error


def _draw_further(image: Any, kind: str, annotators: Path) -> Any:
    from engine.conditioning.preprocess.further import load_preprocessor

    return load_preprocessor(kind, annotators, "cpu")(image)
