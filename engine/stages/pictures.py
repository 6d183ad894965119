"""From the file of a picture, as people send it, to pixels: upright, eight bits a channel.

Reads what Pillow reads of PNG, JPEG, WebP, GIF and BMP; of animations the first picture counts.
"""

import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import InvalidRequest
from engine.stages.pixels import Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000
"""Largest picture that is read, 8000 x 8000."""
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    KeyError,
    TypeError,
)
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey with 16 bits."""


def read_picture(path: Path, field: str) -> Pixels:
    """Read a picture.

    Args:
        path: Its file.
        field: The request's field that named it, for the message.

    Returns:
        (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, turned upright where the file says so.

    Raises:
        InvalidRequest: it is no picture, a damaged one, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of harmless oddities in other people's files
            with Image.open(path, formats=FORMATS) as image:
                _require_room(image, field)
                return np.array(_plain(ImageOps.exif_transpose(image)))
    except FileNotFoundError as error:
        raise InvalidRequest(field, "expected a picture that is sent along, got none") from error
    except UnidentifiedImageError as error:
        problem = f"expected a picture in one of {', '.join(FORMATS)}, got another file"
        raise InvalidRequest(field, problem) from error
    except Image.DecompressionBombError as error:
        raise InvalidRequest(field, _too_large("a larger one")) from error
    except _BROKEN as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidRequest(field, f"expected a picture that can be read, got {found}") from error


def sent_along(pictures: Mapping[str, Path], name: str, field: str) -> Path:
    """Find the file of a picture among those that came with a job.

    Raises:
        InvalidRequest: it did not come; `field` named it.
    """
    try:
        return pictures[name]
    except KeyError:
        problem = f"expected a picture that is sent along, got {name[:12]}..."
        raise InvalidRequest(field, problem) from None


def _require_room(image: Image.Image, field: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise InvalidRequest(field, _too_large(f"{image.width}x{image.height}"))


def _too_large(found: str) -> str:
    return f"expected at most {MAX_PIXELS} pixels, got {found}"


def _plain(image: Image.Image) -> Image.Image:
    """Bring all modes to grey, RGB or RGBA with eight bits."""
    if image.mode in _DEEP:
        return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("L", "RGB", "RGBA"):
        return image
    if image.mode in ("1", "F"):
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
