"""The proxy of fal's JavaScript clients: a request that names one of fal's addresses is answered as if it had gone there.

Nothing leaves the studio: the address is mapped to our own route, and every other one is refused. A pure ASGI wrapper,
so answers pass as they come.
"""

from urllib.parse import quote, unquote, urlsplit

from starlette.datastructures import Headers

from api.addresses import FAL_HOSTS, PREFIXES
from api.limits import App, Receive, Scope, Send, refuse

PATH = "/api/fal/proxy"
TARGET = "x-fal-target-url"
_HEADER = TARGET.encode()


class Proxy:
    """Answers requests to `PATH` by the route that their target stands for."""

    def __init__(self, app: App) -> None:
        """Wrap `app`, which has the routes of all services below their prefixes."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to where it is meant to go."""
        if scope["type"] != "http" or scope["path"].rstrip("/") != PATH:
            await self._app(scope, receive, send)
            return
        target = Headers(scope=scope).get(TARGET)
        if target is None:
            await refuse(send, 400, f"{TARGET}: expected this header")
            return
        inner = _inner(scope, target)
        if inner is None:
            await refuse(send, 400, f"{TARGET}: expected an address of fal's, got another")
            return
        await self._app(inner, receive, send)


def _inner(scope: Scope, target: str) -> Scope | None:
    """Rewrite a request for its target; None when that is none of fal's addresses."""
    try:
        parts = urlsplit(target)
        port = parts.port
    except ValueError:
        return None
    service = FAL_HOSTS.get(parts.hostname or "")
    is_plain = parts.scheme == "https" and "@" not in parts.netloc and port in (None, 443)
    if service is None or not is_plain or not target.isascii():
        return None
    path = (PREFIXES[service] + unquote(parts.path)).rstrip("/") or "/"
    if path == PATH:
        return None
    return {
        **scope,
        "path": path,
        "raw_path": quote(path, safe="/%").encode(),
        "query_string": parts.query.encode(),
        "headers": [(key, value) for key, value in scope["headers"] if key.lower() != _HEADER],
    }
