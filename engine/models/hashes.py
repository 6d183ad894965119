"""Hashes of weight files, computed once and remembered by place, size and time of the last change.

A checkpoint of several gigabytes takes seconds, so they can be computed ahead in the background. No torch.
"""

import hashlib
import json
import logging
import os
import queue
import threading
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

SHORT = 10
"""Hex digits that metadata names a file by."""
_CACHE = ".hashes.json"
"""File in the models folder that remembers the weights' hashes."""


class FileHashes:
    """sha256 of files and of diffusers folders; safe to use from several threads.

    A folder's hash is that of the names and hashes of the safetensors files in it.
    """

    def __init__(self, cache_file: Path) -> None:
        """Start with what `cache_file` remembers; one that cannot be read is begun anew."""
        self._cache_file = cache_file
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        self._known = _read(cache_file)
        self._waiting: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._has_complained = False

    def get(self, path: Path) -> str:
        """Compute a hash, or look it up; 64 hex digits.

        Raises:
            OSError: the file cannot be read.
        """
        if path.is_dir():
            return _of_folder(path, [self.get(part) for part in _parts(path)])
        with self._one_at_a_time:
            while (known := self.peek(path)) is None:
                facts = _facts(path)
                sha256 = sha256_of(path)
                if facts == _facts(path):
                    self.learn(path, sha256)
        return known

    def peek(self, path: Path) -> str | None:
        """Look a hash up without reading the file; None when it is not known, or the file is not there."""
        if path.is_dir():
            hashes = [self.peek(part) for part in _parts(path)]
            known = [sha256 for sha256 in hashes if sha256 is not None]
            return _of_folder(path, known) if len(known) == len(hashes) else None
        try:
            place, facts = _place(path), _facts(path)
        except OSError:
            return None
        with self._lock:
            size, changed, sha256 = self._known.get(place, (-1, -1, ""))
        return sha256 if (size, changed) == facts else None

    def short(self, path: Path) -> str:
        """Compute the first hex digits, by which metadata names a file.

        Raises:
            OSError: the file cannot be read.
        """
        return self.get(path)[:SHORT]

    def learn(self, path: Path, sha256: str) -> None:
        """Remember a hash that is known from elsewhere, such as from the download.

        Raises:
            OSError: the file is not there.
        """
        with self._lock:
            self._known[_place(path)] = (*_facts(path), sha256)
            self._known = {**_read(self._cache_file), **self._known}
            try:
                _write(self._cache_file, self._known)
            except OSError as error:
                if not self._has_complained:  # there are as many files as weights
                    log.warning("hashes are not remembered: %s", error)
                self._has_complained = True

    def prefetch(self, paths: Iterable[Path]) -> None:
        """Compute hashes in the background, one after another."""
        for path in paths:
            self._waiting.put(path)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="hashes", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            path = self._waiting.get()
            try:
                self.get(path)
            except OSError as error:
                log.warning("%s: no hash: %s", path.name, error)


def models_hashes(models_dir: Path) -> FileHashes:
    """Open the hashes of the weights in a models folder, which all processes that use it share."""
    return FileHashes(models_dir / _CACHE)


_Known = dict[str, tuple[int, int, str]]


def _read(cache_file: Path) -> _Known:
    try:
        values = json.loads(cache_file.read_text(encoding="utf-8"))
        return {
            str(place): (int(n), int(t), str(digest)) for place, (n, t, digest) in values.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s: begun anew: %s", cache_file.name, error)
        return {}


def _write(cache_file: Path, known: _Known) -> None:
    """Write the cache whole; another process that reads it sees the old one or the new one."""
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    part = cache_file.with_name(f".{cache_file.name}.{os.getpid()}.part")
    part.write_text(json.dumps(known, indent=0), encoding="utf-8")
    part.replace(cache_file)


def sha256_of(path: Path) -> str:
    """Compute the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def _of_folder(folder: Path, hashes: list[str]) -> str:
    names = (part.relative_to(folder).as_posix() for part in _parts(folder))
    lines = (f"{sha256}  {name}\n" for name, sha256 in zip(names, hashes, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _place(path: Path) -> str:
    return str(path.resolve())


def _facts(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns
