"""A direct call is answered with its pictures; what is wrong is answered at once, in fal's forms."""

import asyncio
import logging
import time
import uuid
from dataclasses import replace

import pytest

from api import Front, build
from api.limits import Limits
from engine.catalog import Catalog, Checkpoint, Weights
from tests.api.conftest import QUICK, TEXT, page

LORA = "sd_xl_offset_example-lora_1.0.safetensors"


def run(client, body=None, endpoint=TEXT, **headers):
    given = {**QUICK, **(body or {})} if endpoint == TEXT else body
    return client.post(f"/{endpoint}", json=given, headers=headers)


def problems(answer):
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-fal-billable-units"] == "0"
    assert answer.headers["x-fal-request-id"]
    return [(tuple(item["loc"]), item["type"]) for item in answer.json()["detail"]]


def planned(face):
    """The plan of the last job."""
    image = face.jobs.history(owner="local")[0]
    return face.jobs.job(image.job_id, owner="local").plan


def test_a_direct_call_waits_for_its_pictures(client):
    answer = run(client, {"sync_mode": True})
    assert answer.status_code == 200
    assert uuid.UUID(answer.headers["x-fal-request-id"])
    assert answer.json()["images"][0]["url"].startswith("data:image/png;base64,")
    known = client.get(f"/queue/{TEXT}/requests/{answer.headers['x-fal-request-id']}")
    assert known.json() == answer.json()


def test_an_empty_input_is_fals_defaults(client, face):
    assert client.post(f"/{TEXT}", json={}).status_code == 200
    plan = planned(face)
    assert plan.request.performance == "Extreme Speed"
    assert str(plan.size) == "1024x1024"
    assert plan.output_format == "jpeg"
    assert plan.request.styles == ("Fooocus Enhance", "Fooocus V2", "Fooocus Sharp")
    assert [lora.name for lora in plan.loras] == ["sdxl_lcm_lora.safetensors"]


def test_what_is_asked_for_is_what_is_planned(client, face):
    body = {
        "prompt": "a red star",
        "negative_prompt": "blue",
        "styles": ["SAI Anime", "SAI Anime", "Fooocus Sharp"],
        "performance": "Quality",
        "guidance_scale": 7,
        "sharpness": 3.5,
        "aspect_ratio": "640×512",
        "output_format": "webp",
        "seed": 11,
        "refiner_switch": 0.12345,
        "advanced": {"sampler": "euler", "clip_skip": 1, "num_inference_steps": 9},
    }
    assert run(client, body).status_code == 200
    request = planned(face).request
    assert request.styles == ("SAI Anime", "SAI Anime", "Fooocus Sharp")
    assert (request.performance, request.guidance_scale) == ("Quality", 7)
    assert request.aspect_ratio == "640x512"
    assert (request.seed, request.refiner_switch) == (11, 0.1235)
    assert planned(face).sampling.sampler == "euler"
    assert planned(face).sampling.num_inference_steps == 9


def test_nulls_are_as_not_given_and_unknown_keys_are_ignored(client):
    names = ["seed", "prompt", "styles", "loras", "num_images", "control_image_url", "advanced"]
    assert run(client, {**dict.fromkeys(names), "styles": [], "colour": "red"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        ({"num_images": 0}, ("num_images",), "greater_than_equal"),
        ({"num_images": 5}, ("num_images",), "less_than_equal"),
        ({"num_images": "many"}, ("num_images",), "int_parsing"),
        ({"seed": -1}, ("seed",), "value_error"),
        ({"seed": 2**63}, ("seed",), "value_error"),
        ({"seed": 10**300}, ("seed",), "value_error"),
        ({"guidance_scale": 31}, ("guidance_scale",), "less_than_equal"),
        ({"performance": "Slow"}, ("performance",), "literal_error"),
        ({"output_format": "gif"}, ("output_format",), "literal_error"),
        ({"aspect_ratio": "wide"}, ("aspect_ratio",), "value_error"),
        ({"aspect_ratio": "8192x8192"}, ("aspect_ratio",), "value_error"),
        ({"aspect_ratio": "1023x1024"}, ("aspect_ratio",), "value_error"),
        ({"styles": ["Fooocus Sharpp"]}, ("styles", 0), "value_error"),
        ({"styles": "Fooocus Sharp"}, ("styles",), "tuple_type"),
        ({"prompt": "x" * 20_000}, ("prompt",), "value_error"),
        ({"loras": [{"scale": 1}]}, ("loras", 0, "path"), "missing"),
        ({"loras": [{"path": "x", "scale": 2}]}, ("loras", 0, "scale"), "less_than_equal"),
        ({"loras": [{"path": "x"}]}, ("loras", 0, "path"), "value_error"),
        ({"loras": [{"path": "http://a.b/c.safetensors"}]}, ("loras", 0, "path"), "value_error"),
        ({"loras": [{"path": "x"}] * 6}, ("loras",), "sequence_too_long"),
        ({"refiner_model": "nothing.safetensors"}, ("refiner_model",), "value_error"),
        ({"advanced": {"colour": "red"}}, ("advanced", "colour"), "extra_forbidden"),
        ({"advanced": {"base_model": "x"}}, ("advanced", "base_model"), "value_error"),
        ({"advanced": {"vae": "x"}}, ("advanced", "vae"), "value_error"),
        ({"control_image_url": "nowhere"}, ("control_image_url",), "file_download_error"),
        ({"inpaint_image_url": "https://x/y.png"}, ("mask_image_url",), "missing"),
    ],
    ids=str,
)
def test_a_fault_names_its_field(client, body, loc, kind):
    assert problems(run(client, body)) == [(("body", *loc), kind)]


@pytest.mark.parametrize(
    ("endpoint", "body", "loc"),
    [
        ("inpaint", {"inpaint_image_url": "x", "mask_image_url": "y"}, "inpaint_image_url"),
        ("upscale-or-vary", {"uov_image_url": "x"}, "uov_image_url"),
    ],
)
def test_a_picture_that_an_endpoint_is_for_must_be_given_and_had(client, endpoint, body, loc):
    answer = run(client, {**body, **QUICK}, f"{TEXT}/{endpoint}")
    assert problems(answer) == [(("body", loc), "file_download_error")]
    assert problems(run(client, QUICK, f"{TEXT}/{endpoint}")) == [(("body", loc), "missing")]


def test_image_fields_without_an_image_change_nothing(client):
    body = {"image_prompt_1": {}, **QUICK}
    assert run(client, body, f"{TEXT}/image-prompt").status_code == 200
    assert run(client, {"control_type": "CPDS", "control_image_url": ""}).status_code == 200


def test_long_inputs_are_not_repeated_whole(client):
    answer = run(client, {"num_images": "9" * 100_000})
    assert len(answer.content) < 5000


def with_loras(face, *names, base="toy"):
    weights = [Weights(name=name, path=face.data_dir, kind="lora") for name in names]
    catalog = Catalog([Checkpoint(name=base, path=face.data_dir)], weights)
    face.library = replace(face.library, catalog=catalog)


def test_fals_own_lora_is_taken_where_it_is_and_left_out_where_it_is_not(client, face, caplog):
    caplog.set_level(logging.INFO)
    assert run(client).status_code == 200
    assert planned(face).loras == ()
    assert f"{LORA} is left out: it is not there, or does not fit toy" in caplog.text
    with_loras(face, LORA)
    assert run(client).status_code == 200
    assert [(lora.name, lora.scale) for lora in planned(face).loras] == [(LORA, 0.1)]
    with_loras(face, LORA, base="pocket")
    assert run(client).status_code == 200
    assert planned(face).loras == ()


def test_the_studio_gives_base_model_and_vae_and_other_names_for_them(face):
    client = face.open(start={"base_model": "other", "vae": "v"}, aliases={"sdxl": "toy"})
    answer = run(client)
    assert problems(answer) == [(("body", "advanced", "base_model"), "value_error")]
    face.library = replace(
        face.library,
        catalog=Catalog(
            [Checkpoint(name=name, path=face.data_dir) for name in ("toy", "other")],
            [Weights(name="v", path=face.data_dir, kind="vae")],
        ),
    )
    assert run(client).status_code == 200
    assert (planned(face).base_model, planned(face).vae) == ("other", "v")
    assert run(client, {"advanced": {"base_model": "sdxl"}}).status_code == 200
    assert (planned(face).base_model, planned(face).vae) == ("toy", None)


def test_pictures_that_nobody_would_check_are_refused_where_that_is_the_rule(face):
    client = face.open(require_safety=True)
    kind = "feature_not_supported"
    unchecked = {"enable_safety_checker": False}
    assert problems(run(client, unchecked)) == [(("body", "enable_safety_checker"), kind)]
    assert run(client).status_code == 200
    assert planned(face).safety
    with_loras(face, base="pocket")
    assert run(client, unchecked).json()["has_nsfw_concepts"] == [False]


@pytest.mark.parametrize(
    ("prompt", "status", "kind"),
    [
        ("ends=fail", 500, "internal_error"),
        ("ends=raise", 500, "internal_error"),
        ("admit=raise", 500, "internal_error"),
    ],
)
def test_a_failure_is_flat_and_has_its_type(client, prompt, status, kind):
    answer = run(client, {"prompt": prompt})
    assert answer.status_code == status, answer.text
    assert answer.json()["error_type"] == kind
    assert answer.headers["x-fal-error-type"] == kind
    assert answer.headers["x-fal-billable-units"] == "0"
    assert isinstance(answer.json()["detail"], str)


def test_weights_that_the_worker_does_not_find_are_a_fault_of_their_field(client):
    answer = run(client, {"prompt": "admit=fail"})
    assert problems(answer) == [(("body", "advanced", "base_model"), "value_error")]


def test_a_direct_call_that_does_not_start_in_time_is_a_504(face):
    client = face.open(gated=True, slots=1)
    client.post(f"/queue/{TEXT}", json=QUICK)
    answer = run(client, **{"x-fal-request-timeout": "0.2"})
    assert answer.status_code == 504
    assert answer.headers["x-fal-request-timeout-type"] == "user"


def test_a_server_that_ends_says_so(face):
    client = face.open()
    face.jobs.close()
    answer = run(client)
    assert answer.status_code == 503
    assert answer.json()["error_type"] == "runner_scheduling_failure"
    assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/fal-ai/fooocus", 405, "Method Not Allowed"),
        ("PUT", "/queue/fal-ai/fooocus", 405, "Method Not Allowed"),
        ("POST", "/fal-ai/flux", 404, "Application 'flux' not found"),
        ("POST", "/queue/fal-ai/flux/dev", 404, "Application 'flux' not found"),
        ("POST", "/fal-ai/fooocus/stream", 404, "Path /stream not found"),
        ("POST", "/fal-ai/fooocus/stream/", 404, "Path /stream not found"),
        ("GET", "/queue/fal-ai/lora/requests", 404, "Path /requests not found"),
    ],
)
def test_paths_and_methods_that_are_not_there(client, method, path, status, detail):
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})
    assert answer.headers["x-fal-request-id"]


def test_a_body_that_is_too_long_is_a_413(face):
    client = face.open(limits=Limits(body_bytes=1000))
    for path in (f"/{TEXT}", f"/queue/{TEXT}"):
        answer = client.post(path, json={"prompt": "x" * 1000})
        assert answer.status_code == 413
        assert answer.json()["detail"] == "body: expected at most 1000 bytes"


def test_who_asks_too_often_is_slowed_down_but_may_look(face):
    client = face.open(limits=Limits(requests_per_s=0.001, burst=2))
    call = client.post(f"/queue/{TEXT}", json={}).json()
    client.post(f"/queue/{TEXT}", json={})
    answer = client.post(f"/queue/{TEXT}", json={})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 1
    assert client.get(call["status_url"]).status_code in (200, 202)
    for path in ("/docs", "/openapi.json", f"/api/openapi/queue/openapi.json?endpoint_id={TEXT}"):
        assert client.get(path).status_code == 429  # these take time


def test_a_client_that_goes_away_takes_its_job_along(face):
    face.open(gated=True)
    app = Front(page, build(face.api))
    sent = []
    left = asyncio.Event

    async def call():
        gone = left()
        messages = [{"type": "http.request", "body": b'{"performance": "Speed", "styles": []}'}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "path": f"/{TEXT}",
            "raw_path": b"",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1:7860")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 7860),
        }
        task = asyncio.create_task(app(scope, receive, send))
        while not face.jobs.active(owner="local"):
            await asyncio.sleep(0.01)
        gone.set()
        await asyncio.wait_for(task, 10)

    asyncio.run(call())
    assert sent[0]["status"] == 499
    until = time.monotonic() + 10
    while face.jobs.active(owner="local") and time.monotonic() < until:
        time.sleep(0.01)
    assert face.jobs.active(owner="local") == []
