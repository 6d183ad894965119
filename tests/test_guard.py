"""A stranger's page in the same browser cannot drive the studio, under its own name or under ours."""

import asyncio
from typing import Any

import pytest

from guard import Guard


def status(
    headers: dict[str, str], allowed: tuple[str, ...] = (), kind: str = "http", path: str = "/"
) -> Any:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "path": path,
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    asyncio.run(Guard(app, allowed)(scope, None, send))  # type: ignore[arg-type]
    return sent[0].get("status", sent[0]["type"])


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:7860"},
        {"host": "localhost:7860", "origin": "http://localhost:7860"},
        {"host": "192.168.1.20:7860", "origin": "http://192.168.1.20:7860"},
        {"host": "[::1]:7860", "origin": "http://[::1]:7860"},
        {"host": "127.0.0.1:7860", "origin": "http://localhost:3000"},
        {"host": "studio.local", "origin": "https://studio.local"},
        {"host": "abc.gradio.live", "origin": "https://abc.gradio.live"},
        {"host": "127.0.0.1:7860", "origin": "https://tools.example"},
    ],
)
def test_our_own_pages_pass(headers: dict[str, str]) -> None:
    assert status(headers, ("studio.local", ".gradio.live", "https://tools.example:8443")) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": ""},
        {},
        {"host": "127.0.0.1.evil.example"},
        {"host": "127.0.0.1:7860", "origin": "https://evil.example"},
        {"host": "127.0.0.1:7860", "origin": "null"},
        {"host": "192.168.1.20:7860", "origin": "http://192.168.1.66:7860"},
        {"host": "gradio.live"},
        {"host": "evilgradio.live"},
        {"host": "127.0.0.1:7860", "origin": "http://[broken"},
    ],
)
def test_strangers_are_refused(headers: dict[str, str]) -> None:
    assert status(headers, (".gradio.live",)) == 403


@pytest.mark.parametrize(
    "name", ["process_recording", "vibe-code/", "deep_link", "proxy=https://x", "call/v2/generate"]
)
def test_routes_that_the_page_never_asks_for_are_closed(name: str) -> None:
    assert status({"host": "127.0.0.1"}, path=f"/gradio_api/{name}") == 403
    assert status({"host": "127.0.0.1"}, path="/gradio_api/queue/join") == 200


def test_a_strangers_socket_is_closed() -> None:
    headers = {"host": "127.0.0.1", "origin": "https://evil.example"}
    assert status(headers, kind="websocket") == "websocket.close"
