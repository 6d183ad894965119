"""Small copies of finished pictures, made once and kept in memory."""

import io
import threading
from collections import OrderedDict
from pathlib import Path

SIDE = 512
"""Longest side in pixels: sharp on a doubly dense screen at the size that History shows."""
MAX_BYTES = 64 * 2**20
"""Memory that all thumbnails together may take; at about 20 kB each that is some three thousand."""


class Thumbnails:
    """A store of WebP files by picture id; the least recently wanted go first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def of(self, image_id: str, path: Path) -> bytes:
        """Find the thumbnail of a picture, or make it.

        Raises:
            OSError: the file is gone or is no picture.
        """
        with self._lock:
            if image_id in self._kept:
                self._kept.move_to_end(image_id)
                return self._kept[image_id]
        data = shrink(path)
        with self._lock:
            if image_id not in self._kept:
                self._kept[image_id] = data
                self._size += len(data)
            while self._size > MAX_BYTES:
                self._size -= len(self._kept.popitem(last=False)[1])
        return data


def shrink(path: Path) -> bytes:
    """Write a picture as a WebP file of at most `SIDE` pixels a side, without its metadata."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.draft("RGB", (SIDE, SIDE))
        small = picture.convert("RGB")
        small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=82, method=2)
    return file.getvalue()
