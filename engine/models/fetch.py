"""One file of weights from the web: resumed after a break, checked by its hash, there whole or not at all.

While it is on its way it lies beside its place, with the ending ``.part``. Its sha256 is recorded at the first download,
in a file of the ending ``.sha256``, and a later download that brings other bytes is refused. No torch.
"""

import contextlib
import errno
import hashlib
import importlib
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.safe_files import SAFE, require_safetensors
from engine.net import AddressRefused, Fetcher, Unreachable

PARTIAL = ".part"
"""Ending of a file, or of a folder of files, that is still on its way."""
RECORD = ".sha256"
"""Ending of the file that keeps the hash of the first download."""
Tell = Callable[[int, int | None], None]
"""Hears how many bytes are here, and how many there will be, None when the server doesn't say."""
_CHUNK = 1 << 20
_LOOK_S = 0.2
"""While nothing comes, `Tell` is called so often."""
_TRIES = 4
"""Attempts in a row that bring nothing new."""
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_ROOM = 64 << 20
"""Bytes that stay free on the disk."""
MAX_ASKED = 16 << 30
"""Most bytes of a file that a request names by its address."""


class _Again(Exception):
    """The connection was good for nothing this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What is to be fetched."""

    url: str
    path: Path
    sha256: str | None
    size: int | None
    tell: Tell
    timeout_s: float
    fetcher: Fetcher | None

    @property
    def most(self) -> float:
        """Most bytes that it may have."""
        if self.size is not None:
            return self.size
        return math.inf if self.fetcher is None else MAX_ASKED

    @property
    def by_hand(self) -> str:
        return f"it can also be fetched by hand from {self.url} into {self.path.parent}"


def fetch_file(
    url: str,
    path: Path,
    *,
    tell: Tell,
    sha256: str | None = None,
    size: int | None = None,
    timeout_s: float = 30.0,
    wait_s: float = 1.0,
    fetcher: Fetcher | None = None,
) -> str:
    """Bring a file to `path`; one that is there already stays as it is.

    Args:
        url: Its address, http or https.
        path: Where it goes. What arrived of it earlier is used again when it is still the same file.
        tell: Hears of progress, several times a second but while the server is silent, also while another thread or
            process fetches the same file; what it raises ends the download, which can go on later.
        sha256: Hash in hex that the file must have; None takes the one that was recorded, or any the first time.
        size: Bytes that the file must have; None takes any number.
        timeout_s: Longest silence of the server.
        wait_s: First pause after a break; each further one is twice as long.
        fetcher: Goes to addresses that a request names (design D11), and then a file of a safetensors name must be one;
            None trusts the address.

    Returns:
        The file's sha256 in hex.

    Raises:
        ModelNotFound: it cannot be reached, is not there, or there is no room for it.
        ModelIncompatible: it is not what it should be; what arrived was removed.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ModelNotFound(f"{path.name}: expected an address on the web, got {url!r}")
    order = _Order(
        url=url,
        path=path,
        sha256=sha256.lower() if sha256 else recorded_hash(path),
        size=size,
        tell=tell,
        timeout_s=timeout_s,
        fetcher=fetcher,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _partial(order) as partial:
            if not path.exists():
                _fetch(order, partial, wait_s)
            return recorded_hash(path) or _hash_of(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(order) from error
        raise ModelNotFound(f"{path.name}: {error}; {order.by_hand}") from error


def recorded_hash(path: Path) -> str | None:
    """Read the sha256 of a file's first download; None when there was none."""
    try:
        text = path.with_name(path.name + RECORD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    match = re.match(r"[0-9a-f]{64}\b", text)
    return match[0] if match else None


def network_error() -> type[Exception]:
    """Name the error of whichever HTTP library the hub's client speaks with (httpx, or its successor)."""
    from huggingface_hub import get_session

    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    error: type[Exception] = library.HTTPError
    return error


@contextlib.contextmanager
def alone(path: Path, tell: Tell) -> Iterator[None]:
    """Do something about a file or folder while no other thread or process does; they are waited for.

    Args:
        path: The file or folder.
        tell: Called while they are waited for, as `fetch_file` does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock")
    with _locked(lock, tell):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


class _Partial:
    """What has arrived of a file, and which version of it that is."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._note = path.with_name(path.name + ".json")
        self.validator = self._read_validator()
        self.digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            self.digest.update(chunk)
        self.size = file.tell()

    def request(self, order: _Order) -> dict[str, str]:
        """Ask for what is missing, provided that the file is still the same."""
        headers = {"Accept-Encoding": "identity"}
        if self.size and not self.validator and not order.sha256:
            self.restart()
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if self.validator:
                headers["If-Range"] = self.validator
        return headers

    def restart(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self.size, self.digest = 0, hashlib.sha256()

    def remember(self, validator: str) -> None:
        """Keep what tells this version of the file from others."""
        if validator != self.validator:
            self.validator = validator
            self._note.write_text(json.dumps({"validator": validator}), encoding="utf-8")

    def append(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._file.write(chunk)
        self.digest.update(chunk)
        self.size += len(chunk)

    def require_safetensors(self, name: str) -> None:
        """Make sure that what arrived is a whole safetensors file."""
        self._file.flush()
        require_safetensors(self._path, name)

    def remove(self) -> None:
        """Give up what arrived."""
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def become(self, path: Path) -> None:
        """Put the whole file in its place."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if os.name == "nt":  # an open file cannot be renamed there
            self._file.close()
        self._path.replace(path)
        self._note.unlink(missing_ok=True)

    def _read_validator(self) -> str:
        try:
            return str(json.loads(self._note.read_text(encoding="utf-8"))["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""


@contextlib.contextmanager
def _partial(order: _Order) -> Iterator[_Partial]:
    """Open what has arrived; another thread or process that fetches the same file is waited for."""
    part = order.path.with_name(order.path.name + PARTIAL)
    file = _locked(part, order.tell)
    try:
        yield _Partial(file, part)
    finally:
        if not file.closed and os.fstat(file.fileno()).st_size == 0:
            part.unlink(missing_ok=True)
        file.close()


def _locked(part: Path, tell: Tell) -> IO[bytes]:
    """Open a file for this thread alone; the one before may have renamed or removed it meanwhile."""
    while True:
        file = _open_or_make(part)
        if sys.platform == "win32":
            return file
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            size = os.fstat(file.fileno()).st_size
            file.close()
            tell(size, None)
            time.sleep(_LOOK_S)
            continue
        with contextlib.suppress(FileNotFoundError):
            if part.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()


def _open_or_make(part: Path) -> IO[bytes]:
    """Open in one step: between making and opening another thread could remove it."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(part, flags, 0o666), "r+b")


def _fetch(order: _Order, partial: _Partial, wait_s: float) -> None:
    try:
        if partial.digest.hexdigest() != order.sha256:  # the last time ended just before the end
            _receive_all(order, partial, wait_s)
        _keep(order, partial)
    except ModelIncompatible:
        partial.remove()
        raise


def _receive_all(order: _Order, partial: _Partial, wait_s: float) -> None:
    """Receive until everything is here, again after each break, as long as something new comes."""
    best, tries = partial.size, 0
    while True:
        try:
            _receive(order, partial)
            return
        except AddressRefused as error:
            raise ModelNotFound(f"{order.path.name}: {error}") from error
        except (_Again, Unreachable, network_error()) as error:
            tries = 0 if partial.size > best else tries + 1
            best = max(best, partial.size)
            if tries >= _TRIES:
                host = urlsplit(order.url).hostname
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                problem = f"expected an answer of {host}, got: {reason}"
                raise ModelNotFound(f"{order.path.name}: {problem}; {order.by_hand}") from error
            _rest(order, partial, wait_s * 2**tries)


def _rest(order: _Order, partial: _Partial, seconds: float) -> None:
    """Wait before the next attempt; what `Tell` raises ends that too."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        order.tell(partial.size, None)
        time.sleep(min(left, _LOOK_S))


def _receive(order: _Order, partial: _Partial) -> None:
    """Receive the rest of the file over one connection.

    Raises:
        _Again: it broke off, or what arrived earlier is of another version.
    """
    with _asked(order, partial.request(order)) as answer:
        _require_file(order, answer)
        total = _place(answer, partial)
        _require_size(order, total)
        _require_room(order, partial, total)
        order.tell(partial.size, total)
        for chunk in answer.iter_raw():  # as it comes: a chunk that is not full would be lost
            partial.append(chunk)
            if partial.size > order.most:
                _require_size(order, partial.size)
            order.tell(partial.size, total)
    expected = total if order.size is None else order.size
    if expected is not None and partial.size != expected:
        raise _Again(f"{partial.size} bytes of {expected}")


@contextlib.contextmanager
def _asked(order: _Order, headers: Mapping[str, str]) -> Iterator[Any]:
    """Ask for the file; the answer is one of the hub's client, or of the fetcher, which is alike."""
    opened: contextlib.AbstractContextManager[Any]
    if order.fetcher is not None:
        opened = order.fetcher.open(order.url, headers=headers, timeout_s=order.timeout_s)
    else:
        from huggingface_hub import get_session

        opened = get_session().stream(
            "GET",
            order.url,
            headers={**_pass(order.url), **headers},
            follow_redirects=True,
            timeout=order.timeout_s,
        )
    with opened as answer:
        yield answer


def _pass(url: str) -> dict[str, str]:
    """Tell the hub, and nobody else, who asks, where somebody is logged in there."""
    from huggingface_hub import constants, get_token

    token = get_token() if url.startswith(f"{constants.ENDPOINT}/") else None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _require_file(order: _Order, answer: Any) -> None:
    """Go on only when the server sends a file, or says that it cannot go on where we stopped."""
    name, host, status = order.path.name, urlsplit(order.url).hostname, answer.status_code
    if status == 429 or status >= 500:
        raise _Again(f"{status} {answer.reason_phrase}")
    if status in (401, 403):
        problem = f"{host} gives it only to people whom it knows ({status})"
        raise ModelNotFound(f"{name}: {problem}; {order.by_hand}")
    if status not in (200, 206, 416):
        problem = f"expected the file at {order.url}, got: {status} {answer.reason_phrase}"
        raise ModelNotFound(f"{name}: {problem}")
    if status != 416 and answer.headers.get("content-type", "").startswith("text/html"):
        raise ModelIncompatible(f"{name}: expected a file of weights, got a web page of {host}")


def _place(answer: Any, partial: _Partial) -> int | None:
    """See where in the file the answer begins; returns the size of the whole file, None when nobody says.

    Raises:
        _Again: it doesn't go on where we stopped, or in another version; the next attempt begins anew.
    """
    headers, before = answer.headers, partial.validator
    found = _RANGE.fullmatch(headers.get("content-range", ""))
    partial.remember(_validator(headers))
    if answer.status_code == 200:
        partial.restart()
        length = headers.get("content-length", "")
        return int(length) if length.isdecimal() else None
    is_same = not before or before == partial.validator
    if found is None or int(found[1]) != partial.size or not is_same:
        partial.restart()
        raise _Again("the file has changed")
    return int(found[2]) if found[2].isdecimal() else None


def _validator(headers: Mapping[str, str]) -> str:
    """Choose what tells versions of a file apart: a strong tag, else the time of the last change."""
    tag = headers.get("etag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("last-modified", "")


def _require_size(order: _Order, size: int | None) -> None:
    if order.size is not None and size is not None and size != order.size:
        problem = f"expected {order.size} bytes, got {size}"
        raise ModelIncompatible(f"{order.path.name}: {problem}; it was removed")
    if size is not None and size > order.most:
        problem = f"expected at most {MAX_ASKED} bytes, got more"
        raise ModelIncompatible(f"{order.path.name}: {problem}; it was removed")


def _require_room(order: _Order, partial: _Partial, total: int | None) -> None:
    missing = (total or order.size or 0) - partial.size
    if missing + _ROOM > shutil.disk_usage(order.path.parent).free:
        raise _no_room(order, missing)


def _no_room(order: _Order, missing: int | None = None) -> ModelNotFound:
    need = f"{missing / 2**20:.0f} MiB free" if missing else "more room"
    problem = f"expected {need} in {order.path.parent}, got a full disk"
    return ModelNotFound(f"{order.path.name}: {problem}; what has arrived is kept")


def _keep(order: _Order, partial: _Partial) -> None:
    """Check what has arrived, record its hash and put it in its place."""
    found = partial.digest.hexdigest()
    record = order.path.with_name(order.path.name + RECORD)
    recorded = recorded_hash(order.path)
    if order.sha256 is not None and found != order.sha256:
        is_first = order.sha256 != recorded
        whose = "the expected" if is_first else "that of the first download,"
        hint = "" if is_first else f"; remove {record.name} to take the new one"
        problem = f"sha256 {found[:12]}… does not match {whose} {order.sha256[:12]}…"
        raise ModelIncompatible(f"{order.path.name}: {problem}; it was removed{hint}")
    if order.fetcher is not None and order.path.suffix == SAFE:
        partial.require_safetensors(order.path.name)
    if recorded != found:
        record.write_text(f"{found}  {order.path.name}\n", encoding="utf-8")
    partial.become(order.path)


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
