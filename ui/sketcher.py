"""The mask sketcher as a part of the page: a picture, and what of it shall be painted anew.

The browser draws it and sends picture and mask as files; what the part holds is a small JSON text that names them. The
mask is a PNG of one bit a pixel, white is painted anew, in the upright picture's shape but at most `MASK_SIDE` on its
longest side. Knows nothing of what is done with it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from engine import InvalidRequest
from ui.image_input import MAX_BYTES, MAX_PIXELS, MAX_SIDE, Upload, Uploads
from ui.theme import island

MASK_SIDE = 2048
"""Longest side of a mask in pixels; a larger picture's mask is drawn and sent so much smaller."""
IMAGE_FIELD = "inpaint_image_url"
MASK_FIELD = "mask_image_url"


@dataclass(frozen=True, slots=True)
class Sketch:
    """What a visitor gave to change."""

    image: Upload
    """The file as it was chosen; its EXIF rotation is yet to be applied."""
    mask: Upload | None
    """White is painted anew; of the upright picture's shape, and perhaps smaller. None where nothing is painted."""

    def paths(self) -> dict[str, Path]:
        """Say where the files are, by the name of the request's field."""
        masks = {} if self.mask is None else {MASK_FIELD: self.mask.path}
        return {IMAGE_FIELD: self.image.path, **masks}


def sketcher(elem_id: str, *, submits: Sequence[str] = ("generate",)) -> gr.HTML:
    """Make the part; its value is for `read_sketch`.

    It stands for no field that the browser remembers with the form: it keeps its picture and mask by itself.

    Args:
        elem_id: Name of the part, by which ``pochadeSketcher.load(url, elem_id)`` finds it.
        submits: Buttons, by their `elem_id`, that wait until all that was painted has been sent.
    """
    facts = {
        "id": elem_id,
        "submits": list(submits),
        "side": MASK_SIDE,
        "most": {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "side": MAX_SIDE},
    }
    return island(
        "sketcher.js", elem_id, value="", label="Picture", classes=("part", "sketch"), facts=facts
    )


def read_sketch(value: object, uploads: Uploads, owner: str) -> Sketch | None:
    """Find the files that the part's value names; None where no picture was chosen.

    Raises:
        InvalidRequest: it is no such value, or a file is not here any more.
    """
    if value in (None, ""):
        return None
    try:
        named = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        named = None
    if not isinstance(named, dict):
        raise InvalidRequest(IMAGE_FIELD, "expected what the sketcher holds")
    mask = named.get("mask")
    return Sketch(
        image=uploads.find(named.get("image"), owner, IMAGE_FIELD),
        mask=None if mask is None else uploads.find(mask, owner, MASK_FIELD),
    )


def write_sketch(image: Upload, mask: Upload | None = None, *, is_late: bool = False) -> str:
    """Write a value that makes the part show this picture and mask; for an event's answer.

    Where the picture is the one that is shown already, the mask replaces the painted one, which *undo* brings back.

    Args:
        image: The picture.
        mask: What of it is painted anew.
        is_late: Whether somebody may have chosen another picture since, which stays then.
    """
    show = "mask" if is_late else "all"
    return json.dumps(
        {"image": image.name, "mask": None if mask is None else mask.name, "show": show}
    )
