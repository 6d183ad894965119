"""From a picture or a text that somebody dropped or pasted to values for the form.

A picture is never decoded: its file is read as far as its record goes. Nothing that is read is evaluated.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine import Checkpoint, EngineError, InvalidRequest, Library, plan_from_json, request_of
from engine.prompt.styles import find_style
from engine.records.detect import RecordKind, detect
from engine.records.read_image import Found, read_text
from engine.records.to_request import settings_from
from engine.references import Reference, find_weights
from ui.form import flat

FORMATS = ("PNG", "JPEG", "WEBP")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TOLD = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
"""PNG chunks that say something about the picture."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Settings that were found."""

    kind: RecordKind
    fields: Mapping[str, Any]
    """Values by dotted field name; what the record leaves open is not there."""
    notes: tuple[str, ...]
    """A sentence for each thing that was left out."""


def read_picture(data: bytes, library: Library) -> Dropped | None:
    """Read the settings in a picture's file; None when it has none.

    Raises:
        InvalidRequest: it is no PNG, JPEG or WebP, or its settings mean nothing here.
    """
    found = _record(data)
    return None if found is None else _settings(found.kind, found.text, library)


def read_pasted(text: str, library: Library) -> Dropped | None:
    """Read a text of settings; None for every other text.

    Raises:
        InvalidRequest: it is one of our own that this version cannot read.
    """
    kind = detect(text)
    return None if kind is None else _settings(kind, text, library)


def _record(data: bytes) -> Found | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(_without_pixels(data)), formats=FORMATS) as image:
            return read_text(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError) as error:
        expected = "expected a PNG, JPEG or WebP file that can be read"
        raise InvalidRequest("picture", expected) from error
    except (SyntaxError, struct.error) as error:  # Pillow's words for a file that is broken
        raise InvalidRequest("picture", "expected a file that is whole") from error


def _without_pixels(data: bytes) -> bytes:
    """Put what a PNG says about itself on a picture of one pixel: Pillow decodes a PNG to find texts after its pixels."""
    if not data.startswith(_SIGNATURE):
        return data
    told = (chunk for name, chunk in _chunks(data) if name in _TOLD)
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = _chunk(b"IDAT", zlib.compress(b"\0\0"))
    return b"".join([_SIGNATURE, head, *told, pixel, _chunk(b"IEND", b"")])


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Walk the chunks of a PNG: name, and the chunk as it lies in the file; ends where the file is cut off."""
    place = len(_SIGNATURE)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 12 + length
        if end > len(data):
            return
        yield data[place + 4 : place + 8], data[place:end]
        place = end


def _chunk(name: bytes, content: bytes) -> bytes:
    length, check = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(name + content))
    return length + name + content + check


def _settings(kind: RecordKind, text: str, library: Library) -> Dropped:
    if kind == "pochade":
        fields, notes = _own(text, library)
    else:
        fields, notes = settings_from(kind, text, library.catalog, library.styles)
    return Dropped(kind, dict(flat(fields)), tuple(notes))


def _own(text: str, library: Library) -> tuple[dict[str, Any], list[str]]:
    """Read a plan; what it names and is neither here nor to be fetched is left out."""
    try:
        request = request_of(plan_from_json(text))
    except ValueError as error:
        problem = "its settings were written by a version that this one cannot read"
        raise InvalidRequest("picture", problem) from error
    catalog, notes = library.catalog, list[str]()
    keep = _Keeper(notes)
    more = request["advanced"]
    is_studio = request["studio"] is not None
    find_base = partial(_find_base, library) if is_studio else catalog.checkpoint
    for values, name, find in (
        (more, "base_model", find_base),
        (request, "refiner_model", catalog.checkpoint),
        (more, "vae", catalog.vae),
    ):
        if values[name] is not None and not keep.is_there(find, values[name]):
            del values[name]
    request["loras"] = [it for it in request["loras"] if keep.is_there(catalog.lora, it["path"])]
    known = tuple(library.styles)
    request["styles"] = [
        it for it in request["styles"] if keep.is_there(lambda name: find_style(name, known), it)
    ]
    return request, notes


def _find_base(library: Library, name: str) -> Checkpoint:
    """Find a base model that the LoRA studio may also fetch."""
    reference = Reference(path=name)
    return find_weights(library.catalog, "checkpoint", reference, "base_model", library.may_fetch)


@dataclass(frozen=True, slots=True)
class _Keeper:
    """Says what is there, and notes what is not."""

    notes: list[str]

    def is_there(self, find: Callable[[str], object], name: str) -> bool:
        try:
            find(name)
        except EngineError:
            self.notes.append(f"{name[:80]} is not installed and was left out")
            return False
        return True
