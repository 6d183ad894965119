"""Long bodies are cut before they are parsed, and who asks too often is told when to come back."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from api import limits
from api.limits import BodyLimit, Buckets, Limits, RateLimit, client_address, is_look


class Talk:
    """One request to an app of plain ASGI, and what came back."""

    def __init__(
        self, *parts: bytes, path: str = "/", method: str = "POST", **headers: str
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "path": path,
            "method": method,
            "client": ("10.0.0.1", 1),
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
        }
        self._parts: Iterator[bytes] = iter(parts)
        self.read = 0
        self.sent: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        body = next(self._parts, b"")
        self.read += len(body)
        return {"type": "http.request", "body": body, "more_body": bool(body)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def ask(self, app: Any) -> int:
        asyncio.run(app(self.scope, self.receive, self.send))
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


async def reader(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})


def limited(most: int | None) -> BodyLimit:
    return BodyLimit(reader, most=lambda scope: most)


def test_a_body_within_the_limit_passes() -> None:
    assert Talk(b"12345", b"67890", content_length="10").ask(limited(10)) == 200
    assert Talk(b"x" * 1000).ask(limited(None)) == 200


def test_a_body_that_says_it_is_too_long_is_not_read() -> None:
    for said in ("11", "9" * 4000):
        talk = Talk(b"12345", content_length=said)
        assert talk.ask(limited(10)) == 413
        assert talk.read == 0
        assert json.loads(talk.sent[1]["body"]) == {"detail": "body: expected at most 10 bytes"}


def test_a_body_that_lies_is_cut() -> None:
    for said in ({"content_length": "1"}, {}, {"content_length": "-1"}):
        talk = Talk(*[b"12345678"] * 1000, **said)
        assert talk.ask(limited(10)) == 413
        assert talk.read == 16


def rate(clock: Any = lambda: 0.0, burst: int = 3) -> RateLimit:
    return RateLimit(
        reader, per_s=0.5, burst=burst, asker=client_address, is_free=is_look, clock=clock
    )


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    now = [100.0]
    app = rate(lambda: now[0])

    assert [Talk().ask(app) for _ in range(4)] == [200, 200, 200, 429]
    talk = Talk()
    talk.ask(app)
    assert talk.headers[b"retry-after"] == b"2"
    now[0] += 2
    assert [Talk().ask(app) for _ in range(2)] == [200, 429]
    now[0] += 1000
    assert [Talk().ask(app) for _ in range(4)] == [200, 200, 200, 429]


def test_looks_cost_nothing() -> None:
    app = rate()
    for _ in range(5):
        assert Talk(method="GET", path="/queue/fal-ai/lora/requests/1/status").ask(app) == 200
        assert Talk(method="PUT", path="/queue/fal-ai/lora/requests/1/cancel").ask(app) == 200
    assert [Talk().ask(app) for _ in range(4)][-1] == 429


def test_one_asker_does_not_slow_another() -> None:
    app = rate()
    assert [Talk().ask(app) for _ in range(4)][-1] == 429
    other = Talk()
    other.scope["client"] = ("10.0.0.2", 1)
    assert other.ask(app) == 200


def test_addresses_of_one_network_share_a_bucket() -> None:
    names = [client_address({"client": (f"2a00:1:2:3:{n}::1", 1)}) for n in range(3)]
    assert set(names) == {"2a00:1:2:3"}
    assert client_address({"client": ("10.0.0.1", 1)}) == "10.0.0.1"
    assert client_address({"client": None}) == client_address({}) == ""


def test_buckets_are_bounded() -> None:
    buckets = Buckets(1.0, 1, lambda: 0.0)
    for number in range(limits.MAX_BUCKETS + 50):
        buckets.take(str(number))

    assert buckets.take("0") == 0  # forgotten
    assert buckets.take(str(limits.MAX_BUCKETS + 49)) > 0


def test_an_image_as_a_data_uri_fits_into_a_body() -> None:
    assert Limits().body_bytes > Limits().image_bytes * 4 / 3
