"""The queue answers as fal's does: submit, status, stream, result, cancel."""

import json
import threading
import time
import uuid

import pytest

from tests.api.conftest import TEXT, follow, submit

KEYS = ["request_id", "response_url", "status_url", "cancel_url"]
BASE = "http://127.0.0.1:7860/queue/fal-ai/fooocus/requests"


def test_a_submit_answers_with_an_id_and_three_addresses(face):
    client = face.open(gated=True, slots=1)
    submit(client)
    answer = client.post(f"/queue/{TEXT}", json={})
    assert answer.status_code == 200
    body = answer.json()
    call_id = body["request_id"]
    assert str(uuid.UUID(call_id)) == call_id
    assert answer.headers["x-fal-request-id"] == call_id
    assert body == {
        "status": "IN_QUEUE",
        "request_id": call_id,
        "queue_position": body["queue_position"],
        "response_url": f"{BASE}/{call_id}",
        "status_url": f"{BASE}/{call_id}/status",
        "cancel_url": f"{BASE}/{call_id}/cancel",
    }


def test_a_status_goes_through_its_three_states(face):
    client = face.open(gated=True, slots=1)
    first, second = submit(client), submit(client, {"prompt": "steps=3"})
    waiting = client.get(second["status_url"] + "?logs=1")
    assert waiting.status_code == 202
    assert waiting.headers["x-fal-request-id"] == second["request_id"]
    assert waiting.json() == {
        "status": "IN_QUEUE",
        **{key: second[key] for key in KEYS},
        "queue_position": 0,
    }
    while client.get(first["status_url"]).json()["status"] != "IN_PROGRESS":
        time.sleep(0.01)
    assert client.get(first["status_url"]).json() == {
        "status": "IN_PROGRESS",
        **{key: first[key] for key in KEYS},
        "logs": None,
    }
    face.gate.release(1000)
    done = follow(client, second, logs=1).json()
    assert done.keys() == {"status", *KEYS, "logs", "metrics"}
    assert done["metrics"]["inference_time"] >= 0
    expected = ["started", "step 1/3", "step 2/3", "step 3/3", "image 1 is ready", "finished"]
    assert [line["message"] for line in done["logs"]] == expected
    assert done["logs"][0].keys() == {"message", "level", "source", "timestamp"}
    assert done["logs"][0]["timestamp"].endswith("+00:00")
    for value in ("0", "false"):
        assert client.get(second["status_url"], params={"logs": value}).json()["logs"] is None
    assert client.get(second["status_url"], params={"logs": "true"}).json()["logs"]


def test_a_result_is_pictures_timings_and_flags_and_nothing_more(client, face):
    call = submit(client, {"num_images": 2, "aspect_ratio": "512x640"})
    follow(client, call)
    answer = client.get(call["response_url"])
    assert answer.status_code == 200
    assert answer.headers["x-fal-request-id"] == call["request_id"]
    body = answer.json()
    assert body.keys() == {"images", "timings", "has_nsfw_concepts"}
    assert body["timings"] == {"inference": 0.5}
    assert body["has_nsfw_concepts"] == [False, False]
    keys = ["url", "content_type", "file_name", "file_size", "width", "height"]
    for picture in body["images"]:
        assert list(picture) == keys
        assert (picture["width"], picture["height"]) == (512, 640)
        assert picture["content_type"] == "image/png"
        assert picture["file_name"].endswith(".png")
        file = client.get(picture["url"])
        assert file.status_code == 200
        assert file.headers["content-type"] == "image/png"
        assert len(file.content) == picture["file_size"]
    assert client.get(call["response_url"]).json() == body


@pytest.mark.parametrize("way", ["deleted", "removed", "elsewhere"])
def test_each_flag_stays_with_its_picture_when_another_is_gone(client, face, tmp_path, way):
    call = submit(client, {"num_images": 3, "prompt": "flagged=1"})
    follow(client, call)
    whole = client.get(call["response_url"]).json()
    assert whole["has_nsfw_concepts"] == [False, True, False]
    image = face.jobs.job(call["request_id"], owner="local").images[0]
    if way == "deleted":
        face.jobs.delete([image.id], owner="local")
    else:
        image.path.rename(tmp_path / "elsewhere.png")
    if way == "elsewhere":
        image.path.symlink_to(tmp_path / "elsewhere.png")
    left = client.get(call["response_url"]).json()
    assert left["images"] == whole["images"][1:]
    assert left["has_nsfw_concepts"] == [True, False]


def test_in_sync_mode_the_pictures_are_in_the_answer(client):
    call = submit(client, {"sync_mode": True})
    follow(client, call)
    picture = client.get(call["response_url"]).json()["images"][0]
    assert picture["url"].startswith("data:image/png;base64,")
    assert picture["file_size"] == 200


def test_a_result_is_refused_while_there_is_none(face):
    client = face.open(gated=True)
    call = submit(client)
    answer = client.get(call["response_url"])
    assert (answer.status_code, answer.json()) == (400, {"detail": "Request is still in progress"})


def test_a_submit_never_judges_the_input_its_result_does(client):
    call = submit(client, {"num_images": 9})
    status = client.get(call["status_url"] + "?logs=1")
    assert status.status_code == 200
    body = status.json()
    assert body["status"] == "COMPLETED"
    assert body["error"] == "Invalid status code: 422"
    assert body["logs"] == []
    answer = client.get(call["response_url"])
    assert answer.status_code == 422
    assert answer.headers["x-fal-billable-units"] == "0"
    assert answer.json() == {
        "detail": [
            {
                "loc": ["body", "num_images"],
                "msg": "Input should be less than or equal to 4",
                "type": "less_than_equal",
                "input": 9,
                "ctx": {"le": 4},
            }
        ]
    }
    assert client.put(call["cancel_url"]).status_code == 400


@pytest.mark.parametrize("body", [b" ", b"{", b"\xff\xd8\xff", b'{"a": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_is_a_result_too(client, body):
    answer = client.post(f"/queue/{TEXT}", content=body)
    assert answer.status_code == 200
    result = client.get(answer.json()["response_url"])
    assert result.status_code == 422
    assert result.json()["detail"][0]["loc"] == ["body"]


def test_a_waiting_job_is_cancelled_and_completed(face):
    client = face.open(gated=True, slots=1)
    submit(client)
    call = submit(client)
    answer = client.put(call["cancel_url"], headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    status = follow(client, call).json()
    assert status["error_type"] == "client_cancelled"
    result = client.get(call["response_url"])
    assert result.status_code == 499
    assert result.json()["detail"] == "Request cancelled by the client."
    again = client.put(call["cancel_url"])
    assert (again.status_code, again.json()) == (400, {"status": "ALREADY_COMPLETED"})


def test_a_running_job_is_cancelled_between_two_steps(face):
    client = face.open(gated=True)
    call = submit(client, {"prompt": "steps=1000"})
    while client.get(call["status_url"]).json()["status"] != "IN_PROGRESS":
        time.sleep(0.01)
    assert client.put(call["cancel_url"]).status_code == 202
    assert follow(client, call).json()["error"] == "Invalid status code: 499"


def test_nobody_knows_a_request_that_never_was(client):
    base = f"/queue/{TEXT}/requests/{uuid.uuid4()}"
    assert client.get(base).status_code == 404
    assert client.get(f"{base}/status").status_code == 404
    assert client.get(f"{base}/status/stream").status_code == 404
    answer = client.put(f"{base}/cancel")
    assert (answer.status_code, answer.json()) == (404, {"status": "NOT_FOUND"})


@pytest.mark.parametrize("call_id", ["x", "%C3%B1%F0%9B%B9%84%1D", "a" * 5000, "..%2f..", "%00"])
def test_what_can_be_no_id_is_unknown_too(client, call_id):
    assert client.get(f"/queue/{TEXT}/requests/{call_id}/status").status_code == 404
    answer = client.put(f"/queue/{TEXT}/requests/{call_id}/cancel")
    assert answer.status_code == 404


def test_the_path_may_be_long_or_short_with_a_slash_or_without(client):
    call = submit(client, {"inpaint_image_url": "x"}, "fal-ai/fooocus/inpaint")
    assert call["status_url"] == f"{BASE}/{call['request_id']}/status"
    for app in ("fal-ai/fooocus", "fal-ai/fooocus/inpaint", "fal-ai/fooocus/image-prompt"):
        for slash in ("", "/"):
            base = f"/queue/{app}/requests/{call['request_id']}"
            assert client.get(f"{base}/status{slash}").status_code == 200
            assert client.get(f"{base}{slash}").status_code == 422
            assert client.put(f"{base}/cancel{slash}").status_code == 400
    other = call["status_url"].replace("fooocus", "lora")
    assert client.get(other).status_code == 404


def events(text):
    assert text.endswith("\n\n")
    return [json.loads(part.removeprefix("data: ")) for part in text.split("\n\n")[:-1]]


def test_the_stream_tells_every_state_and_adds_logs(face):
    client = face.open(gated=True, slots=1)
    first, call = submit(client), submit(client, {"prompt": "steps=3"})
    found = []

    def read():
        found.append(client.get(call["status_url"] + "/stream?logs=1"))

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():
        face.gate.release()
        time.sleep(0.06)
    reader.join()
    answer = found[0]
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-fal-request-id"] == call["request_id"]
    told = events(answer.text)
    states = [event["status"] for event in told]
    assert states[0] == "IN_QUEUE"
    assert states[-1] == "COMPLETED"
    assert states == sorted(states, key=["IN_QUEUE", "IN_PROGRESS", "COMPLETED"].index)
    lines = [line["message"] for event in told for line in event.get("logs") or []]
    assert lines == ["started", "step 1/3", "step 2/3", "step 3/3", "image 1 is ready", "finished"]
    assert follow(client, first).status_code == 200


def test_the_stream_of_what_is_over_is_one_event(client):
    done, refused = submit(client), submit(client, {"num_images": 9})
    follow(client, done)
    for call in (done, refused):
        told = events(client.get(call["status_url"] + "/stream").text)
        assert [event["status"] for event in told] == ["COMPLETED"]


def test_jobs_of_low_priority_wait_behind_all_others(face):
    client = face.open(gated=True, slots=1)
    submit(client)
    low = submit(client, **{"x-fal-queue-priority": "low"})
    normal = submit(client, **{"x-fal-queue-priority": "normal"})
    assert low["queue_position"] == 0
    assert normal["queue_position"] == 0
    assert client.get(low["status_url"]).json()["queue_position"] == 1


def test_a_job_that_must_start_in_time_times_out(face):
    client = face.open(gated=True, slots=1)
    submit(client)
    call = submit(client, **{"x-fal-request-timeout": "0.2"})
    status = follow(client, call).json()
    assert status["error_type"] == "request_timeout"
    answer = client.get(call["response_url"])
    assert answer.status_code == 504
    assert answer.json() == {"detail": "Request timed out", "error_type": "request_timeout"}
    assert answer.headers["x-fal-request-timeout-type"] == "user"
    assert answer.headers["x-fal-error-type"] == "request_timeout"


def test_a_full_queue_says_when_to_come_back(face):
    client = face.open(gated=True, slots=1, max_waiting=2)
    for _ in range(3):
        submit(client)
    for query in ("", "?fal_max_queue_length=2"):
        answer = client.post(f"/queue/{TEXT}{query}", json={})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["detail"].startswith("queue: expected fewer than 2 waiting")
        assert answer.headers["x-fal-request-id"]


def test_the_same_id_again_is_the_same_call(face):
    client = face.open(gated=True)
    chosen = str(uuid.uuid4())
    for name, value in (("x-fal-request-id", chosen), ("idempotency-key", "mine")):
        ids = {submit(client, **{name: value})["request_id"] for _ in range(10)}
        assert len(ids) == 1
    assert len(face.jobs.active(owner="local")) == 2
    assert client.get(f"{BASE}/{chosen}/status").status_code == 202


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?fal_max_queue_length=many", {}),
        ("?fal_webhook=file:///etc/passwd", {}),
        ("", {"x-fal-request-timeout": "soon"}),
        ("", {"x-fal-request-timeout": "nan"}),
        ("", {"x-fal-request-timeout": "0.05"}),
        ("", {"x-fal-request-id": "7"}),
    ],
)
def test_a_parameter_that_breaks_its_rule_is_a_400(client, query, headers):
    answer = client.post(f"/queue/{TEXT}{query}", json={}, headers=headers)
    assert answer.status_code == 400
    assert ": expected " in answer.json()["detail"]


def test_a_client_that_comes_back_after_a_restart_gets_its_result(face):
    client = face.open(gated=True, slots=1)
    call = submit(client, {"sync_mode": True})
    waiting = submit(client)
    refused = submit(client, {"seed": "x"})
    face.jobs.close()
    client = face.open()
    follow(client, waiting)
    follow(client, call)
    picture = client.get(call["response_url"]).json()["images"][0]
    assert picture["url"].startswith("data:image/png")
    assert client.get(refused["response_url"]).status_code == 422


def test_a_webhook_is_remembered_with_the_address_of_our_files(client, face):
    call = submit(client, query="?fal_webhook=http%3A%2F%2F127.0.0.1%3A9%2Fhook%3Fa%3D1")
    found = face.jobs.calls.get(call["request_id"], "local")
    assert found.webhook == "http://127.0.0.1:9/hook?a=1"
    assert found.cdn == "http://127.0.0.1:7860/cdn"
