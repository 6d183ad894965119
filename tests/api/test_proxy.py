"""A request with one of fal's addresses is answered by our own route, as it comes; any other address is refused."""

import asyncio
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from api.proxy import PATH, Proxy


async def echo(request: Request) -> Response:
    seen = {
        "method": request.method,
        "path": request.url.path,
        "query": request.url.query,
        "body": (await request.body()).decode(),
        "headers": dict(request.headers),
    }
    return JSONResponse(seen)


@pytest.fixture
def client() -> TestClient:
    every = ["GET", "POST", "PUT"]
    return TestClient(Proxy(Starlette(routes=[Route("/{path:path}", echo, methods=every)])))


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("https://fal.run/fal-ai/fooocus", "/fal-ai/fooocus", ""),
        (
            "https://queue.fal.run/fal-ai/lora/requests/1/status?logs=1",
            "/queue/fal-ai/lora/requests/1/status",
            "logs=1",
        ),
        (
            "https://rest.fal.ai/storage/upload/initiate?storage_type=x",
            "/rest/storage/upload/initiate",
            "storage_type=x",
        ),
        ("https://rest.alpha.fal.ai/tokens/", "/rest/tokens", ""),
        ("https://QUEUE.fal.run:443/fal-ai/lora", "/queue/fal-ai/lora", ""),
        ("https://v3.fal.media/files/a/b.png", "/cdn/files/a/b.png", ""),
    ],
)
def test_a_target_is_our_own_route(client: TestClient, target: str, path: str, query: str) -> None:
    headers = {"x-fal-target-url": target, "authorization": "Key a:b"}
    for method, body in (("GET", ""), ("POST", '{"prompt":"p"}'), ("PUT", "")):
        seen = client.request(method, f"{PATH}?x=1", headers=headers, content=body).json()
        assert (seen["method"], seen["path"], seen["query"]) == (method, path, query)
        assert seen["body"] == body
        assert seen["headers"]["authorization"] == "Key a:b"
        assert "x-fal-target-url" not in seen["headers"]


@pytest.mark.parametrize(
    "target",
    [
        "https://example.com/fal-ai/fooocus",
        "https://fal.run.evil.example/x",
        "https://evilfal.run/x",
        "https://fal.run@evil.example/x",
        "https://user@fal.run/x",
        "http://fal.run/x",
        "http://169.254.169.254/latest",
        "https://fal.run:8443/x",
        "https://fal.run:x/",
        "https://[::1/",
        "file:///etc/passwd",
        "//fal.run/x",
        "/fal-ai/fooocus",
        "https://fal.run/api/fal/proxy",
        "https://fal.run/api/fal/proxy/",
        "",
    ],
)
def test_every_other_target_is_refused(client: TestClient, target: str) -> None:
    answer = client.post(PATH, headers={"x-fal-target-url": target})
    assert answer.status_code == 400
    assert answer.json() == {
        "detail": "x-fal-target-url: expected an address of fal's, got another"
    }


def test_without_a_target_there_is_nothing(client: TestClient) -> None:
    assert client.get(PATH).status_code == 400
    assert client.get("/other").json()["path"] == "/other"


def test_streams_pass_as_they_come() -> None:
    """Each event reaches the client before the next one is made."""
    order: list[str] = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            order.append(f"made {number}")
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 2})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            order.append("sent")

    target = (b"x-fal-target-url", b"https://fal.run/x")
    scope = {"type": "http", "method": "GET", "path": PATH, "headers": [target]}
    asyncio.run(Proxy(stream)(scope, None, send))  # type: ignore[arg-type]

    assert json.dumps(order) == json.dumps(["made 0", "sent", "made 1", "sent", "made 2", "sent"])
