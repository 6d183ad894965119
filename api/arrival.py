"""Bytes on their way into the store: counted, hashed, on the disk as they come, gone again unless all of them came."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from api.room import Room

DIGEST = 32
"""Characters of a hash that tell contents apart."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """Bytes that are on the disk and counted, though nobody can fetch them yet."""

    path: Path
    size: int
    digest: str
    """Beginning of their sha256 in hex."""


class Arrival:
    """Bytes on their way in: counted, hashed, gone again unless they are finished."""

    def __init__(self, path: Path, owner: str, room: Room) -> None:
        self._owner = owner
        self._path = path
        self._room = room
        self._size = 0
        self._digest = hashlib.sha256()
        self._file: IO[bytes] = path.open("xb")
        self._is_finished = False

    def __enter__(self) -> "Arrival":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self._is_finished:
            self._path.unlink(missing_ok=True)
            self._room.give(self._owner, self._size)

    async def write_all(self, chunks: AsyncIterator[bytes], *, before: int = 0) -> None:
        """Take bytes as they come, block by block; `before` other bytes count as of the same file.

        Raises:
            NoRoom: there is none for them.
            OSError: they cannot be written.
        """
        block = bytearray()
        async for chunk in chunks:
            block += chunk
            self._room.check(before + self._size + len(block))
            if len(block) >= _BLOCK:
                await asyncio.to_thread(self.write, bytes(block))
                block.clear()
        await asyncio.to_thread(self.write, bytes(block))

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            NoRoom: there is none for them.
            OSError: they cannot be written.
        """
        self._room.take(self._owner, len(data), self._size)
        self._size += len(data)
        self._digest.update(data)
        self._file.write(data)

    def finish(self) -> Arrived:
        """Wait until the bytes are on the disk; they stay, and stay counted, until somebody gives their room back."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._is_finished = True
        return Arrived(path=self._path, size=self._size, digest=self._digest.hexdigest()[:DIGEST])
