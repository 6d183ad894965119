"""The scheduler of ZeroGPU as the package ``spaces`` talks to it, on loopback: lends one card, and notes what it is asked."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from tests.space.json_server import JsonHandler, served

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

    class Handler(JsonHandler):
        def do_POST(self) -> None:  # noqa: N802  (the library names it so)
            parts = urlsplit(self.path)
            name, given = parts.path.strip("/"), dict(parse_qsl(parts.query))
            scheduler.asked.append((name, given))
            if name != "schedule":
                self.answer(200, {})
            elif given.get("token") == token_of(QUOTA_S):
                self.answer(
                    429, {"left": 7, "wait": "0:12:00"}, ("X-Approve-Result", "quota-exceeded")
                )
            else:
                card = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0"}
                self.answer(200, {**card, "allowToken": f"allow-{len(scheduler.asked)}"})

    with served(Handler) as scheduler.address:
        yield scheduler
