"""Who is let in and under which names: the front, keys and their owners, other origins, documents, health."""

import asyncio
import json
import re
import threading
from dataclasses import replace

import httpx
import pytest
from starlette.testclient import TestClient

from api import Front, build
from api.calling import SUBMITTERS
from api.metrics import Metrics
from api.signing import open_signing_key
from engine import Library
from guard import Guard
from tests.api.conftest import QUICK, TEXT, follow, page, submit

ANN = "ann"


def test_what_is_not_the_faces_goes_to_the_page(client):
    for path in ("/", "/studio/state", "/fal-aix", "/queuex", "/api/other", "/docs/x"):
        assert client.get(path).text == "the page"


@pytest.mark.parametrize(
    ("host", "path", "detail"),
    [
        ("fal.run", "/fal-ai/x", "Application 'x' not found"),
        ("queue.fal.run:443", "/fal-ai/x", "Application 'x' not found"),
        ("REST.alpha.fal.ai", "/x", "Path /rest/x not found"),
        ("v3.fal.media", "/x", "Path /cdn/x not found"),
        ("fal.run", "/", "Path / not found"),
    ],
)
def test_fals_own_host_names_lead_here(client, host, path, detail):
    assert client.post(path, headers={"host": host}).json() == {"detail": detail}


def test_answers_carry_the_names_we_were_asked_by(client):
    answer = client.post(f"/{TEXT}", json=QUICK, headers={"host": "queue.fal.run"}).json()
    base = f"https://queue.fal.run/{TEXT}/requests/{answer['request_id']}"
    assert answer["status_url"] == f"{base}/status"
    path = base.removeprefix("https://queue.fal.run")
    while client.get(f"{path}/status", headers={"host": "queue.fal.run"}).status_code != 200:
        pass
    result = client.get(path, headers={"host": "queue.fal.run"}).json()
    url = result["images"][0]["url"]
    assert url.startswith("https://v3.fal.media/files/")
    file = client.get(url.removeprefix("https://v3.fal.media"), headers={"host": "v3.fal.media"})
    assert len(file.content) == result["images"][0]["file_size"]


def test_a_public_address_is_taken_where_there_is_one(face):
    client = face.open(public_url="https://studio.example/")
    call = client.post(f"/queue/{TEXT}", json={}).json()
    assert call["status_url"].startswith("https://studio.example/queue/fal-ai/fooocus/requests/")


def test_the_proxy_is_another_way_to_the_same(client):
    def by_proxy(method, url, **how):
        headers = {"x-fal-target-url": url}
        return client.request(method, "/api/fal/proxy", headers=headers, **how)

    call = by_proxy("POST", f"https://queue.fal.run/{TEXT}", json=QUICK).json()
    follow(client, call)
    url = f"https://queue.fal.run/{TEXT}/requests/{call['request_id']}"
    assert by_proxy("GET", f"{url}/status?logs=1").json()["logs"]
    assert by_proxy("GET", url).json()["images"]
    assert by_proxy("GET", "https://example.org/").status_code == 400


def keyed(face, client, owner):
    client.headers["authorization"] = f"Key {face.api.keys.add(owner)}"
    return client


def test_without_a_key_nobody_is_let_in_where_keys_are_needed(face):
    client = face.open(is_open=lambda: False)
    detail = {"detail": "No user found for Key ID and Secret"}
    for headers in ({}, {"authorization": "Key a:b"}, {"authorization": "nonsense"}):
        for method, path in (("POST", f"/{TEXT}"), ("POST", f"/queue/{TEXT}")):
            answer = client.request(method, path, json={}, headers=headers)
            assert (answer.status_code, answer.json()) == (401, detail)
        answer = client.get(f"/queue/{TEXT}/requests/x/status", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["x-fal-request-id"]


def test_what_one_owner_asked_for_another_does_not_find(face):
    ann = keyed(face, face.open(is_open=lambda: False), ANN)
    bob = keyed(face, TestClient(ann.app, base_url=ann.base_url), "bob")
    call = submit(ann)
    follow(ann, call)
    url = ann.get(call["response_url"]).json()["images"][0]["url"]
    path = call["response_url"]
    for method, address in (
        ("GET", path),
        ("GET", f"{path}/status"),
        ("GET", f"{path}/status/stream"),
        ("PUT", f"{path}/cancel"),
    ):
        assert bob.request(method, address).status_code == 404
    chosen = {"x-fal-request-id": call["request_id"]}
    assert bob.post(f"/queue/{TEXT}", json={}, headers=chosen).status_code == 400
    del ann.headers["authorization"]
    assert ann.get(url).status_code == 200


def test_a_key_may_come_as_bearer_too(face):
    client = face.open(is_open=lambda: False)
    key = face.api.keys.add(ANN)
    answer = client.post(f"/queue/{TEXT}", json={}, headers={"authorization": f"Bearer {key}"})
    assert face.jobs.calls.get(answer.json()["request_id"], ANN)


ORIGIN = "http://127.0.0.1:3000"


def test_pages_of_other_origins_may_read_what_the_guard_lets_through(client):
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-fal-queue-priority,x-own",
    }
    for path in (f"/{TEXT}", f"/queue/{TEXT}", "/rest/storage/upload/initiate", "/api/fal/proxy"):
        answer = client.options(path, headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "PUT" in answer.headers["access-control-allow-methods"]
        wanted = asked["access-control-request-headers"]
        assert answer.headers["access-control-allow-headers"] == wanted
    for method, path in (("POST", f"/queue/{TEXT}"), ("GET", "/fal-ai/x")):
        answer = client.request(method, path, headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "x-fal-request-id" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in client.get("/health").headers


def test_the_guard_stands_outside(face):
    face.open()
    front = Guard(Front(page, build(face.api)))
    stranger = TestClient(front, base_url="http://127.0.0.1:7860")
    for origin in ("https://evil.example", "null"):
        assert stranger.post(f"/{TEXT}", headers={"origin": origin}).status_code == 403


def test_the_documents_name_what_the_studio_has(client):
    whole = client.get("/openapi.json").json()
    assert whole["servers"] == [{"url": "http://127.0.0.1:7860"}]
    assert {f"/{TEXT}", f"/queue/{TEXT}/requests/{{request_id}}/cancel"} <= whole["paths"].keys()
    refiners = whole["components"]["schemas"]["FooocusInput"]["properties"]["refiner_model"]
    assert "toy" in refiners["enum"]
    path = "/api/openapi/queue/openapi.json"
    one = client.get(path, params={"endpoint_id": "fal-ai/fooocus/inpaint"}).json()
    assert one["info"]["title"] == "Queue OpenAPI for fal-ai/fooocus/inpaint"
    assert one["servers"] == [{"url": "http://127.0.0.1:7860/queue"}]
    assert client.get(path, params={"endpoint_id": "x"}).status_code == 404


def references(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from [item] if key == "$ref" else references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_documents_refer_to_what_they_hold(client):
    whole = client.get("/openapi.json").json()
    names = {f"#/components/schemas/{name}" for name in whole["components"]["schemas"]}
    assert set(references(whole)) <= names


def test_the_page_of_the_docs_needs_no_script_and_no_network(client):
    answer = client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "script" not in answer.text
    assert "fal-ai/fooocus/upscale-or-vary" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "enable_safety_checker" in answer.text


def test_health(client, face):
    assert client.get("/health").status_code == 200
    assert client.get("/health/live").json() == {"status": "live"}
    while (answer := client.get("/health/ready")).json() != {"status": "untried"}:
        assert answer.status_code == 503
    assert answer.status_code == 503
    follow(client, submit(client))
    assert client.get("/health/ready").status_code == 200
    face.jobs.close()
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "stopped"})


def test_a_studio_without_room_is_not_ready_and_says_why(face):
    client = face.open(min_free_bytes=2**62)
    follow(client, submit(client))
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["status"] == "unwritable"
    assert re.fullmatch(
        r"disk: expected at least \d+ MiB free, got \d+ MiB", answer.json()["detail"]
    )
    assert client.get("/health/live").status_code == 200


def test_looks_do_not_wait_for_submits_that_wait_for_pictures(face, monkeypatch):
    """As many submits as may be settled at once hang; a status is answered all the same."""
    client = face.open()
    call = submit(client)
    follow(client, call)
    gate, begun = threading.Event(), threading.Semaphore(0)

    def slow() -> Library:
        begun.release()
        assert gate.wait(20)
        return face.library

    patient = build(replace(face.api, library=slow, metrics=Metrics()))

    async def ask() -> None:
        address = "http://127.0.0.1:7860"
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(patient), base_url=address
        ) as asker:
            waiting = [
                asyncio.create_task(asker.post(f"/queue/{TEXT}", json=QUICK)) for _ in range(60)
            ]
            await asyncio.to_thread(lambda: [begun.acquire() for _ in range(SUBMITTERS)])
            status = await asyncio.wait_for(asker.get(call["status_url"]), 20)
            gate.set()
            answers = await asyncio.gather(*waiting)
        assert status.json()["status"] == "COMPLETED"
        assert {answer.status_code for answer in answers} == {200}

    asyncio.run(ask())


def test_receivers_of_webhooks_find_the_public_key(face):
    face.data_dir.mkdir()
    client = face.open(signing_key=open_signing_key(face.data_dir))
    keys = client.get("/rest/.well-known/jwks.json").json()["keys"]
    assert [key["kty"] for key in keys] == ["OKP"]


def test_keys_that_cannot_be_read_let_nobody_in_and_say_nothing_of_their_place(face):
    client = face.open(is_open=lambda: False)
    key = {"authorization": f"Key {face.api.keys.add(ANN)}"}
    (face.data_dir / "keys.json").write_text("{")
    for answer in (client.get("/metrics", headers=key), client.post(f"/{TEXT}", headers=key)):
        assert answer.status_code == 503
        assert answer.json()["detail"] == "keys.json: expected a file of keys, got JSONDecodeError"


def test_a_token_stands_for_the_key_in_the_address_of_a_request(face):
    ann = keyed(face, face.open(is_open=lambda: False), ANN)
    token = ann.post("/rest/tokens", json={"token_expiration": 120}).json()
    call = submit(ann)
    follow(ann, call)
    del ann.headers["authorization"]
    for address in (call["response_url"], call["status_url"], call["status_url"] + "/stream"):
        assert ann.get(f"{address}?fal_jwt_token={token}").status_code == 200
        assert ann.get(f"{address}?fal_jwt_token={token}x").status_code == 401
    assert ann.post(f"/{TEXT}?fal_jwt_token={token}", json={}).status_code == 401


@pytest.mark.parametrize("path", [f"/{TEXT}", f"/queue/{TEXT}", "/cdn/files/upload"])
def test_who_goes_away_in_the_middle_of_a_body_is_no_defect(face, path, caplog):
    face.open()
    sent = []
    messages = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"{", "more_body": True},
    ]

    async def receive():
        return messages.pop()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": b"",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:7860")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7860),
    }
    asyncio.run(Front(page, build(face.api))(scope, receive, send))
    assert sent[0]["status"] == 499
    assert not caplog.records


def test_tokens_are_had_with_a_slash_at_the_end_too(client):
    for path in ("/rest/tokens", "/rest/tokens/"):
        answer = client.post(path, json={"allowed_apps": ["fooocus"], "token_expiration": 120})
        assert answer.status_code == 200
        assert isinstance(json.loads(answer.text), str)
