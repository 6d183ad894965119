"""fal's own Python client, unmodified, asks a studio for everything it knows."""

import asyncio
import hashlib
import json
from pathlib import Path

import fal_client
import pytest

from tests.clients.running import receiver
from tests.clients.server import SLOTS
from tests.test_app import get

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the client closes none
TEXT = "fal-ai/fooocus"
BIG = 101 * 2**20
"""Just above what the client sends in one piece."""


def require_picture(result: dict) -> None:
    """The result is one picture, and it is where it says."""
    (picture,) = result["images"]
    assert set(result) == {"images", "timings", "has_nsfw_concepts"}
    assert result["has_nsfw_concepts"] == [False]
    assert (picture["width"], picture["height"]) == (1024, 1024)
    status, data = get(picture["url"])
    assert (status, len(data)) == (200, picture["file_size"])


def test_run(studio: str) -> None:
    require_picture(fal_client.run(TEXT, arguments={"prompt": "a red star"}))


def test_subscribe_tells_id_states_and_logs(studio: str) -> None:
    ids, updates = [], []
    result = fal_client.subscribe(
        TEXT,
        arguments={"prompt": "star steps=20"},
        with_logs=True,
        on_enqueue=ids.append,
        on_queue_update=updates.append,
    )
    require_picture(result)
    lines = [
        line["message"]
        for update in updates
        if isinstance(update, fal_client.InProgress | fal_client.Completed)
        for line in update.logs or ()
    ]
    assert len(ids) == 1
    assert isinstance(updates[-1], fal_client.Completed)
    assert any("step 1/20" in line for line in lines)


def test_submit_status_events_and_result(studio: str) -> None:
    handle = fal_client.submit(
        TEXT, arguments={"prompt": "star steps=10"}, priority="low", hint="lora:a", start_timeout=60
    )
    states = fal_client.Queued | fal_client.InProgress | fal_client.Completed
    assert isinstance(handle.status(with_logs=True), states)
    events = list(handle.iter_events(with_logs=True))
    assert isinstance(events[-1], fal_client.Completed)
    assert (events[-1].logs or [])[0]["message"] == "started"
    require_picture(handle.get())
    assert isinstance(handle.status(), fal_client.Completed)


def test_a_handle_is_made_from_the_id_alone(studio: str) -> None:
    request_id = fal_client.submit(TEXT, arguments={"prompt": "star"}).request_id
    handle = fal_client.SyncClient().get_handle(TEXT, request_id)
    require_picture(handle.get())
    require_picture(fal_client.result(TEXT, request_id))
    assert isinstance(fal_client.status(TEXT, request_id), fal_client.Completed)


def test_cancel_ends_a_running_request(studio: str) -> None:
    handle = fal_client.submit(TEXT, arguments={"prompt": "star steps=100000"})
    handle.cancel()
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        handle.get()
    assert (caught.value.status_code, caught.value.error_type) == (499, "client_cancelled")
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        handle.cancel()
    assert caught.value.status_code == 400


def test_a_client_that_gives_up_stops_the_request(studio: str) -> None:
    ids = []
    with pytest.raises(fal_client.FalClientTimeoutError):
        fal_client.subscribe(
            TEXT,
            arguments={"prompt": "star steps=100000"},
            client_timeout=1.2,
            on_enqueue=ids.append,
        )
    handle = fal_client.SyncClient().get_handle(TEXT, ids[0])
    assert list(handle.iter_events())[-1].error_type == "client_cancelled"


@pytest.mark.parametrize("way", ["run", "subscribe"])
def test_a_wrong_input_is_the_clients_error_with_its_fields(studio: str, way: str) -> None:
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        getattr(fal_client, way)(TEXT, arguments={"num_images": 99, "sharpness": "much"})
    assert caught.value.status_code == 422
    assert [item["loc"] for item in caught.value.message] == [
        ["body", "sharpness"],
        ["body", "num_images"],
    ]


@pytest.mark.parametrize(
    ("prompt", "status", "error_type"),
    [("ends=fail", 500, "internal_error"), ("ends=raise", 500, "internal_error")],
)
@pytest.mark.parametrize("way", ["run", "subscribe"])
def test_a_failure_of_the_engine_is_the_clients_error(
    studio: str, way: str, prompt: str, status: int, error_type: str
) -> None:
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        getattr(fal_client, way)(TEXT, arguments={"prompt": prompt})
    assert (caught.value.status_code, caught.value.error_type) == (status, error_type)


def test_a_request_that_may_not_wait_longer_is_given_up(studio: str) -> None:
    long = [fal_client.submit(TEXT, arguments={"prompt": "steps=100000"}) for _ in range(SLOTS)]
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        fal_client.subscribe(TEXT, arguments={}, start_timeout=1.1)
    assert (caught.value.status_code, caught.value.error_type) == (504, "request_timeout")
    for handle in long:
        handle.cancel()


def test_what_is_not_there_is_a_404(studio: str) -> None:
    for app in ("fal-ai/flux", f"{TEXT}/nothing"):
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            fal_client.run(app, arguments={})
        assert caught.value.status_code == 404


def test_uploads_come_back_as_they_were(studio: str, tmp_path: Path) -> None:
    from PIL import Image

    file = tmp_path / "hello world.txt"
    file.write_text("Hello, World!")
    url = fal_client.upload_file(file)
    assert get(url) == (200, b"Hello, World!")
    assert get(fal_client.upload(b"GIF89a", "image/gif", repository="fal")) == (200, b"GIF89a")
    status, data = get(fal_client.upload_image(Image.new("RGB", (8, 8)), format="png"))
    assert (status, data[1:4]) == (200, b"PNG")


def test_a_big_upload_goes_in_parts(studio: str) -> None:
    data = bytes(range(256)) * (BIG // 256)
    url = fal_client.upload(data, "application/octet-stream", file_name="big.bin")
    assert "/big.bin" in url
    status, stored = get(url)
    assert status == 200
    assert hashlib.sha256(stored).digest() == hashlib.sha256(data).digest()


def test_the_async_client_does_the_same(studio: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")

    async def everything() -> list[str]:
        client = fal_client.AsyncClient()
        require_picture(await client.run(TEXT, arguments={"prompt": "star"}))
        require_picture(await client.subscribe(TEXT, arguments={"prompt": "star"}, with_logs=True))
        handle = await client.submit(TEXT, arguments={"prompt": "star steps=10"})
        states = [type(event).__name__ async for event in handle.iter_events(with_logs=True)]
        require_picture(await (await client.get_handle(TEXT, handle.request_id)).get())
        long = await client.submit(TEXT, arguments={"prompt": "star steps=100000"})
        await long.cancel()
        with pytest.raises(fal_client.FalClientHTTPError, match="cancelled"):
            await long.get()
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            await client.subscribe(TEXT, arguments={"num_images": 99})
        assert caught.value.status_code == 422
        assert get(await client.upload_file(tmp_path / "a.txt")) == (200, b"hello")
        big = await client.upload(b"x" * BIG, "text/plain", "big.txt")
        assert len(get(big)[1]) == BIG
        return states

    assert asyncio.run(everything())[-1] == "Completed"


def test_a_webhook_comes_with_a_signature_that_holds(studio: str) -> None:
    from clients.webhook import is_signed

    with receiver() as (address, heard):
        good = fal_client.submit(TEXT, arguments={"prompt": "star"}, webhook_url=address)
        headers, body = heard.get(timeout=15)
        told = json.loads(body)
        assert told["request_id"] == good.request_id
        assert (told["status"], told["error"]) == ("OK", None)
        require_picture(told["payload"])
        assert is_signed(headers, body, studio)
        assert not is_signed(headers, body + b" ", studio)
        fal_client.submit(TEXT, arguments={"num_images": 99}, webhook_url=address)
        headers, body = heard.get(timeout=15)
        told = json.loads(body)
        assert (told["status"], told["error"]) == ("ERROR", "Invalid status code: 422")
        assert told["payload"]["detail"][0]["loc"] == ["body", "num_images"]
        assert is_signed(headers, body, studio)
