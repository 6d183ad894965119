"""Our own pages before and beside the studio's: login, logout, the owners' page, and pictures that were shared."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import parse_qs

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from api.limits import client_address
from engine import EngineError, InvalidRequest
from people.admin import Admin, admin_routes
from people.bodies import read_object
from people.entrance import COOKIE, LOGIN_S, Entrance, TooManyTries, Visitor, WrongPassword
from people.headers import SAFE, VISITOR
from people.passwords import require_password
from people.sharing import Sharing

STATIC = Path(__file__).parent / "static"
MAX_FORM = 4096
"""Longest body of a login in bytes."""
LOOKS_AT_ONCE = 2
"""Passwords that are looked at at the same time: each takes much memory and a core."""
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}
STATUS = {
    "invalid_request": 422,
    "storage_failed": 503,
    "too_many_tries": 429,
    "wrong_password": 401,
}


def pages(entrance: Entrance, admin: Admin, more: Sequence[BaseRoute] = ()) -> Starlette:
    """Put our own pages together.

    Args:
        entrance: Knows the visitors.
        admin: What owners look after.
        more: Routes that go before.
    """
    doors = _LoginPages(entrance)
    sharing = Sharing(entrance.tickets, admin.jobs, admin.people)
    routes: list[BaseRoute] = [
        *more,
        Route("/login", doors.show, methods=["GET"]),
        Route("/login", doors.login, methods=["POST"]),
        Route("/logout", doors.logout, methods=["POST"]),
        Route("/people/password", doors.change_password, methods=["POST"]),
        Route("/people/{name}", _Files().static, methods=["GET"]),
        *admin_routes(admin, _page("admin.html")),
        *sharing.routes,
    ]
    return Starlette(routes=routes)


class _LoginPages:
    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._page = _page("login.html")
        self._looks: anyio.CapacityLimiter | None = None

    async def show(self, request: Request) -> Response:
        """Ask for name and password; tells how people are made where there are none."""
        if not self._entrance.people.list():
            return self._say("Nobody can log in yet: python app.py people add NAME --owner", 200)
        return self._say("", 200)

    async def login(self, request: Request) -> Response:
        """Look at name and password; the right ones open the page."""
        form = await _form(request)
        address = client_address(request.scope)
        name = form.get("name", "").strip()
        try:
            self._entrance.begin(name, address)
            password = form.get("password", "")
            login = await self._look(self._entrance.login, name, password, address)
        except EngineError as error:
            answer = self._say(str(error), STATUS.get(error.kind, 503))
            if isinstance(error, TooManyTries):
                answer.headers["Retry-After"] = str(error.wait_s)
            return answer
        return _logged_in(request, _away(request, "/"), login)

    async def change_password(self, request: Request) -> Response:
        """Give the visitor a new password for the old one; who came in by the old one elsewhere has to log in again."""
        visitor: Visitor | None = request.scope[VISITOR]
        if visitor is None:
            return _told("login: expected one", 401)
        name, address = visitor.name, client_address(request.scope)
        try:
            given = await read_object(request)
            old, new = given.get("old", ""), given.get("new", "")
            require_password(new)
            if self._entrance.people.find(name) is None:
                raise InvalidRequest("name", "expected a person with a password here")
            self._entrance.begin(name, address)
            login = await self._look(self._entrance.change_password, name, old, new, address)
        except WrongPassword:
            return _told("The old password is wrong.", 403)
        except EngineError as error:
            return _told(str(error), STATUS.get(error.kind, 503))
        return _logged_in(request, JSONResponse({}, headers=SAFE), login)

    async def _look(self, slow: Callable[..., str], *given: str) -> str:
        """Do what looks at a password, in a thread, few at a time."""
        self._looks = self._looks or anyio.CapacityLimiter(LOOKS_AT_ONCE)
        return await anyio.to_thread.run_sync(slow, *given, limiter=self._looks)

    async def logout(self, request: Request) -> Response:
        """Forget who asks; browsers that can forget what the page kept."""
        answer = _away(request, "/login")
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        answer.headers["Clear-Site-Data"] = '"storage"'
        return answer

    def _say(self, words: str, status: int) -> Response:
        text = self._page.replace("{{words}}", escape(words))
        return HTMLResponse(text, status, headers=SAFE)


class _Files:
    """What the pages load. Read once: a name from outside is only looked up here."""

    def __init__(self) -> None:
        self._files = {
            path.name: (path.read_bytes(), MEDIA_TYPES[path.suffix])
            for path in STATIC.iterdir()
            if path.suffix in MEDIA_TYPES
        }

    async def static(self, request: Request) -> Response:
        found = self._files.get(request.path_params["name"])
        if found is None:
            return JSONResponse({"detail": "people: no file of that name"}, 404, headers=SAFE)
        headers = {**SAFE, "Cache-Control": "no-cache"}
        return Response(found[0], media_type=found[1], headers=headers)


async def _form(request: Request) -> dict[str, str]:
    """Read a posted form, of which the first value of each name counts; an overlong one is empty."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM:
            return {}
    try:
        fields = parse_qs(body.decode("utf-8", errors="replace"), max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _page(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _logged_in(request: Request, answer: Response, login: str) -> Response:
    """Let a browser keep a login."""
    answer.set_cookie(
        COOKIE,
        login,
        max_age=int(LOGIN_S),
        path="/",
        secure=_is_https(request),
        httponly=True,
        samesite="lax",
    )
    return answer


def _told(detail: str, status: int) -> Response:
    return JSONResponse({"detail": detail}, status, headers=SAFE)


def _away(request: Request, path: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}", 303, headers=SAFE)


def _is_https(request: Request) -> bool:
    """Whether the browser came by https, to us or to what stands before us."""
    origin = request.headers.get("origin", "")
    return request.url.scheme == "https" or origin.startswith("https://")
