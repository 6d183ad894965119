"""fal's own two JavaScript clients, unmodified, ask a studio for everything they know."""

import hashlib
import json

import pytest

from tests.clients.running import CLIENTS, Node, receiver
from tests.clients.test_clients_python import require_picture
from tests.test_app import get

TEXT = "fal-ai/fooocus"
AGES = ["new", "old"]
STATES = {"IN_QUEUE", "IN_PROGRESS", "COMPLETED"}
BIG = 91 * 2**20
"""Just above what the new client sends in one piece."""


def output(answer: dict, age: str) -> dict:
    """The result itself: the new client wraps it, with the id that it read from a header."""
    if age == "old":
        return answer
    assert set(answer) == {"data", "requestId"}
    assert len(answer["requestId"]) == 36
    return answer["data"]


@pytest.mark.parametrize("age", AGES)
def test_run(studio: str, node: Node, age: str) -> None:
    found = node.call(studio, age, "run", endpoint=TEXT, input={"prompt": "a red star"})
    require_picture(output(found["value"], age))


@pytest.mark.parametrize("operation", ["run", "subscribe"])
@pytest.mark.parametrize("age", AGES)
def test_a_call_without_input_paints(studio: str, node: Node, age: str, operation: str) -> None:
    found = node.call(studio, age, operation, endpoint=TEXT)["value"]
    require_picture(output(found if operation == "run" else found["answer"], age))


@pytest.mark.parametrize("mode", ["polling", "streaming"])
@pytest.mark.parametrize("age", AGES)
def test_subscribe_tells_id_states_and_logs(studio: str, node: Node, age: str, mode: str) -> None:
    asked = {"endpoint": TEXT, "input": {"prompt": "star steps=20"}, "mode": mode}
    found = node.call(studio, age, "subscribe", **asked)["value"]
    require_picture(output(found["answer"], age))
    assert len(found["id"]) == 36
    assert found["states"][-1] == "COMPLETED"
    assert (
        set(found["states"]) <= STATES
    )  # which of them are seen depends on how fast both sides are
    assert "step 10/20" in found["messages"]


@pytest.mark.parametrize("age", AGES)
def test_submit_status_stream_and_result(studio: str, node: Node, age: str) -> None:
    found = node.call(studio, age, "queue", endpoint=TEXT, input={"prompt": "star steps=10"})
    told = found["value"]
    request_id = told["submitted"]["request_id"]
    assert told["first"]["status"] in STATES
    assert told["events"][-1]["status"] == told["last"]["status"] == "COMPLETED"
    assert {event["request_id"] for event in told["events"]} == {request_id}
    lines = [line["message"] for event in told["events"] for line in event.get("logs") or ()]
    assert lines[0] == "started"
    assert len(lines) == len(set(lines))
    require_picture(output(told["answer"], age))
    again = node.call(studio, age, "result", endpoint=TEXT, id=request_id)
    assert output(again["value"], age) == output(told["answer"], age)


@pytest.mark.parametrize("age", AGES)
def test_cancel_ends_a_running_request(studio: str, node: Node, age: str) -> None:
    asked = {"endpoint": TEXT, "input": {"prompt": "star steps=100000"}}
    told = node.call(studio, age, "cancel", **asked)["value"]
    assert told["last"]["status"] == "COMPLETED"
    assert told["result"]["error"]["is"] == ["ApiError"]
    assert told["result"]["error"]["status"] == 499
    assert told["result"]["error"]["body"]["error_type"] == "client_cancelled"
    assert told["again"]["error"]["status"] == 400


@pytest.mark.parametrize("operation", ["run", "subscribe"])
@pytest.mark.parametrize("age", AGES)
def test_a_wrong_input_is_the_clients_error_with_its_fields(
    studio: str, node: Node, age: str, operation: str
) -> None:
    error = node.call(studio, age, operation, endpoint=TEXT, input={"num_images": 99})["error"]
    assert error["is"] == ["ApiError", "ValidationError"]
    assert error["status"] == 422
    assert [field["loc"] for field in error["fields"]] == [["body", "num_images"]]


@pytest.mark.parametrize("age", AGES)
def test_a_failure_of_the_engine_is_the_clients_error(studio: str, node: Node, age: str) -> None:
    error = node.call(studio, age, "run", endpoint=TEXT, input={"prompt": "ends=raise"})["error"]
    assert (error["is"], error["status"]) == (["ApiError"], 500)
    assert error["body"]["error_type"] == "internal_error"


@pytest.mark.parametrize("age", AGES)
def test_what_is_not_there_is_a_404(studio: str, node: Node, age: str) -> None:
    error = node.call(studio, age, "run", endpoint="fal-ai/flux", input={})["error"]
    assert (error["is"], error["status"]) == (["ApiError"], 404)
    assert error["body"] == {"detail": "Application 'flux' not found"}


@pytest.mark.parametrize("age", AGES)
def test_an_upload_comes_back_as_it_was(studio: str, node: Node, age: str) -> None:
    asked = {"size": 1000, "name": "hello.txt", "type": "text/plain"}
    url = node.call(studio, age, "upload", **asked)["value"]
    assert url.endswith("/hello.txt")
    assert get(url) == (200, bytes(index % 251 for index in range(1000)))


def test_a_big_upload_goes_in_parts(studio: str, node: Node) -> None:
    asked = {"size": BIG, "name": "big.bin", "type": "application/octet-stream"}
    status, data = get(node.call(studio, "new", "upload", **asked)["value"])
    pattern = bytes(range(251))
    whole = hashlib.sha256(pattern * (BIG // 251) + pattern[: BIG % 251])
    assert status == 200
    assert hashlib.sha256(data).digest() == whole.digest()


@pytest.mark.parametrize("age", AGES)
def test_a_blob_in_an_input_is_uploaded_first(studio: str, node: Node, age: str) -> None:
    asked = {"endpoint": TEXT, "input": {}, "field": "made_up"}
    require_picture(output(node.call(studio, age, "blob", **asked)["value"], age))


@pytest.mark.parametrize("age", AGES)
def test_a_webhook_comes_with_a_signature_that_holds(studio: str, node: Node, age: str) -> None:
    with receiver() as (address, heard):
        asked = {"endpoint": TEXT, "input": {"prompt": "star"}, "webhook": address}
        submitted = node.call(studio, age, "submit", **asked)["value"]
        headers, body = heard.get(timeout=15)
    told = json.loads(body)
    assert (told["request_id"], told["status"]) == (submitted["request_id"], "OK")
    require_picture(told["payload"])
    keys = f"{studio}/rest/.well-known/jwks.json"
    check = [str(CLIENTS / "verify.mjs"), keys, json.dumps(headers)]
    assert node.run(check, data=body) == "true\n"
    assert node.run(check, data=body + b" ") == "false\n"
