"""Files that come in parts, in any order: kept apart until the last is here, then put together."""

import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from api.arrival import DIGEST, Arrived
from api.files import FileStore, StoredFile
from api.labels import Label
from engine import InvalidRequest

MAX_PARTS = 10_000
MAX_UPLOADS = 100
"""Uploads of one owner that are under way."""
PATIENCE_S = 86_400.0
"""Seconds after which an upload that was begun and not ended is given up."""
_BLOCK = 1 << 20


@dataclass(slots=True)
class _Upload:
    owner: str
    begun_at: float
    parts: dict[int, Arrived] = field(default_factory=dict)


class Parts:
    """The uploads in parts that are under way. They do not survive the studio; clients send such a file again."""

    def __init__(self, files: FileStore, clock: Callable[[], float] = time.time) -> None:
        self._files = files
        self._clock = clock
        self._uploads: dict[str, _Upload] = {}
        self._lock = threading.Lock()

    async def receive(
        self, upload_id: str, owner: str, number: int, chunks: AsyncIterator[bytes]
    ) -> str:
        """Take a part, which replaces an earlier one of its number; returns its hash.

        Raises:
            NoRoom: the file, or all files together, would be too large.
            InvalidRequest: the number is none, or too many uploads are under way.
            OSError: it cannot be written.
        """
        if not 1 <= number <= MAX_PARTS:
            raise InvalidRequest("partNumber", f"expected 1 to {MAX_PARTS}, got {number}")
        upload = self._open(upload_id, owner)
        others = sum(part.size for key, part in list(upload.parts.items()) if key != number)
        with self._files.arrival(owner) as arrival:
            await arrival.write_all(chunks, before=others)
            part = arrival.finish()
        with self._lock:
            before = upload.parts.get(number)
            upload.parts[number] = part
        if before is not None:
            self._drop(before, owner)
        return part.digest

    def join(self, upload_id: str, listed: Mapping[int, str], label: Label) -> StoredFile:
        """Put a file together; told again, it says the same.

        Args:
            upload_id: Which upload.
            listed: Hash of each part by its number, as the client knows them; empty takes what is here.
            label: What is known of the file.

        Raises:
            InvalidRequest: a part is missing or another than was sent.
            NoRoom: the file is too large.
            OSError: it cannot be written.
        """
        with self._lock:
            upload = self._uploads.get(upload_id)
        if upload is None:
            done = self._files.find_token(label.token or "")
            if done is None:
                raise InvalidRequest("uploadId", "expected an upload that is under way")
            return done
        numbers = sorted(listed or upload.parts)
        if not numbers:
            raise InvalidRequest("parts", "expected at least one")
        for number in numbers:
            here = upload.parts.get(number)
            if here is None or (listed and listed[number] != here.digest):
                raise InvalidRequest("parts", f"expected part {number} as it was sent")
        self._files.room.check(sum(upload.parts[number].size for number in numbers))
        with self._lock:
            self._uploads.pop(upload_id, None)
        wanted = [upload.parts.pop(number) for number in numbers]
        for part in upload.parts.values():
            self._drop(part, upload.owner)
        try:
            whole = _together(wanted)
        except OSError:
            for part in wanted:
                self._drop(part, upload.owner)
            raise
        return self._files.keep(whole, label)

    def _open(self, upload_id: str, owner: str) -> _Upload:
        now = self._clock()
        with self._lock:
            late = [key for key, item in self._uploads.items() if item.begun_at < now - PATIENCE_S]
            given_up = [self._uploads.pop(key) for key in late]
            if upload_id not in self._uploads:
                if sum(item.owner == owner for item in self._uploads.values()) >= MAX_UPLOADS:
                    raise InvalidRequest("uploads", f"expected at most {MAX_UPLOADS} at once")
                self._uploads[upload_id] = _Upload(owner, now)
            upload = self._uploads[upload_id]
        for item in given_up:
            for part in item.parts.values():
                self._drop(part, item.owner)
        return upload

    def _drop(self, part: Arrived, owner: str) -> None:
        part.path.unlink(missing_ok=True)
        self._files.room.give(owner, part.size)


def _together(parts: list[Arrived]) -> Arrived:
    """Append all parts to the first one; the others' files are gone afterwards."""
    first, *others = parts
    digest = hashlib.sha256()
    with first.path.open("r+b") as whole:
        while block := whole.read(_BLOCK):
            digest.update(block)
        for part in others:
            with part.path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    whole.write(block)
            part.path.unlink()
    size = sum(part.size for part in parts)
    return Arrived(path=first.path, size=size, digest=digest.hexdigest()[:DIGEST])
