"""How much room uploaded files take: each one, those of an owner, and all together."""

import threading
from collections import Counter

from api.limits import Limits
from engine import EngineError


class NoRoom(EngineError):
    """A file, an owner's files or all files together are larger than they may be."""

    kind = "no_room"


class Room:
    """Counts bytes as they arrive and as they go. Safe from any thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()

    def used(self, owner: str) -> int:
        """Say how many bytes an owner's files take, with those that are arriving."""
        return self._used[owner]

    @property
    def total(self) -> int:
        """Bytes that all files take, with those that are arriving."""
        with self._lock:
            return self._used.total()

    def count(self, owner: str, size: int) -> None:
        """Count a file that is there."""
        with self._lock:
            self._used[owner] += size

    def give(self, owner: str, size: int) -> None:
        """Count a file that is gone."""
        with self._lock:
            self._used[owner] -= size
            if self._used[owner] <= 0:
                del self._used[owner]

    def take(self, owner: str, more: int, before: int) -> None:
        """Make room for the next bytes of a file.

        Args:
            owner: Whose file it is.
            more: Bytes that have come now.
            before: Bytes of the same file that had come.

        Raises:
            NoRoom: there is none.
        """
        limits = self._limits
        self.check(before + more)
        with self._lock:
            if self._used[owner] + more > limits.owner_bytes:
                raise NoRoom(f"files: expected at most {limits.owner_bytes} bytes of one owner")
            if self._used.total() + more > limits.store_bytes:
                raise NoRoom("files: expected a store with room, got a full one; try later")
            self._used[owner] += more

    def check(self, size: int) -> None:
        """Check the size of one file.

        Raises:
            NoRoom: it is too large.
        """
        if size > self._limits.file_bytes:
            raise NoRoom(f"file: expected at most {self._limits.file_bytes} bytes")
