"""Who may talk to the studio: pages of its own, never a page of a stranger in the same browser.

A pure ASGI wrapper around every route. It refuses a foreign ``Host`` (a stranger's name that points at this machine, DNS
rebinding) and a foreign ``Origin`` (a stranger's page that posts here). Knows nothing of logins.
"""

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSED_BELOW = "/gradio_api/"
CLOSED = (
    "process_recording",
    "vibe-",
    "deep_link",
    "monitoring",
    "proxy=",
    "call/",
)
"""Routes that Gradio opens and the page never asks for: they run programs on uploads, store state or fetch addresses."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Answers 403 to requests under a foreign name or from a foreign page."""

    def __init__(self, app: App, allowed: Iterable[str] = ()) -> None:
        """Wrap `app`.

        Args:
            app: What is guarded.
            allowed: Host names (with or without a scheme or port) that are at home besides loopback, bare addresses and
                this machine's own name; one that starts with a dot stands for all names below it.
        """
        self._app = app
        self._allowed = frozenset(_name(item if "//" in item else f"//{item}") for item in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        problem = self._problem(scope.get("path", ""), headers)
        if problem is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(send, problem)

    def _problem(self, path: str, headers: dict[str, str]) -> str | None:
        if any(path.startswith(CLOSED_BELOW + name) for name in CLOSED):
            return "path: expected one that the page uses"
        host = _name(f"//{headers.get('host', '')}")
        if not self._is_home(host):
            return (
                f"host: expected a name of this studio, got {host[:80]!r}; --allow-origin adds one"
            )
        origin = headers.get("origin")
        if origin is None:
            return None
        page = _name(origin)
        if page == host or page in LOOPBACK or self._is_allowed(page):
            return None
        return (
            f"origin: expected a page of this studio, got {origin[:80]!r}; --allow-origin adds one"
        )

    def _is_home(self, host: str) -> bool:
        return host in LOOPBACK or _is_address(host) or self._is_allowed(host)

    def _is_allowed(self, host: str) -> bool:
        below = any(name.startswith(".") and host.endswith(name) for name in self._allowed)
        return bool(host) and (host in self._allowed or below)


def _name(address: str) -> str:
    """Take the host out of an address, in lower case; '' where there is none or it cannot be read."""
    try:
        return (urlsplit(address).hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    """Bare IP addresses cannot be rebound, so they are at home."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _refuse(send: Send, problem: str) -> None:
    body = json.dumps({"detail": problem}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
