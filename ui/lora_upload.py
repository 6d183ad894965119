"""A LoRA on its way from a browser: into a part file, looked at, and then into its place or away.

A name is only ever that of a file in our own folder, and never one that is taken. Whatever is refused leaves nothing behind.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Container
from pathlib import Path

from engine import InvalidRequest, check_lora
from engine.catalog import MAX_HEADER
from jobs import StorageFailed

MAX_LORA = 4 * 2**30
"""Largest file in bytes."""
ROOM = 2**30
"""Bytes that stay free on the disk."""
ENDING = ".safetensors"
_PART = ".upload.part"
_STALE_S = 24 * 3600
"""Seconds after which a part file belongs to nobody: the program ended in the middle."""
_LONGEST = 100
"""Bytes of a name without its ending."""


def file_name(given: str) -> str:
    """Make the name of a file from what a browser calls it.

    Raises:
        InvalidRequest: it is none of a safetensors file, or a path.
    """
    if re.search(r"[/\\\x00-\x1f\x7f]", given):
        raise InvalidRequest("name", f"expected the name of a file, got {given[:80]!r}")
    stem, dot, ending = unicodedata.normalize("NFC", given).rpartition(".")
    if (dot + ending).lower() != ENDING:
        raise InvalidRequest("name", f"expected a name that ends in {ENDING}, got {given[:80]!r}")
    good = re.sub(r"[^\w.()+ -]+", "_", stem).strip(" .")
    short = good.encode()[:_LONGEST].decode(errors="ignore").strip(" .")
    return f"{short or 'lora'}{ENDING}"


class Incoming:
    """One file that arrives in chunks. Used by one thread at a time; `drop` ends it whatever happened."""

    def __init__(self, folder: Path, name: str, size: int | None) -> None:
        """Make room for it.

        Args:
            folder: Where it goes.
            name: As `file_name` makes it.
            size: Bytes that are announced; None where nobody says.

        Raises:
            InvalidRequest: that is too many.
            StorageFailed: there is no room for it, or the folder cannot be written.
        """
        self.name = name
        self.size = 0
        """Bytes that are here."""
        self._digest = hashlib.sha256()
        self._head = b""
        if size is not None:
            self._require_size(size)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < (size or 0) + ROOM:
                raise StorageFailed(
                    f"{name}: expected more room in the LoRA folder, got a full disk"
                )
            self._path = folder / f".{secrets.token_hex(8)}{_PART}"
            self._file = self._path.open("xb")
        except OSError as error:
            raise _unwritable(error) from error

    @property
    def sha256(self) -> str:
        """Hash of what is here, in hex."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Take in a part of it.

        Raises:
            InvalidRequest: it becomes too large, or begins as no safetensors file does.
            StorageFailed: the disk is full.
        """
        self.size += len(chunk)
        self._require_size(self.size)
        if len(self._head) < 8:
            self._head += chunk[:8]
            self._require_head()
        self._digest.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise _unwritable(error) from error

    def check(self) -> None:
        """Look at the whole file.

        Raises:
            ModelIncompatible: it is cut off, broken, or no LoRA.
            StorageFailed: the disk is full.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise _unwritable(error) from error
        check_lora(self._path, self.name)

    def keep(self, folder: Path, taken: Container[str]) -> Path:
        """Give it its name, or the next one that is free: ``NAME-2``.

        Args:
            folder: Where it goes.
            taken: Names that are those of other files, in other folders too.

        Raises:
            StorageFailed: it cannot be put there.
        """
        stem, number = self.name.removesuffix(ENDING), 1
        while True:
            name = f"{stem}-{number}{ENDING}" if number > 1 else self.name
            number += 1
            if name in taken:
                continue
            try:
                _put(self._path, folder / name)
            except FileExistsError:
                continue
            except OSError as error:
                raise _unwritable(error) from error
            return folder / name

    def drop(self) -> None:
        """Remove what is still on its way."""
        with contextlib.suppress(OSError):
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _require_size(self, size: int) -> None:
        if size > MAX_LORA:
            problem = f"expected at most {MAX_LORA // 2**30} GB, got more"
            raise InvalidRequest("lora", f"{self.name}: {problem}")

    def _require_head(self) -> None:
        """Refuse at the first bytes what is no safetensors file, rather than after gigabytes of it."""
        is_pickled = self._head[:2] == b"PK" or self._head[:1] == b"\x80"
        header = int.from_bytes(self._head, "little")
        if len(self._head) == 8 and (is_pickled or header > MAX_HEADER):
            got = "a pickled one" if is_pickled else "something else"
            problem = f"expected a safetensors file, got {got} under its name"
            raise InvalidRequest("lora", f"{self.name}: {problem}")


def sweep(folder: Path) -> None:
    """Remove what uploads left behind that a killed program could not end."""
    for path in folder.glob(f".*{_PART}"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _STALE_S:
                path.unlink()


def _put(part: Path, place: Path) -> None:
    """Move a file to a place where none is.

    Raises:
        FileExistsError: one is.
    """
    try:
        os.link(part, place)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with place.open("xb"):
            pass
        try:
            part.replace(place)
        except OSError:
            place.unlink()
            raise
    else:
        part.unlink()


def _unwritable(error: OSError) -> StorageFailed:
    return StorageFailed(f"lora: the LoRA folder cannot be written ({error.strerror})")
