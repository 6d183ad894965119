"""Pictures that a visitor brings: sent once, as the file that it is, and kept by the hash of its bytes.

A file is judged by its head, never by its name or type, and decoded by nobody here. A visitor's files are as unknown to
others as those that were never sent. What a job needs it copies, so whatever is old may go.
"""

import contextlib
import hashlib
import io
import math
import os
import re
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engine import InvalidRequest
from jobs import StorageFailed
from jobs.files import write_whole

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
"""What is taken, as Pillow calls it; of animations the first picture counts."""
MAX_BYTES = 50 * 2**20
"""Largest file in bytes."""
MAX_PIXELS = 50_000_000
"""Most pixels of a picture, width times height."""
MAX_SIDE = 16_384
"""Longest side of a picture in pixels."""
MAX_KEPT = 2**30
"""Bytes that the files of one visitor may take together; of more, those that were longest not used go."""
KEPT_S = 14 * 24 * 3600
"""Seconds after which a file goes that nobody used."""
SWEEP_S = 3600.0
"""How often what is old of visitors who bring nothing any more is looked for, in seconds."""
_NAME = re.compile(r"[0-9a-f]{64}")
_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Values of the EXIF orientation that swap width and height."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that is here."""

    name: str
    """The hash of its file."""
    path: Path
    media_type: str
    width: int
    """In pixels, upright: EXIF rotation is taken into account."""
    height: int


class Uploads:
    """The pictures of all visitors, in a folder for each. Safe to use from any thread."""

    def __init__(self, folder: Path, most: int = MAX_KEPT) -> None:
        """Keep them in a folder.

        Args:
            folder: Made when the first picture comes.
            most: Bytes that the files of one visitor may take together.
        """
        self._folder = folder
        self._most = most
        self._swept_at = -math.inf

    def save(self, data: bytes, owner: str) -> Upload:
        """Keep a picture's file.

        Raises:
            InvalidRequest: it is no PNG, JPEG, WebP, GIF or BMP, or too large.
            StorageFailed: it cannot be written.
        """
        if len(data) > MAX_BYTES:
            problem = f"expected a file of at most {MAX_BYTES // 2**20} MB"
            raise InvalidRequest("picture", problem)
        facts = _look(io.BytesIO(data))
        self._sweep_if_due()
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name, owner)
        try:
            if not path.exists():
                _make_room(path.parent, self._most - len(data))
                write_whole(path, data)
        except OSError as error:
            raise StorageFailed(
                f"picture: the folder cannot be written ({error.strerror})"
            ) from error
        return Upload(name, path, *facts)

    def find(self, name: object, owner: str, field: str = "picture") -> Upload:
        """Find a picture of this visitor, and keep it for longer.

        Raises:
            InvalidRequest: there is none of that name; `field` is what asked for it.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidRequest(field, "expected the name of a picture that was sent here")
        path = self._path(name, owner)
        try:
            os.utime(path)
            with path.open("rb") as file:
                return Upload(name, path, *_look(file))
        except FileNotFoundError as error:
            raise InvalidRequest(
                field, "expected a picture that is still here; choose it again"
            ) from error

    def _sweep_if_due(self) -> None:
        """Remove what is old of all visitors: browsers of a Space and people who were removed do not come again."""
        now = time.monotonic()
        if now - self._swept_at < SWEEP_S:
            return
        self._swept_at = now
        with contextlib.suppress(OSError):
            for folder in self._folder.iterdir():
                _make_room(folder, self._most)

    def _path(self, name: str, owner: str) -> Path:
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32] / name


def media_type_of(path: Path) -> str | None:
    """Say what a picture's file is; None where it is none that is taken."""
    try:
        with path.open("rb") as file:
            return _look(file)[0]
    except (OSError, InvalidRequest):
        return None


def _look(file: IO[bytes]) -> tuple[str, int, int]:
    """Read the head of a picture's file: its type, width and height."""
    from PIL import Image

    broken = (UnicodeError, SyntaxError, ValueError, EOFError, struct.error, KeyError, TypeError)
    try:
        with Image.open(file, formats=list(MEDIA_TYPES)) as image:
            width, height = image.size
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
            media_type = MEDIA_TYPES[image.format or ""]
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("a larger one") from error
    except (OSError, IndexError, OverflowError, *broken) as error:
        kinds = "PNG, JPEG, WebP, GIF or BMP"
        raise InvalidRequest("picture", f"expected a {kinds} file that can be read") from error
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise _too_many_pixels(f"{width}x{height}")
    if exif.get(_ORIENTATION) in _ON_ITS_SIDE:
        width, height = height, width
    return media_type, width, height


def _make_room(folder: Path, most: int) -> None:
    """Remove what is old, and what was longest not used where all together takes more than `most` bytes."""
    files = sorted(((it.stat(), it) for it in folder.glob("*")), key=lambda it: it[0].st_mtime)
    total = sum(facts.st_size for facts, _ in files)
    oldest = time.time() - KEPT_S
    for facts, path in files:
        if total <= most and facts.st_mtime >= oldest:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            total -= facts.st_size


def _too_many_pixels(got: str) -> InvalidRequest:
    rule = f"expected at most {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE} pixels a side"
    return InvalidRequest("picture", f"{rule}, got {got}")
