"""What stands before the page: sends requests for the fal face there, by path or by fal's own host names.

A pure ASGI wrapper. It also says, for the whole fal face, that pages of other origins may read the answers; which origins
may ask at all, the guard outside it has decided. Knows no routes.
"""

from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders

from api.addresses import PREFIXES, fal_service
from api.limits import App, Message, Receive, Scope, Send

OURS = ("/fal-ai", *filter(None, PREFIXES.values()), "/api/fal", "/api/openapi")
"""Paths below which everything is the fal face's."""
ALONE = ("/docs", "/openapi.json", "/health", "/health/live", "/health/ready", "/metrics")
"""Paths that are its too."""
EXPOSED = (
    "x-fal-request-id, x-fal-billable-units, x-fal-error-type, x-fal-request-timeout-type, "
    "x-fal-retryable, retry-after, etag"
)
METHODS = "GET, HEAD, POST, PUT, OPTIONS"
ASKED = (
    "authorization, content-type, x-fal-target-url, x-fal-queue-priority, x-fal-runner-hint, "
    "x-fal-request-timeout, x-fal-object-lifecycle, x-fal-object-lifecycle-preference"
)
MAX_AGE_S = 600


class Front:
    """Chooses between the page and the fal face."""

    def __init__(self, app: App, api: App) -> None:
        """Wrap `app`.

        Args:
            app: The page, and whatever else is not the fal face's.
            api: The fal face.
        """
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to one of the two."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = _own_path(scope["path"], headers)
        if path is None:
            await self._app(scope, receive, send)
            return
        origin = headers.get("origin")
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            await _permit(headers, send)
            return
        inner = {**scope, "path": path, "raw_path": quote(path, safe="/%").encode()}
        await self._api(inner, receive, _readable(send, origin) if origin else send)


def _own_path(path: str, headers: Headers) -> str | None:
    """Write the path of a request to the fal face with the prefix of its service; None for any other request."""
    service = fal_service(headers)
    if service is not None:
        path = PREFIXES[service] + path
    elif path not in ALONE and not any(path == own or path.startswith(f"{own}/") for own in OURS):
        return None
    return path.rstrip("/") or "/"


def _readable(send: Send, origin: str) -> Send:
    """Let a page of `origin` read the answer."""

    async def send_readable(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = EXPOSED
            headers.add_vary_header("Origin")
            message = {**message, "headers": headers.raw}
        await send(message)

    return send_readable


async def _permit(headers: Headers, send: Send) -> None:
    """Answer what browsers ask before they ask."""
    sent = {
        "access-control-allow-origin": headers.get("origin", ""),
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": headers.get("access-control-request-headers", ASKED),
        "access-control-max-age": str(MAX_AGE_S),
        "allow": METHODS,
        "vary": "Origin, Access-Control-Request-Headers",
    }
    raw = [(key.encode(), value.encode("latin-1")) for key, value in sent.items() if value]
    await send({"type": "http.response.start", "status": 204, "headers": raw})
    await send({"type": "http.response.body", "body": b""})
