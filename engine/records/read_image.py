"""Where in a picture's file a record stands: text chunks in PNG, EXIF in JPEG and WebP.

Source: golden/metadata; EXIF 2.32, UserComment; A1111's habit of UTF-16.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidRequest
from engine.records.detect import RecordKind, detect
from engine.records.literals import MAX_TEXT
from engine.requests import MetadataScheme, OutputFormat

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

KEY = "pochade"
"""PNG chunk of the studio's own record."""
_PARAMETERS = "parameters"
_SCHEME = "fooocus_scheme"
_SOFTWARE_TAG, _EXIF_IFD, _MAKER_NOTE, _USER_COMMENT = 0x0131, 0x8769, 0x927C, 0x9286
_ASCII, _UNICODE = b"ASCII\0\0\0", b"UNICODE\0"
_ENCODINGS = {_ASCII: "utf-8", b"\0" * 8: "utf-8", b"JIS\0\0\0\0\0": "iso2022_jp"}
"""First eight bytes of a comment to the encoding of the others; programs write UTF-8 where they say ASCII."""
MAX_EXIF = 65_000
"""Bytes that EXIF can hold in a JPEG."""
_OTHERS: Mapping[str, str] = {
    "workflow": "ComfyUI",
    "invokeai_metadata": "InvokeAI",
    "invokeai_graph": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "Dream": "InvokeAI",
}
"""PNG chunk to the program that writes it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A record in a picture."""

    kind: RecordKind
    text: str


def read_text(image: "Image.Image") -> Found | None:
    """Find the record in a picture; None when there is none.

    Raises:
        InvalidRequest: there is one of a program whose records mean nothing here.
    """
    chunks = _chunks(image)
    if KEY in chunks:
        return _found(chunks[KEY], "pochade")
    if _PARAMETERS in chunks:
        return _found(chunks[_PARAMETERS], chunks.get(_SCHEME))
    exif = image.getexif()
    scheme = exif.get(_MAKER_NOTE)
    comments = (exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT), exif.get(_USER_COMMENT))
    for text in filter(None, map(_comment, comments)):
        kind = scheme if scheme in ("fooocus", "a1111") else detect(text)
        if kind is not None:  # cameras write comments too
            return _found(text, kind)
    _refuse_others(chunks)
    return None


def embed(
    text: str, scheme: MetadataScheme, output_format: OutputFormat, software: str
) -> dict[str, Any]:
    """Make the options of `PIL.Image.Image.save` that put a record into a file.

    Args:
        text: The record.
        scheme: Its form.
        output_format: The file's.
        software: Program and version.

    Returns:
        ``pnginfo`` or ``exif``. A record that EXIF cannot hold is left out, with a line in the log.
    """
    if output_format == "png":
        return {"pnginfo": _png_info(text, scheme, software)}
    return {"exif": _exif(text, scheme, software)}


def _png_info(text: str, scheme: MetadataScheme, software: str) -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if scheme == "pochade":
        info.add_itxt(KEY, text)
        info.add_text("Software", software)
    else:
        info.add_text(_PARAMETERS, text)
        info.add_text(_SCHEME, scheme)
    return info


def _exif(text: str, scheme: MetadataScheme, software: str) -> Any:
    """Place a record where its readers look.

    Fooocus reads the main directory, which holds ASCII only; A1111 reads the comment, in UTF-16; we read both.
    """
    from PIL import Image

    exif = Image.Exif()
    exif[_SOFTWARE_TAG] = software
    room = MAX_EXIF
    comment = _user_comment(text, scheme)
    if comment and len(comment) <= room:
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment
        room -= len(comment)
    if scheme != "pochade" and len(text) <= room:
        exif[_USER_COMMENT] = text
        exif[_MAKER_NOTE] = scheme
    elif room == MAX_EXIF:
        log.warning("the prompt is too long to go into the file; a PNG would hold it")
    return exif


def _user_comment(text: str, scheme: MetadataScheme) -> bytes:
    match scheme:
        case "pochade":
            return _ASCII + text.encode("utf-8")
        case "a1111":
            return _UNICODE + text.encode("utf-16-be")
        case "fooocus":
            return b""


def _chunks(image: "Image.Image") -> Mapping[str, str]:
    texts: Mapping[Any, object] = getattr(image, "text", None) or image.info
    return {str(key): str(value) for key, value in texts.items() if isinstance(value, str)}


def _found(text: str, scheme: str | None) -> Found | None:
    """Name a record's kind: what its file says, else what it looks like; any other text is A1111's prompt."""
    if len(text) > MAX_TEXT:
        return None
    match scheme:
        case "pochade" | "fooocus" | "a1111":
            return Found(scheme, text)
        case _:
            return Found(detect(text) or "a1111", text)


def _comment(value: object) -> str:
    """Decode an EXIF comment: eight bytes name its encoding, where a program cared to write them."""
    if isinstance(value, str):
        return value.strip("\0 ")
    if not isinstance(value, bytes) or len(value) > 4 * MAX_TEXT:
        return ""
    prefix, body = value[:8], value[8:]
    if prefix == _UNICODE:
        text = _utf_16(body)
    elif prefix in _ENCODINGS:
        text = body.decode(_ENCODINGS[prefix], errors="replace")
    else:
        text = value.decode("utf-8", errors="replace")
    return text.strip("\0 ")


def _utf_16(body: bytes) -> str:
    """Decode UTF-16 whose byte order is not told: in prompts, of every two bytes the higher one is mostly zero."""
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", errors="replace")
    is_little = body[1::2].count(0) > body[0::2].count(0)
    return body.decode("utf-16-le" if is_little else "utf-16-be", errors="replace")


def _refuse_others(chunks: Mapping[str, str]) -> None:
    other = next((name for key, name in _OTHERS.items() if key in chunks), None)
    if other is None and chunks.get("Software") == "NovelAI":
        other = "NovelAI"
    if other is None and _is_graph(chunks.get("prompt", "")):
        other = "ComfyUI"
    if other is not None:
        raise InvalidRequest(
            "metadata", f"expected settings of Fooocus, A1111 or Pochade, got a file of {other}"
        )


def _is_graph(text: str) -> bool:
    """Whether a text is a graph of nodes, as ComfyUI writes it."""
    if not text.startswith("{") or len(text) > MAX_TEXT:
        return False
    try:
        nodes = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(nodes, dict) and any(
        isinstance(node, dict) and "class_type" in node for node in nodes.values()
    )
