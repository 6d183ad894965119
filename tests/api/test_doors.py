"""Every route against who may come in: a stranger, another owner, the owner, a page of elsewhere, a socket."""

import re
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import app
from api import build
from api.keys import Keys
from api.metrics import Measured, Metrics
from api.signing import open_signing_key
from engine import InvalidRequest
from guard import Guard
from settings import read_settings
from tests.api.conftest import TEXT, follow, submit

OPEN_TO_ALL = {
    "/api/openapi/queue/openapi.json",
    "/docs",
    "/health",
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/rest/.well-known/jwks.json",
}
"""Documents, health, the public key: they say nothing of anybody's."""
FILE = "/cdn/files/{token}/{name}"
BY_TICKET = {
    FILE,
    "/cdn/files/{token}/{name}/multipart/{ticket}/complete",
    "/cdn/files/{token}/{name}/multipart/{ticket}/{number}",
}
"""Addresses that are a secret of their own; a guessed one leads nowhere."""
LEAST_ROUTES = 35


@pytest.fixture
def client(face):
    face.data_dir.mkdir()
    return face.open(is_open=lambda: False, signing_key=open_signing_key(face.data_dir))


def asked(face):
    """List every method, template and example path of the face."""
    walls = build(replace(face.api, metrics=Metrics())).user_middleware
    known = next(wall.kwargs["routes"] for wall in walls if wall.cls is Measured)
    routes = [route for route in known if isinstance(route, Route)]
    assert len(routes) >= LEAST_ROUTES
    return [
        (method, route.path, re.sub(r"\{[^}]+\}", "x", route.path))
        for route in routes
        for method in route.methods - {"HEAD"}
    ]


def test_no_route_lets_a_stranger_in(face, client):
    let_in = set()
    for method, template, path in asked(face):
        status = client.request(method, path, json={}).status_code
        if template in BY_TICKET:
            assert status in (401, 403, 404), (method, path, status)
        elif status != 401:
            let_in.add(template)
    assert let_in == OPEN_TO_ALL


def test_every_route_knows_strangers_others_and_the_owner(face, client):
    """Nothing that somebody asked for is found by another; all else is everybody's own."""
    ann, bob = (TestClient(client.app, base_url=client.base_url) for _ in range(2))
    for name, asker in (("ann", ann), ("bob", bob)):
        asker.headers["authorization"] = f"Key {face.api.keys.add(name)}"
    call = submit(ann)
    follow(ann, call)
    picture = urlsplit(ann.get(call["response_url"]).json()["images"][0]["url"])
    token, name = picture.path.split("/")[-2:]
    facts = {"request_id": call["request_id"], "token": token, "name": name, "number": "1"}
    for method, template, _ in asked(face):
        path = template.format(**facts, ticket="x")
        seen = [asker.request(method, path, json={}).status_code for asker in (client, bob, ann)]
        if template in OPEN_TO_ALL or (method, template) == ("GET", FILE):
            assert 401 not in seen, (method, path, seen)
            assert len(set(seen)) == 1, (method, path, seen)
        elif template in BY_TICKET:
            assert seen == [403, 403, 403], (method, path, seen)
        elif "{request_id}" in template:
            is_there = template.startswith(f"/queue/{TEXT}")
            mine = 400 if method == "PUT" else 200
            assert seen == [401, 404, mine if is_there else 404], (method, path, seen)
        else:
            assert seen[0] == 401, (method, path, seen)
            assert 401 not in seen[1:], (method, path, seen)


@pytest.mark.parametrize("strange", [{}, {"origin": "https://evil.example"}])
def test_no_route_opens_a_socket(face, client, strange):
    guarded = TestClient(Guard(client.app), base_url=client.base_url)
    guarded.headers["authorization"] = f"Key {face.api.keys.add('ann')}"
    for path in {path for _, _, path in asked(face)}:
        with pytest.raises(WebSocketDisconnect), guarded.websocket_connect(path, headers=strange):
            pass


@pytest.mark.parametrize(
    "strange", [{"origin": "https://evil.example"}, {"origin": "null"}, {"host": "evil.example"}]
)
def test_no_route_answers_a_strange_page_or_name(face, client, strange):
    guarded = TestClient(Guard(client.app), base_url=client.base_url)
    for method, _, path in asked(face):
        assert guarded.request(method, path, json={}, headers=strange).status_code == 403


@pytest.mark.parametrize("flags", [["--host", "0.0.0.0"], ["--share"]])
def test_nobody_else_is_let_in_before_there_is_a_key(tmp_path, flags, monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    settings = read_settings([*flags, "--data-dir", str(tmp_path)], {})
    with pytest.raises(InvalidRequest, match="keys add NAME"):
        app.require_entry(settings)
    Keys(tmp_path).add("ann")
    app.require_entry(settings)
    assert read_settings([], {}).host == "127.0.0.1"
