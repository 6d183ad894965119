"""Whether there is room on the disks and the database can be written: for whoever watches the server."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import StorageFailed
from jobs.store import Store

LOOK_S = 5.0
"""How long what was found counts, so that asking often writes seldom."""
MIB = 2**20


class StorageCheck:
    """Looks, and remembers what it found. Only the dispatcher's thread calls it."""

    def __init__(
        self, store: Store, folders: Sequence[Path], min_free_bytes: int, look_s: float = LOOK_S
    ) -> None:
        self._store = store
        self._look_s = look_s
        self._folders = folders
        self._min_free_bytes = min_free_bytes
        self._until = 0.0
        self._problem: StorageFailed | None = None

    def look(self) -> StorageFailed | None:
        """Say what is wrong; None: nothing."""
        if time.monotonic() >= self._until:
            self._problem = self._find()
            self._until = time.monotonic() + self._look_s
        return self._problem

    def _find(self) -> StorageFailed | None:
        try:
            free = min(shutil.disk_usage(_there(folder)).free for folder in self._folders)
            self._store.note_alive()
        except OSError as error:
            return StorageFailed(f"disk: {error.strerror}")
        except StorageFailed as error:
            return error
        if free >= self._min_free_bytes:
            return None
        wanted = self._min_free_bytes // MIB
        return StorageFailed(f"disk: expected at least {wanted} MiB free, got {free // MIB} MiB")


def _there(folder: Path) -> Path:
    """Find the part of a path that is there already; the rest is made with the first file."""
    return next(part for part in (folder, *folder.absolute().parents) if part.exists())
