"""Whole files only: what a job reads and what it made, on disk.

A file appears under its name when all of it is on the disk, or not at all. Knows nothing of the database.
"""

import contextlib
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from jobs.errors import DataDirInUse

PART = ".part"
"""Ending of a file that is being written."""
ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that, also after a power cut, it is whole or absent.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync_folder(path.parent.parent)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def sweep_parts(folder: Path) -> None:
    """Remove what an earlier life left half written in `folder` and the folders right below it."""
    for part in (*folder.glob(f".*{PART}"), *folder.glob(f"*/.*{PART}")):
        part.unlink(missing_ok=True)


class InputFolder:
    """What people sent along with their jobs: files named by the hash of their content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, inputs: Mapping[str, bytes]) -> dict[str, str]:
        """Write inputs that are not there yet; returns the hash for each name."""
        hashes = {}
        for name, data in inputs.items():
            hashes[name] = hashlib.sha256(data).hexdigest()
            path = self._folder / hashes[name]
            if not path.exists():
                write_whole(path, data)
        return hashes

    def paths(self, hashes: Mapping[str, str]) -> dict[str, Path]:
        """Say where the files are."""
        return {name: self._folder / digest for name, digest in hashes.items()}

    def sweep(self, used: Iterable[str]) -> None:
        """Remove what no job refers to; nobody may be submitting meanwhile."""
        sweep_parts(self._folder)
        keep = set(used)
        for path in self._folder.glob("*"):
            if path.name not in keep:
                path.unlink(missing_ok=True)


class OutputFolder:
    """The pictures, a folder a day."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, job_id: str, index: int, content_type: str, data: bytes) -> str:
        """Write a picture under a new name, such as ``2026-11-21/2026-11-21_14-05-09_0001_3f2a9c1e.png``.

        The name ends in the first letters of the job's id, so that `orphans` can tell whose it is. Returns the path
        below the folder.
        """
        now = time.localtime()
        day, second = time.strftime("%Y-%m-%d", now), time.strftime("%Y-%m-%d_%H-%M-%S", now)
        number = index + 1
        while (path := self._folder / day / _name(second, number, job_id, content_type)).exists():
            number += 1000
        write_whole(path, data)
        return path.relative_to(self._folder).as_posix()

    def path(self, name: str) -> Path:
        """Say where a picture is that `save` wrote."""
        return self._folder / name

    def remove(self, name: str) -> None:
        """Remove a picture, and its day's folder with the last one."""
        path = self._folder / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def orphans(self, job_id: str, known: Iterable[str]) -> list[str]:
        """List the pictures of a job that were written, but not recorded before the server died."""
        keep = set(known)
        found = self._folder.glob(f"*/*_{job_id[:8]}.*")
        names = (path.relative_to(self._folder).as_posix() for path in found)
        return [name for name in names if name not in keep]


def lock_folder(folder: Path) -> IO[str]:
    """Keep other servers off a data folder until the returned file is closed, or this process ends in whatever way.

    Raises:
        DataDirInUse: another one was first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "lock").open("w")
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise DataDirInUse(
                f"data folder: expected one server at a time, {folder} is in use by another"
            ) from error
    return file


def _name(second: str, number: int, job_id: str, content_type: str) -> str:
    return f"{second}_{number:04d}_{job_id[:8]}{ENDINGS.get(content_type, '.bin')}"


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
