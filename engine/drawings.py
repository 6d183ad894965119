"""What a ControlNet is shown of a picture, small, for people to look at: outlines, or light and depth. Imports no torch."""

import io
from pathlib import Path

from engine.errors import InvalidRequest

SIDE = 512
"""Longest side of a drawing in pixels."""
KINDS = ("PyraCanny", "CPDS")


def draw_control(path: Path, kind: str, low: int = 64, high: int = 128) -> bytes:
    """Draw a picture's file as a PNG.

    Args:
        path: The file.
        kind: One of `KINDS`.
        low: Of *PyraCanny*: gradient from which an edge goes on, 1 to 255.
        high: Of *PyraCanny*: gradient from which an edge begins, 1 to 255.

    Raises:
        InvalidRequest: it is no picture, or there is no such kind.
    """
    from PIL import Image

    from engine.conditioning.preprocess.cpds import cpds
    from engine.conditioning.preprocess.pyra_canny import pyra_canny
    from engine.geometry import Size
    from engine.stages.pictures import read_picture
    from engine.stages.pixels import size_of, stretch, to_rgb

    if kind not in KINDS:
        raise InvalidRequest("type", f"expected one of {', '.join(KINDS)}, got {kind[:40]!r}")
    pixels = to_rgb(read_picture(path, "picture"))
    own = size_of(pixels)
    scale = min(1, SIDE / max(own))
    size = Size(max(1, round(own.width * scale)), max(1, round(own.height * scale)))
    image = stretch(pixels, size)
    drawn = pyra_canny(image, low, high) if kind == "PyraCanny" else cpds(image)
    target = io.BytesIO()
    Image.fromarray(drawn).save(target, "PNG")
    return target.getvalue()
