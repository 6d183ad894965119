"""Files that come in parts, in any order: kept apart until the last is here, then put together."""

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from api.arrival import DIGEST, Arrival, Arrived
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
        with self._lock:
            others = sum(part.size for key, part in upload.parts.items() if key != number)
        with self._files.arrival(owner) as arrival:
            await arrival.write_all(chunks, before=others)
            return await asyncio.to_thread(lambda: self._add(upload_id, upload, number, arrival))

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
                return self._done(label)
            wanted, others = self._chosen(upload, listed)
            del self._uploads[upload_id]
        self._drop(others, upload.owner)
        try:
            whole = _together(wanted)
        except OSError:
            self._drop(wanted, upload.owner)
            raise
        return self._files.keep(whole, label)

    def _chosen(
        self, upload: _Upload, listed: Mapping[int, str]
    ) -> tuple[list[Arrived], list[Arrived]]:
        """Find the parts that a client wants put together, in order, and those that it does not want."""
        numbers = sorted(listed or upload.parts)
        if not numbers:
            raise InvalidRequest("parts", "expected at least one")
        for number in numbers:
            here = upload.parts.get(number)
            if here is None or (listed and listed[number] != here.digest):
                raise InvalidRequest("parts", f"expected part {number} as it was sent")
        wanted = [upload.parts[number] for number in numbers]
        self._files.room.check(sum(part.size for part in wanted))
        return wanted, [part for part in upload.parts.values() if part not in wanted]

    def _add(self, upload_id: str, upload: _Upload, number: int, arrival: Arrival) -> str:
        """Let a part that has arrived take the place of an earlier one."""
        part = arrival.finish()
        with self._lock:
            is_open = self._uploads.get(upload_id) is upload
            late = upload.parts.get(number) if is_open else part
            if is_open:
                upload.parts[number] = part
        self._drop([late] if late else [], upload.owner)
        if not is_open:
            raise InvalidRequest("uploadId", "expected an upload that is under way")
        return part.digest

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
            self._drop(item.parts.values(), item.owner)
        return upload

    def _done(self, label: Label) -> StoredFile:
        """Find the file that was put together before."""
        done = self._files.find_token(label.token or "")
        if done is None:
            raise InvalidRequest("uploadId", "expected an upload that is under way")
        return done

    def _drop(self, parts: Iterable[Arrived], owner: str) -> None:
        for part in parts:
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
