"""Small copies of finished pictures, made once and kept in memory."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

SIDE = 512
"""Longest side in pixels: sharp on a doubly dense screen at the size that History shows."""
MAX_BYTES = 64 * 2**20
"""Memory that all thumbnails together may take; at about 20 kB each that is some three thousand."""


class Thumbnails:
    """A store of WebP files by the id of what they show; the least recently wanted go first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def of(self, image_id: str, make: Callable[[], bytes]) -> bytes:
        """Find a thumbnail, or make it; what `make` raises goes on."""
        with self._lock:
            if image_id in self._kept:
                self._kept.move_to_end(image_id)
                return self._kept[image_id]
        data = make()
        with self._lock:
            if image_id not in self._kept:
                self._kept[image_id] = data
                self._size += len(data)
            while self._size > MAX_BYTES:
                self._size -= len(self._kept.popitem(last=False)[1])
        return data


def shrink(path: Path) -> bytes:
    """Write a picture's file as a thumbnail, without its metadata.

    Raises:
        OSError: it is gone or is no picture.
    """
    from PIL import Image

    with Image.open(path) as picture:
        picture.draft("RGB", (SIDE, SIDE))
        return as_thumbnail(picture.convert("RGB"))


def as_thumbnail(small: "Image.Image") -> bytes:
    """Write a picture, which is made small, as a WebP file of at most `SIDE` pixels a side."""
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=82, method=2)
    return file.getvalue()
