"""The scheduler of ZeroGPU as the package ``spaces`` talks to it, on loopback: lends one card, and notes what it is asked."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

QUOTA_S = "exhausted"
"""A visitor by whose token no seconds are left."""


@dataclass
class Scheduler:
    address: str
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Every call, by name and parameters."""

    def calls(self, name: str) -> list[dict[str, str]]:
        return [given for called, given in self.asked if called == name]


def token_of(name: str) -> str:
    """The token that the proxy of Spaces sends along for a visitor."""
    payload = base64.urlsafe_b64encode(json.dumps({"user": name}).encode()).decode().rstrip("=")
    return f"e30.{payload}.{name}"


@contextmanager
def fake_zero_gpu() -> Iterator[Scheduler]:
    scheduler = Scheduler("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            name, given = parts.path.strip("/"), dict(parse_qsl(parts.query))
            scheduler.asked.append((name, given))
            if name != "schedule":
                self._answer(200, {})
            elif given.get("token") == token_of(QUOTA_S):
                self._answer(
                    429, {"left": 7, "wait": "0:12:00"}, ("X-Approve-Result", "quota-exceeded")
                )
            else:
                card = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0"}
                self._answer(200, {**card, "allowToken": f"allow-{len(scheduler.asked)}"})

        def _answer(self, status: int, body: dict[str, Any], *headers: tuple[str, str]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for key, value in (("Content-Type", "application/json"), *headers):
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        scheduler.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield scheduler
        server.shutdown()
        thread.join()
