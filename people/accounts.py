"""Visitors of a Space: each is somebody of his own, by a Hugging Face account once signed in, else by browser.

A Space is shown in a frame of another site, where browsers only send cookies that say so (``SameSite=None``, ``Secure``).
"""

import hashlib
import hmac
import logging
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from api.tickets import Tickets
from people.entrance import COOKIE, LOGIN_S, Entrance, Visitor, cookie_of
from people.headers import SAFE
from people.roster import People
from space import SignIn, Space

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

ACCOUNT = "hf:"
"""Begins the names of those who have signed in; no name of a person has a colon."""
BROWSER = "browser:"
"""Begins the names of all others."""
ACCOUNT_COOKIE = "pochade_account"
BROWSER_COOKIE = "pochade_browser"
SIGN_IN_COOKIE = "pochade_sign_in"
BROWSER_S = 90 * 24 * 3600.0
"""How long a browser is known again, in seconds."""
SIGN_IN_S = 600.0
"""How long signing in may take, in seconds."""
PATIENCE_S = 20.0
"""How long the provider may take for one answer, in seconds."""
CALLBACK = "/login/callback"


class SpaceEntrance(Entrance):
    """Lets everybody in, to things of his own; once the studio has people, only those."""

    def __init__(self, people: People, tickets: Tickets, author: str) -> None:
        """Put it together; who has signed in as `author` is an owner."""
        super().__init__(people, tickets, is_home=False)
        self._author = author

    def visitor(self, cookies: str) -> Visitor | None:
        """Name who asks by the header ``Cookie``.

        Raises:
            StorageFailed: the people cannot be read.
        """
        if self.people.list():
            return super().visitor(cookies)
        account = self.tickets.read("account", cookie_of(cookies, ACCOUNT_COOKIE))
        if account is not None:
            role = "owner" if account["name"] == self._author else "guest"
            return Visitor(f"{ACCOUNT}{account['name']}", role)  # type: ignore[arg-type]
        browser = self.tickets.read("browser", cookie_of(cookies, BROWSER_COOKIE))
        if browser is not None:
            return Visitor(f"{BROWSER}{browser['id']}", "guest", has_login=False)
        new = secrets.token_urlsafe(18)
        ticket = self.tickets.issue("browser", {"id": new}, BROWSER_S)
        kept = framed_cookie(BROWSER_COOKIE, ticket, BROWSER_S, is_partitioned=True)
        return Visitor(f"{BROWSER}{new}", "guest", has_login=False, cookie=kept)


class SignInFailed(Exception):
    """The provider did not say who it is; the text says why."""


@dataclass(frozen=True, slots=True)
class _Endpoints:
    authorize: str
    token: str
    userinfo: str


class Accounts:
    """Signs visitors in with the OAuth application that a Space has (code flow with PKCE), and out."""

    def __init__(self, space: Space, sign_in: SignIn, tickets: Tickets) -> None:
        self._space = space
        self._sign_in = sign_in
        self._tickets = tickets
        self._known: _Endpoints | None = None

    @property
    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/login/huggingface", self.begin, methods=["GET"]),
            Route(CALLBACK, self.finish, methods=["GET"]),
            Route("/logout", self.leave, methods=["POST"]),
        ]

    async def begin(self, request: Request) -> Response:
        """Send a browser to the provider, from the host name that it sends it back to."""
        if request.url.hostname in self._space.hosts[1:]:
            return RedirectResponse(f"https://{self._space.host}/login/huggingface", 303)
        state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        try:
            endpoints = await run_in_threadpool(self._endpoints)
        except SignInFailed as error:
            return _sorry(error)
        asked = {
            "response_type": "code",
            "client_id": self._sign_in.client_id,
            "redirect_uri": self._callback,
            "scope": self._sign_in.scopes,
            "state": state,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        ticket = self._tickets.issue("sign in", {"state": state, "verifier": verifier}, SIGN_IN_S)
        answer = RedirectResponse(f"{endpoints.authorize}?{urlencode(asked)}", 303)
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Set-Cookie"] = framed_cookie(SIGN_IN_COOKIE, ticket, SIGN_IN_S)
        return answer

    async def finish(self, request: Request) -> Response:
        """Take in a browser that comes back from the provider."""
        given = request.query_params
        begun = self._tickets.read("sign in", request.cookies.get(SIGN_IN_COOKIE))
        try:
            if begun is None or not hmac.compare_digest(
                begun["state"].encode(), given.get("state", "").encode()
            ):
                raise SignInFailed("it was not begun here, or took too long")
            if "code" not in given:
                raise SignInFailed(given.get("error_description") or "it was not allowed")
            name = await run_in_threadpool(self._name_of, given["code"], begun["verifier"])
        except SignInFailed as error:
            return _sorry(error)
        log.info("signed in: %s", name)
        ticket = self._tickets.issue("account", {"name": name}, LOGIN_S)
        answer = RedirectResponse("/", 303)
        answer.headers.append("Set-Cookie", framed_cookie(ACCOUNT_COOKIE, ticket, LOGIN_S))
        answer.headers.append("Set-Cookie", framed_cookie(SIGN_IN_COOKIE, "", 0))
        return answer

    async def leave(self, request: Request) -> Response:
        """Forget who has signed in or logged in."""
        answer = RedirectResponse("/", 303, headers=SAFE)
        for name in (ACCOUNT_COOKIE, COOKIE):
            answer.headers.append("Set-Cookie", framed_cookie(name, "", 0))
        answer.headers["Clear-Site-Data"] = '"storage"'
        return answer

    @property
    def _callback(self) -> str:
        return f"https://{self._space.host}{CALLBACK}"

    def _endpoints(self) -> _Endpoints:
        """Ask the provider once where it does what."""
        if self._known is None:
            address = f"{self._sign_in.provider.rstrip('/')}/.well-known/openid-configuration"
            found = _json(lambda client: client.get(address))
            try:
                self._known = _Endpoints(
                    authorize=found["authorization_endpoint"],
                    token=found["token_endpoint"],
                    userinfo=found["userinfo_endpoint"],
                )
            except KeyError as error:
                raise SignInFailed("the provider says too little about itself") from error
        return self._known

    def _name_of(self, code: str, verifier: str) -> str:
        """Turn a code into the name of the account."""
        endpoints, secret = self._endpoints(), self._sign_in.client_secret
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "code_verifier": verifier,
        }
        known_by = (self._sign_in.client_id, secret)
        granted = _json(lambda client: client.post(endpoints.token, data=form, auth=known_by))
        bearer = {"Authorization": f"Bearer {granted.get('access_token', '')}"}
        told = _json(lambda client: client.get(endpoints.userinfo, headers=bearer))
        name = told.get("preferred_username")
        if not isinstance(name, str) or not name:
            raise SignInFailed("the provider names nobody")
        return name


def framed_cookie(name: str, value: str, seconds: float, *, is_partitioned: bool = False) -> str:
    """Write a cookie that a frame of another site may have; a partitioned one is kept for that site alone."""
    more = "; Partitioned" if is_partitioned else ""
    return f"{name}={value}; Path=/; Max-Age={int(seconds)}; HttpOnly; Secure; SameSite=None{more}"


def _challenge(verifier: str) -> str:
    """Make what PKCE (RFC 7636) shows of a secret beforehand."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _json(ask: "Callable[[httpx.Client], httpx.Response]") -> dict[str, Any]:
    """Ask the provider something.

    Raises:
        SignInFailed: it does not answer, or refuses.
    """
    import httpx

    try:
        with httpx.Client(timeout=PATIENCE_S) as client:
            answer = ask(client).raise_for_status()
            found: Any = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        log.warning("sign in: %s", error)
        raise SignInFailed("the provider cannot be reached, or refuses") from error
    if not isinstance(found, dict):
        raise SignInFailed("the provider cannot be understood")
    return found


def _sorry(error: SignInFailed) -> Response:
    words = escape(f"Signing in did not work: {error}.")
    body = f'<!doctype html><title>Pochade</title><p>{words}</p><p><a href="/">Back to the studio</a></p>'
    return HTMLResponse(body, 400, headers=SAFE)
