"""The end of a call is told, signed, until somebody hears it, also by the next life of the studio, and never where it may not."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.files import FileStore
from api.keys import Keys
from api.settings import Api
from api.signing import SigningKey, open_signing_key
from api.webhooks import Webhooks, jwks_routes
from engine.net import Fetcher
from jobs import Call, Jobs
from tests.jobs.conftest import Studio
from tests.jobs.scripted_engine import toy_plan

DETAIL = {"detail": [{"loc": ["body", "prompt"], "msg": "x", "type": "missing"}]}


@dataclass
class Told:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)


class Receiver(ThreadingHTTPServer):
    """Hears webhooks; answers with these statuses, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Ears)
        self.statuses: list[int] = []
        self.told: list[Told] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?x=1&y=a%20b"


class Ears(BaseHTTPRequestHandler):
    server: Receiver

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.told.append(Told(self.path, headers, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_POST()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(tmp_path)
    yield studio
    studio.close()


def api_of(studio: Studio, jobs: Jobs) -> Api:
    return Api(
        jobs=jobs,
        library=None,  # type: ignore[arg-type]  # nothing is planned here
        start={},
        files=FileStore(studio.data_dir, studio.output_dir),
        keys=Keys(studio.data_dir),
        fetcher=Fetcher(),
    )


def webhooks(
    studio: Studio,
    jobs: Jobs,
    *,
    allow_private: bool = True,
    pauses: int = 3,
    pause_s: float = 0.01,
) -> Webhooks:
    return Webhooks(
        api_of(studio, jobs),
        open_signing_key(studio.data_dir),
        Fetcher(allow_private=allow_private),
        pauses_s=[pause_s] * pauses,
        look_s=0.01,
    )


def refused_call(receiver: Receiver, number: int = 1, url: str | None = None) -> Call:
    return Call(
        id=f"{number:08d}-5b7e-4e67-b4b9-5e403dddb0eb",
        owner="ada",
        endpoint="fal-ai/lora",
        has_job=False,
        error=(422, json.dumps(DETAIL)),
        webhook=url or receiver.url,
        cdn="http://127.0.0.1:7860/cdn",
    )


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def never_due(jobs: Jobs) -> bool:
    return not jobs.calls.due_deliveries(time.time() + 1e6)


def verify(told: Told, jwks: dict[str, Any]) -> None:
    """Verify a signature as fal's guide says."""
    text = jwks["keys"][0]["x"]
    key = Ed25519PublicKey.from_public_bytes(
        base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    )
    lines = [
        told.headers[f"x-fal-webhook-{name}"] for name in ("request-id", "user-id", "timestamp")
    ]
    assert abs(time.time() - int(lines[2])) < 300
    message = "\n".join([*lines, hashlib.sha256(told.body).hexdigest()])
    key.verify(bytes.fromhex(told.headers["x-fal-webhook-signature"]), message.encode())


def test_a_failure_is_told_signed(studio: Studio, receiver: Receiver) -> None:
    jobs = studio.open()
    hooks = webhooks(studio, jobs)
    hooks.start()
    call = refused_call(receiver)
    jobs.calls.add(call)

    until(lambda: never_due(jobs))
    hooks.stop()

    (told,) = receiver.told
    assert told.path == "/hook?x=1&y=a%20b"
    assert told.headers["content-type"] == "application/json"
    assert told.headers["x-fal-webhook-user-id"] == "ada"
    assert told.content == {
        "error": "Invalid status code: 422",
        "gateway_request_id": call.id,
        "payload": DETAIL,
        "request_id": call.id,
        "status": "ERROR",
    }
    verify(told, open_signing_key(studio.data_dir).jwks())
    told.body += b" "
    with pytest.raises(InvalidSignature):
        verify(told, open_signing_key(studio.data_dir).jwks())


def test_pictures_are_told_when_they_are_there(studio: Studio, receiver: Receiver) -> None:
    jobs = studio.open(gated=True)
    hooks = webhooks(studio, jobs)
    hooks.start()
    call = Call(
        id="00000000-5b7e-4e67-b4b9-5e403dddb0eb",
        owner="ada",
        endpoint="fal-ai/fooocus",
        webhook=receiver.url,
        cdn="http://127.0.0.1:7860/cdn",
    )
    jobs.submit(toy_plan(), owner="ada", call=call)
    time.sleep(0.05)
    assert receiver.told == []
    studio.gate.release(100)

    until(lambda: receiver.told)
    hooks.stop()

    content = receiver.told[0].content
    assert (content["status"], content["error"]) == ("OK", None)
    (image,) = content["payload"]["images"]
    assert image["url"].startswith("http://127.0.0.1:7860/cdn/files/")
    stored = FileStore(studio.data_dir, studio.output_dir).find(image["url"])
    assert stored is not None
    assert stored.path.read_bytes().endswith(b"END")


def test_a_receiver_that_fails_is_told_again(studio: Studio, receiver: Receiver) -> None:
    receiver.statuses = [500, 429, 404]
    jobs = studio.open()
    hooks = webhooks(studio, jobs)
    hooks.start()
    jobs.calls.add(refused_call(receiver))

    until(lambda: never_due(jobs))
    hooks.stop()

    assert len(receiver.told) == 4
    assert len({told.body for told in receiver.told}) == 1
    for told in receiver.told:
        verify(told, open_signing_key(studio.data_dir).jwks())


def test_a_receiver_that_never_hears_is_given_up(studio: Studio, receiver: Receiver) -> None:
    receiver.statuses = [500] * 100
    jobs = studio.open()
    hooks = webhooks(studio, jobs, pauses=2)
    hooks.start()
    jobs.calls.add(refused_call(receiver))

    until(lambda: never_due(jobs))
    hooks.stop()

    assert len(receiver.told) == 3


def test_a_redirect_is_final(studio: Studio, receiver: Receiver) -> None:
    receiver.statuses = [307]
    jobs = studio.open()
    hooks = webhooks(studio, jobs)
    hooks.start()
    jobs.calls.add(refused_call(receiver))

    until(lambda: never_due(jobs))
    hooks.stop()

    assert [told.path for told in receiver.told] == ["/hook?x=1&y=a%20b"]


@pytest.mark.parametrize(
    "url", [None, "http://169.254.169.254/", "http://user:geheim@example.com/"]
)
def test_private_receivers_are_not_told(
    studio: Studio, receiver: Receiver, url: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = studio.open()
    hooks = webhooks(studio, jobs, allow_private=False)
    hooks.start()
    jobs.calls.add(refused_call(receiver, url=url))

    until(lambda: never_due(jobs))
    hooks.stop()

    assert receiver.told == []
    assert "given up" in caplog.text
    assert "geheim" not in caplog.text
    assert "/hook" not in caplog.text


def test_the_next_life_tells_what_this_one_did_not(studio: Studio, receiver: Receiver) -> None:
    receiver.statuses = [503]
    jobs = studio.open()
    hooks = webhooks(studio, jobs, pause_s=0.3)
    hooks.start()
    jobs.calls.add(refused_call(receiver))
    until(lambda: receiver.told)
    hooks.stop()
    jobs.close()
    studio.opened.clear()

    jobs = studio.open()
    hooks = webhooks(studio, jobs)
    hooks.start()
    until(lambda: never_due(jobs))
    hooks.stop()

    assert len(receiver.told) == 2
    assert receiver.told[0].content == receiver.told[1].content


def test_many_are_told_once_each(studio: Studio, receiver: Receiver) -> None:
    jobs = studio.open()
    hooks = webhooks(studio, jobs)
    hooks.start()
    calls = [refused_call(receiver, number) for number in range(30)]
    for call in calls:
        jobs.calls.add(call)

    until(lambda: never_due(jobs))
    hooks.stop()

    heard = sorted(told.content["request_id"] for told in receiver.told)
    assert heard == sorted(call.id for call in calls)


def test_the_public_key_can_be_looked_up(tmp_path: Path) -> None:
    key = open_signing_key(tmp_path)
    app = FastAPI()
    app.include_router(jwks_routes(key))

    jwks = TestClient(app).get("/rest/.well-known/jwks.json").json()

    assert jwks == open_signing_key(tmp_path).jwks() != SigningKey(b"x" * 32).jwks()
    assert (jwks["keys"][0]["kty"], jwks["keys"][0]["crv"]) == ("OKP", "Ed25519")
    assert len(jwks["keys"][0]["x"]) == 43
