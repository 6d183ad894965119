"""How much anybody may ask for, and the two walls around every route that hold it: longest body, and rate of requests.

Both walls are plain ASGI and know nothing of routes; the paths that they treat apart are handed in.
"""

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MiB = 2**20
GiB = 2**30
MAX_BUCKETS = 10_000
"""Askers whose rate is remembered; of more, those who asked longest ago start afresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much anybody may ask for."""

    body_bytes: int = 72 * MiB
    """Longest body of a request; an image of `image_bytes` fits in as a data URI. Uploads have limits of their own."""
    image_bytes: int = 50 * MiB
    """Largest file of an image."""
    image_pixels: int = 50_000_000
    """Most pixels of an image, width times height."""
    image_side: int = 16_384
    """Longest side of an image in pixels."""
    download_s: float = 30.0
    """Longest time in seconds to fetch an image."""
    url_chars: int = 8192
    """Longest address."""
    loras: int = 5
    """Most LoRAs of a request."""
    requests_per_s: float = 20.0
    """Rate at which one owner may ask for something in the long run."""
    burst: int = 200
    """Requests that may come at once."""
    file_bytes: int = 512 * MiB
    """Largest uploaded file."""
    owner_bytes: int = 4 * GiB
    """Uploaded files of one owner together."""
    store_bytes: int = 16 * GiB
    """Uploaded files of everybody together."""
    file_days: float = 7.0
    """How long a file is kept."""


class BodyTooLong(HTTPException):
    """A body is longer than it may be; a status that every app of Starlette understands."""

    def __init__(self, most: int) -> None:
        super().__init__(413, f"body: expected at most {most} bytes")


class BodyLimit:
    """Cuts bodies that are longer than they may be, before anybody parses them."""

    def __init__(self, app: App, *, most: Callable[[Scope], int | None]) -> None:
        """Wrap `app`.

        Args:
            app: What is guarded.
            most: Longest body of a request in bytes; None where the route counts itself.
        """
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, up to its limit."""
        most = self._most(scope) if scope["type"] == "http" else None
        if most is None:
            await self._app(scope, receive, send)
            return
        said = _header(scope, b"content-length")
        if said.isdigit() and int(said[:20]) > most:
            await refuse(send, 413, BodyTooLong(most).detail)
            return
        arrived, has_begun = 0, False

        async def receive_counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > most:
                raise BodyTooLong(most)
            return message

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive_counted, send_noted)
        except BodyTooLong as error:
            if has_begun:
                raise
            await refuse(send, 413, error.detail)


class RateLimit:
    """Slows down who asks too often: a bucket of tokens for each asker."""

    def __init__(
        self,
        app: App,
        *,
        per_s: float,
        burst: int,
        asker: Callable[[Scope], str],
        is_free: Callable[[Scope], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap `app`.

        Args:
            app: What is guarded.
            per_s: Requests a second in the long run.
            burst: Requests that may come at once.
            asker: Names who asks; all requests of one name share a bucket.
            is_free: Whether a request costs nothing, such as a look at a status.
            clock: Seconds that never run backwards.
        """
        self._app = app
        self._buckets = Buckets(per_s, burst, clock)
        self._asker = asker
        self._is_free = is_free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429 with the time to wait."""
        if scope["type"] != "http" or self._is_free(scope):
            await self._app(scope, receive, send)
            return
        wait_s = self._buckets.take(self._asker(scope))
        if wait_s == 0:
            await self._app(scope, receive, send)
            return
        seconds = str(math.ceil(wait_s)).encode()
        problem = "rate: expected fewer requests, try again later"
        await refuse(send, 429, problem, (b"retry-after", seconds))


class Buckets:
    """Tokens of many askers: each request takes one, they come back at a steady rate."""

    def __init__(self, per_s: float, size: int, clock: Callable[[], float]) -> None:
        self._per_s = per_s
        self._size = size
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, asker: str) -> float:
        """Take a token; returns 0, or the seconds until there is one."""
        with self._lock:
            now = self._clock()
            left, since = self._left.pop(asker, (float(self._size), now))
            left = min(float(self._size), left + (now - since) * self._per_s)
            is_enough = left >= 1
            self._left[asker] = (left - 1 if is_enough else left, now)
            if len(self._left) > MAX_BUCKETS:
                self._left.popitem(last=False)
            return 0.0 if is_enough else (1 - left) / self._per_s


def is_look(scope: Scope) -> bool:
    """Whether a request only looks, or stops something: those are cheap and come often."""
    path: str = scope["path"]
    return scope["method"] in ("GET", "HEAD", "OPTIONS") or path.rstrip("/").endswith("/cancel")


def client_address(scope: Scope) -> str:
    """Name an asker by its address; networks of IPv6 count as one."""
    host = str((scope.get("client") or ("",))[0])
    return ":".join(host.split(":")[:4]) if ":" in host else host


async def refuse(send: Send, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
    """Answer with an error in fal's flat form."""
    body = json.dumps({"detail": detail}).encode()
    sent = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key.lower() == name), b"")
