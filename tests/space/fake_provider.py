"""An OpenID provider on loopback, as a Space meets it: grants codes, checks the secret and PKCE, names accounts."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from tests.space.json_server import JsonHandler, served

CLIENT, SECRET = "client-id", "client-secret"


class Provider:
    """Grants whatever is asked for in the name of `account`."""

    def __init__(self) -> None:
        self.address = ""
        self.account = "ann"
        self.granted: dict[str, tuple[str, dict[str, str]]] = {}
        """By code: the account, and what was asked."""

    def visit(self, address: str) -> str:
        """Do what a browser and its person do there; returns the address that they are sent back to."""
        asked = dict(parse_qsl(urlsplit(address).query))
        assert asked["client_id"] == CLIENT
        code = f"code-{len(self.granted)}"
        self.granted[code] = (self.account, asked)
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"


@contextmanager
def fake_provider() -> Iterator[Provider]:
    provider = Provider()

    class Handler(JsonHandler):
        def do_GET(self) -> None:  # noqa: N802  (the library names it so)
            if self.path == "/.well-known/openid-configuration":
                names = {"authorization": "authorize", "token": "token", "userinfo": "userinfo"}
                places = {
                    f"{key}_endpoint": f"{provider.address}/oauth/{it}" for key, it in names.items()
                }
                self.answer(200, places)
            elif self.path == "/oauth/userinfo":
                account = self.headers["Authorization"].removeprefix("Bearer token-of-")
                self.answer(200, {"sub": "1", "preferred_username": account})
            else:
                self.answer(404, {})

        def do_POST(self) -> None:  # noqa: N802  (the library names it so)
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            given = {name: values[0] for name, values in parse_qs(body).items()}
            known = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
            account, asked = provider.granted.pop(given["code"], ("", {}))
            digest = hashlib.sha256(given["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if known == f"{CLIENT}:{SECRET}" and asked.get("code_challenge") == challenge:
                self.answer(200, {"access_token": f"token-of-{account}"})
            else:
                self.answer(400, {"error": "invalid_grant"})

    with served(Handler) as provider.address:
        yield provider
