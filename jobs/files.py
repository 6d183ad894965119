"""Whole files only: what a job reads and what it made, on disk.

A file appears under its name when all of it is on the disk, or not at all. Knows nothing of the database, and removes
nothing from the output folder that it did not write: other programs may keep their pictures there too.
"""

import contextlib
import hashlib
import os
import random
import re
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from engine.records.file_names import file_name
from jobs.errors import DataDirInUse

PART = ".part"
"""Ending of a file that is being written."""
TENSORS = "application/x-safetensors"
ENDINGS = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/webp": "webp",
    TENSORS: "safetensors",
}
CLAIM = re.compile(rf"\.(?P<name>[^.]+\.[^.]+)\.(?P<job_id>[^.]+){re.escape(PART)}")
"""Name of the file that says which job wrote a picture that is not recorded yet."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that, also after a power cut, it is whole or absent.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    _make_folder(path.parent)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        _write_new(part, data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


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
        keep = set(used)
        for path in self._folder.glob("*"):
            if path.name not in keep:
                path.unlink(missing_ok=True)


class OutputFolder:
    """The pictures, a folder a day, called as Fooocus calls them.

    A picture goes through three states, so that a server that dies at any moment leaves nothing that its next life cannot
    tell apart: written under a hidden name that says for which job (the claim); there under its own name as well, which
    `save` takes without ever replacing a file; recorded in the database, after which `confirm` drops the claim. A claim
    whose picture is not recorded leads `withdraw` to it.
    """

    def __init__(self, folder: Path, rng: random.Random | None = None) -> None:
        self._folder = folder
        self._rng = rng or random.Random()

    def save(self, job_id: str, content_type: str, data: bytes) -> str:
        """Write a picture under a new name, such as ``2026-11-21/2026-11-21_02-26-30_4898.png``, and claim it for a job.

        Returns the path below the folder.

        Raises:
            OSError: the disk is full or the folder cannot be written; nothing is left behind.
        """
        while True:
            ending = ENDINGS.get(content_type, "bin")
            name = file_name(time.localtime(), self._rng, ending)
            if not os.path.lexists(self.path(name)) and self._save_as(name, job_id, data):
                return name

    def confirm(self, job_id: str, name: str) -> None:
        """Drop the claim on a picture: the database knows it now.

        Raises:
            OSError: it cannot be removed.
        """
        self._claim(job_id, name).unlink(missing_ok=True)

    def withdraw(self, job_id: str, name: str) -> None:
        """Remove a picture that is claimed but not recorded, and its claim; a file of somebody else's stays.

        Raises:
            OSError: one of them cannot be removed.
        """
        path, claim = self.path(name), self._claim(job_id, name)
        if path.is_file() and _is_beginning(path, claim):
            path.unlink()
        claim.unlink(missing_ok=True)
        _remove_if_empty(claim.parent)

    def claims(self) -> Iterator[tuple[str, str]]:
        """Find the claims that a killed server left, as job id and path of the picture below the folder."""
        for path in self._folder.glob(f"*/.*{PART}"):
            if claim := CLAIM.fullmatch(path.name):
                yield claim["job_id"], f"{path.parent.name}/{claim['name']}"

    def path(self, name: str) -> Path:
        """Say where a picture is that `save` wrote."""
        return self._folder / name

    def remove(self, name: str) -> None:
        """Remove a picture, and its day's folder with the last one.

        Raises:
            OSError: it cannot be removed.
        """
        path = self._folder / name
        path.unlink(missing_ok=True)
        _remove_if_empty(path.parent)

    def _claim(self, job_id: str, name: str) -> Path:
        path = self.path(name)
        return path.with_name(f".{path.name}.{job_id}{PART}")

    def _save_as(self, name: str, job_id: str, data: bytes) -> bool:
        """Claim a name and write the picture there; False when somebody took the name meanwhile."""
        path, claim = self.path(name), self._claim(job_id, name)
        _make_folder(path.parent)
        try:
            _write_new(claim, data)
            _sync_folder(
                path.parent
            )  # never the picture without its claim, not even after a power cut
            is_ours = _publish(claim, path, data)
            _sync_folder(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                self.withdraw(job_id, name)
            raise
        if not is_ours:
            claim.unlink()
        return is_ours


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


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet, and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _publish(claim: Path, path: Path, data: bytes) -> bool:
    """Let a claimed picture appear under its own name; False when that name is taken."""
    try:
        path.hardlink_to(claim)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links, such as exFAT
        return _copy(path, data)
    return True


def _copy(path: Path, data: bytes) -> bool:
    try:
        _write_new(path, data)
    except FileExistsError:
        return False
    return True


def _is_beginning(path: Path, claim: Path) -> bool:
    """Whether a file holds what its claim does, or, where it had to be copied and that was cut short, the first part."""
    try:
        return claim.read_bytes().startswith(path.read_bytes())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
