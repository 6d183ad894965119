"""Images that a request names: by one of our addresses, by an address on the web, or as a data URI.

What they claim to be counts for nothing: size, format and pixels are judged by their bytes, before they are decoded, and
then they are decoded once, so that a broken file is an error on its field and not of a job.
"""

import base64
import binascii
import io
import struct
import threading
import zlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from api.limits import Limits
from api.settings import Api
from engine import InvalidRequest
from engine.net import FetchError, TooLarge

SIGNATURES: Mapping[str, tuple[bytes, ...]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "WEBP": (b"RIFF",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
}
"""How the files of each format begin that is read, as Pillow calls it; of animations the first picture counts."""
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
DECODERS = 2
"""Images that are decoded at the same time; each takes up to four bytes a pixel."""
_DECODING: Final = threading.BoundedSemaphore(DECODERS)


class InputRefused(InvalidRequest):
    """What a field leads to cannot be used; has one of fal's own types of error."""

    kind = "invalid_request"

    def __init__(self, field: str, problem: str, kind: str, **facts: Any) -> None:
        super().__init__(field, problem)
        self.type = kind
        """As fal calls it, such as ``image_load_error``."""
        self.ctx = facts
        """What the rule is, in fal's words."""


def load_image(url: str, field: str, api: Api) -> bytes:
    """Get the file of an image, whole and fit to be decoded. Blocks: for threads only.

    Args:
        url: Where it is, or the image itself as a data URI.
        field: Dotted path of the field, for the error.
        api: Knows our files, the way out and the limits.

    Returns:
        The file as it is: PNG, JPEG, WebP, GIF or BMP, of at most `Limits.image_bytes` and `Limits.image_pixels`.

    Raises:
        InputRefused: it cannot be had, or is no such image.
    """
    data = _read(url, field, api)
    check_image(data, field, api.limits)
    return data


def check_image(data: bytes, field: str, limits: Limits) -> None:
    """Make sure that a file is an image that can be decoded within the limits.

    Raises:
        InputRefused: it is none.
    """
    if len(data) > limits.image_bytes:
        raise _too_many_bytes(field, limits)
    kind = format_of(data)
    if kind is None:
        problem = f"expected an image in one of {', '.join(ENDINGS)}, got another file"
        raise InputRefused(
            field, problem, "unsupported_image_format", supported_formats=list(ENDINGS)
        )
    _decode(data, kind, field, limits)


def format_of(data: bytes) -> str | None:
    """Say what format a file is of, by its first bytes; None for one that is not read."""
    for name, beginnings in SIGNATURES.items():
        if data.startswith(beginnings) and (name != "WEBP" or data[8:12] == b"WEBP"):
            return name
    return None


def _read(url: str, field: str, api: Api) -> bytes:
    limits = api.limits
    if url[:5].lower() == "data:":
        return _read_data_uri(url, field, limits)
    if (stored := api.files.find(url)) is not None:
        if stored.size > limits.image_bytes:
            raise _too_many_bytes(field, limits)
        try:
            return stored.path.read_bytes()
        except OSError as error:
            raise _not_had(field, "expected a file that is still there") from error
    if "://" not in url:
        raise _not_had(field, "expected an http or https address, or a data URI")
    try:
        return api.fetcher.get(
            url, max_bytes=limits.image_bytes, timeout_s=limits.download_s, accept="image/*"
        ).data
    except TooLarge as error:
        raise _too_many_bytes(field, limits) from error
    except FetchError as error:
        raise _not_had(field, str(error)) from error


def _read_data_uri(url: str, field: str, limits: Limits) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise InputRefused(field, "expected a data URI with a comma", "image_load_error")
    is_base64 = head.lower().endswith(";base64")
    longest = limits.image_bytes * (4 if is_base64 else 3)  # some write every byte as %xx
    if len(body) > longest:
        raise _too_many_bytes(field, limits)
    if not is_base64 or "%" in body:
        data = unquote_to_bytes(body)
    else:
        data = body.encode("utf-8", "replace")
    if not is_base64:
        return data
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error as error:
        raise InputRefused(
            field, "expected base64, got damaged text", "image_load_error"
        ) from error


def _decode(data: bytes, kind: str, field: str, limits: Limits) -> None:
    from PIL import Image

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    broken = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError)
    try:
        with _DECODING, Image.open(io.BytesIO(data), formats=[kind]) as image:
            _check_size(image.width, image.height, field, limits)
            if kind == "JPEG":
                image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
    except bombs as error:
        raise _too_many_pixels(field, limits) from error
    except InputRefused:
        raise
    except (*broken, KeyError, OverflowError, zlib.error) as error:
        problem = "expected an image that can be decoded, got a damaged one"
        raise InputRefused(field, problem, "image_load_error") from error


def _check_size(width: int, height: int, field: str, limits: Limits) -> None:
    if width < 1 or height < 1:
        problem = "expected an image with pixels, got none"
        raise InputRefused(field, problem, "image_too_small", min_width=1, min_height=1)
    if width * height > limits.image_pixels or max(width, height) > limits.image_side:
        raise _too_many_pixels(field, limits)


def _too_many_pixels(field: str, limits: Limits) -> InputRefused:
    side = limits.image_side
    problem = (
        f"expected at most {limits.image_pixels} pixels and {side} on a side, got a larger image"
    )
    return InputRefused(field, problem, "image_too_large", max_width=side, max_height=side)


def _too_many_bytes(field: str, limits: Limits) -> InputRefused:
    problem = f"expected at most {limits.image_bytes} bytes, got a larger file"
    return InputRefused(field, problem, "file_too_large", max_size=limits.image_bytes)


def _not_had(field: str, problem: str) -> InputRefused:
    return InputRefused(field, problem, "file_download_error")
