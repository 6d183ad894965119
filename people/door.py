"""The door before the page: whoever has not logged in gets the login page, and nothing else.

A pure ASGI wrapper around everything but the fal face, which knows programs by their keys. It lets no path pass that it does
not know to be open, so a route that is added later is closed until somebody says otherwise.
"""

import json
import time
from collections.abc import Callable

from starlette.datastructures import Headers

from api.limits import App, Message, Receive, Scope, Send
from jobs import StorageFailed
from people.entrance import Entrance, Visitor
from people.headers import VISITOR

OURS = ("/login", "/logout", "/admin", "/people", "/shared")
"""Paths, and all below them, that our own pages answer; they look at the visitor themselves."""
OPEN = frozenset({"/gradio_api/startup-events"})
"""Paths that anybody may ask for: Gradio asks itself, without a login, when it starts, and answers ``true`` or ``false``."""
OF_OWNERS = frozenset(
    {
        ("POST", "/studio/loras"),
        ("POST", "/studio/loras/fetch"),
        ("POST", "/studio/loras/notes"),
        ("POST", "/studio/loras/thumbnail"),
    }
)
"""What changes something for everybody; guests may not."""
LOOK_S = 10.0
"""How often a long answer asks whether its login still holds, in seconds."""


class Door:
    """Chooses between the page, our own pages, and a refusal."""

    def __init__(
        self,
        app: App,
        *,
        entrance: Entrance,
        pages: App,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap `app`.

        Args:
            app: The page.
            entrance: Knows the visitors.
            pages: Answers below `OURS`.
            clock: Seconds that never run backwards.
        """
        self._app = app
        self._entrance = entrance
        self._pages = pages
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies = "; ".join(headers.getlist("cookie"))
        try:
            visitor = self._entrance.visitor(cookies)
        except StorageFailed as error:
            await _answer(scope, send, 503, str(error))
            return
        inner = {**scope, VISITOR: visitor}
        path = scope["path"].rstrip("/")
        if _is_ours(path):
            await self._pages(inner, receive, send)
        elif path in OPEN and scope["type"] == "http":
            await self._app(inner, receive, send)
        elif visitor is None:
            await _to_login(scope, headers, send)
        elif (scope.get("method"), path) in OF_OWNERS and visitor.role != "owner":
            await _answer(scope, send, 403, "role: expected an owner of this studio, got a guest")
        else:
            inner_send = self._while_valid(send, visitor, cookies)
            await self._app(inner, receive, _introduce(inner_send, visitor, path))

    def _while_valid(self, send: Send, visitor: Visitor, cookies: str) -> Send:
        """End an answer that goes on when its visitor may be here no more."""
        look_at, has_ended = self._clock() + LOOK_S, False

        async def send_on(message: Message) -> None:
            nonlocal look_at, has_ended
            if has_ended:
                return
            if message.get("more_body") and self._clock() >= look_at:
                look_at = self._clock() + LOOK_S
                has_ended = not self._is_still(visitor, cookies)
                message = {**message, "body": b"", "more_body": False} if has_ended else message
            await send(message)

        return send_on

    def _is_still(self, visitor: Visitor, cookies: str) -> bool:
        try:
            return self._entrance.visitor(cookies) == visitor
        except StorageFailed:
            return False


def _introduce(send: Send, visitor: Visitor, path: str) -> Send:
    """Let a browser that opens the page keep who it is from now on."""
    cookie = visitor.cookie
    if path or cookie is None:
        return send

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            # Kept by a proxy, one browser's cookie would make strangers one visitor.
            more = ((b"set-cookie", cookie.encode("latin-1")), (b"cache-control", b"no-store"))
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return send_on


def _is_ours(path: str) -> bool:
    return any(path == own or path.startswith(f"{own}/") for own in OURS)


async def _to_login(scope: Scope, headers: Headers, send: Send) -> None:
    """Send a browser that opens a page to the login, and tell any other asker that it needs one."""
    is_page = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    if is_page and (scope["path"] == "/" or "text/html" in headers.get("accept", "")):
        place = f"{scope.get('root_path', '')}/login".encode()
        await _answer(scope, send, 303, "login: expected one", (b"location", place))
    else:
        await _answer(scope, send, 401, "login: expected one; open the page and log in")


async def _answer(
    scope: Scope, send: Send, status: int, detail: str, *more: tuple[bytes, bytes]
) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({"detail": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
