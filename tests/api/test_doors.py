"""Every route against who may come in: without a key nothing but what says nothing of anybody's."""

import re
from dataclasses import replace

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

import app
from api import build
from api.keys import Keys
from api.metrics import Measured, Metrics
from api.signing import open_signing_key
from engine import InvalidRequest
from guard import Guard

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
BY_TICKET = {
    "/cdn/files/{token}/{name}",
    "/cdn/files/{token}/{name}/multipart/{ticket}/complete",
    "/cdn/files/{token}/{name}/multipart/{ticket}/{number}",
}
"""Addresses that are a secret of their own; a guessed one leads nowhere."""
LEAST_ROUTES = 35


@pytest.fixture
def client(face):
    face.data_dir.mkdir()
    return face.open(is_open=False, signing_key=open_signing_key(face.data_dir))


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
    settings = app.read_settings([*flags, "--data-dir", str(tmp_path)], {})
    with pytest.raises(InvalidRequest, match="keys add NAME"):
        app.require_keys(settings)
    Keys(tmp_path).add("ann")
    app.require_keys(settings)
    assert app.read_settings([], {}).host == "127.0.0.1"
