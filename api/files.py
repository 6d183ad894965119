"""Files that programs send and get: unguessable addresses, a week, then they are gone.

Each file lies beside a small record, which is written last, so that a file is there whole or not at all; finished
pictures stay where they are and have the record alone. Names from outside never become paths. Knows nothing of HTTP.
"""

import asyncio
import hashlib
import json
import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from api.arrival import DIGEST, Arrival, Arrived
from api.labels import Label, safe_name, safe_type
from api.limits import Limits
from api.room import Room
from api.tickets import Tickets, read_secret
from jobs.files import PART, write_whole

log = logging.getLogger(__name__)

DAY_S = 86_400.0
SWEEP_S = 600.0
"""Seconds between looks for files whose time is over."""
_ADDRESS = re.compile(r"/files/(?P<token>[\w-]{32})/(?P<name>[\w.-]{1,100})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that can be fetched."""

    token: str
    """What nobody can guess."""
    name: str
    """What it is called, in characters that need no escaping."""
    content_type: str
    size: int
    """Bytes."""
    owner: str
    made_at: float
    """Unix time."""
    expires_at: float
    """Unix time."""
    etag: str
    """Hash of the content, or of what stands for it."""
    path: Path
    is_linked: bool
    """Whether it belongs to somebody else, who may remove it any time."""


class FileStore:
    """The files of one studio. Every call is safe from any thread."""

    def __init__(
        self,
        data_dir: Path,
        output_dir: Path,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take up what an earlier life left.

        Args:
            data_dir: Holds the folder of the files, and the secret that addresses are made with.
            output_dir: Where finished pictures lie; nothing else outside the folder is ever given out.
            limits: How much there may be.
            clock: Unix time.
        """
        limits = limits or Limits()
        self.tickets = Tickets(read_secret(data_dir / "secret.key"), clock)
        self._folder = data_dir / "files"
        self._output_dir = output_dir
        self._days = limits.file_days
        self._clock = clock
        self._room = Room(limits)
        self._files: dict[str, StoredFile] = {}
        self._lock = threading.Lock()
        """Held while a file appears or goes."""
        self._stop = threading.Event()
        self._sweeper: threading.Thread | None = None
        self._folder.mkdir(parents=True, exist_ok=True)
        self._take_up()

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    @property
    def room(self) -> Room:
        """Counts what is there."""
        return self._room

    def start(self) -> None:
        """Remove in the background what is over, until `close`."""
        self._sweeper = threading.Thread(target=self._sweep_on, name="files", daemon=True)
        self._sweeper.start()

    def close(self) -> None:
        """End the background work."""
        self._stop.set()
        if self._sweeper is not None:
            self._sweeper.join()

    def new_token(self) -> str:
        """Draw what makes an address unguessable: 192 bits."""
        return secrets.token_urlsafe(24)

    def put(
        self, data: bytes, *, content_type: str, file_name: str | None = None, owner: str
    ) -> StoredFile:
        """Keep a file that is here whole.

        Raises:
            NoRoom: it, or all files together, would be too large.
            OSError: it cannot be written.
        """
        label = Label(owner=owner, content_type=content_type, file_name=file_name)
        with self.arrival(owner) as arrival:
            arrival.write(data)
            return self.keep(arrival.finish(), label)

    async def receive(self, chunks: AsyncIterator[bytes], label: Label) -> StoredFile:
        """Keep a file that comes by and by; never more than a block of it is in memory.

        Raises:
            NoRoom: it, or all files together, would be too large.
            OSError: it cannot be written.
        """
        with self.arrival(label.owner) as arrival:
            await arrival.write_all(chunks)
            return await asyncio.to_thread(lambda: self.keep(arrival.finish(), label))

    def link(self, path: Path, *, content_type: str, file_name: str, owner: str) -> StoredFile:
        """Give a finished picture an address, where it lies; asked again, it has the same.

        Raises:
            ValueError: it is not in the output folder.
            OSError: it is not there.
        """
        place = path.resolve(strict=True)
        if not place.is_relative_to(self._output_dir.resolve()):
            raise ValueError("path: expected a picture of the output folder")
        token = self.tickets.name(f"{owner}\0{place}")
        now, size = self._clock(), place.stat().st_size
        file = StoredFile(
            token=token,
            name=safe_name(file_name, content_type),
            content_type=safe_type(content_type),
            size=size,
            owner=owner,
            made_at=now,
            expires_at=now + self._days * DAY_S,
            etag=hashlib.sha256(f"{token} {size}".encode()).hexdigest()[:DIGEST],
            path=place,
            is_linked=True,
        )
        with self._lock:
            known = self.find_token(token)
            if known is None:
                self._record(file)
        return known or file

    def address(self, file: StoredFile, base: str) -> str:
        """Write where a file can be fetched; `base` is the prefix of the files as this client reaches it."""
        return f"{base.rstrip('/')}/files/{file.token}/{file.name}"

    def find(self, url: str) -> StoredFile | None:
        """Find the file at one of our own addresses, whatever host name it has; None when it is none of ours."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        match = _ADDRESS.fullmatch(parts.path[parts.path.find("/files/") :])
        if parts.scheme not in ("http", "https") or match is None:
            return None
        file = self.find_token(match["token"])
        return file if file is not None and file.name == match["name"] else None

    def find_token(self, token: str) -> StoredFile | None:
        """Find a file whose time is not over."""
        file = self._files.get(token)
        return file if file is not None and self._clock() < file.expires_at else None

    def sweep(self) -> None:
        """Remove the files whose time is over."""
        now = self._clock()
        for file in list(self._files.values()):
            with self._lock:
                if file.expires_at <= now and self._files.get(file.token) is file:
                    self._remove(file)

    def _sweep_on(self) -> None:
        while not self._stop.wait(SWEEP_S):
            try:
                self.sweep()
            except OSError:
                log.exception("files: what is over could not be removed")

    def arrival(self, owner: str) -> Arrival:
        """Open a place for bytes that come; they are gone again unless they are finished."""
        return Arrival(self._folder / f".{secrets.token_hex(8)}{PART}", owner, self._room)

    def keep(self, arrived: Arrived, label: Label) -> StoredFile:
        """Let a file that has arrived appear.

        Raises:
            OSError: it cannot be written; what arrived is removed.
        """
        token = label.token or self.new_token()
        now, most = self._clock(), self._days * DAY_S
        file = StoredFile(
            token=token,
            name=safe_name(label.file_name, label.content_type),
            content_type=safe_type(label.content_type),
            size=arrived.size,
            owner=label.owner,
            made_at=now,
            expires_at=now + (most if label.seconds is None else min(label.seconds, most)),
            etag=arrived.digest,
            path=self._content(token),
            is_linked=False,
        )
        with self._lock:
            if (before := self._files.get(token)) is not None:
                self._remove(before)
            try:
                arrived.path.replace(file.path)
                self._record(file)
            except OSError:
                arrived.path.unlink(missing_ok=True)
                self._remove(file)
                raise
        return file

    # Below, the lock is held

    def _record(self, file: StoredFile) -> None:
        facts = asdict(file) | {"path": str(file.path) if file.is_linked else None}
        write_whole(self._record_path(file.token), json.dumps(facts).encode())
        self._files[file.token] = file

    def _remove(self, file: StoredFile) -> None:
        self._files.pop(file.token, None)
        self._record_path(file.token).unlink(missing_ok=True)
        if not file.is_linked:
            self._content(file.token).unlink(missing_ok=True)
            self._room.give(file.owner, file.size)

    def _take_up(self) -> None:
        """Read the records; what has none never arrived whole, and is removed."""
        for path in self._folder.glob("*.json"):
            file = self._read(path)
            if file is None:
                path.unlink()
                continue
            self._files[file.token] = file
            if not file.is_linked:
                self._room.count(file.owner, file.size)
        kept = {file.path for file in self._files.values()}
        for path in self._folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix != ".json" and path not in kept:
                path.unlink()

    def _read(self, path: Path) -> StoredFile | None:
        """Read a record; None when it is none, or its file is gone."""
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            place = Path(facts["path"]) if facts["is_linked"] else self._content(path.stem)
            file = StoredFile(**{**facts, "path": place, "token": path.stem})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        is_ours = not file.is_linked or place.is_relative_to(self._output_dir.resolve())
        return file if is_ours and place.is_file() else None

    def _content(self, token: str) -> Path:
        return self._folder / f"{token}.bin"

    def _record_path(self, token: str) -> Path:
        return self._folder / f"{token}.json"
