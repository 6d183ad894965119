"""The numbers for Prometheus, whether the studio is ready, and what the log says and does not say."""

import logging
import time
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.signing import open_signing_key
from api.webhooks import Webhooks
from engine.logs import Lines
from engine.net import Fetcher
from jobs import Jobs, JobSettings, ThreadWorker
from tests.api.conftest import QUICK, TEXT, follow, submit
from tests.jobs.scripted_engine import ScriptedEngine, toy_plan

SECRET = "a heron named Quillfeather"
"""A prompt that nobody but its writer should read."""


def numbers(client) -> dict[tuple, float]:
    """Read all samples, by name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_jobs_and_pictures_are_counted(face):
    client = face.open()
    follow(client, submit(client, {"num_images": 3}))
    follow(client, submit(client, {"prompt": "ends=fail"}))
    found = numbers(client)
    assert found["pochade_jobs_submitted_total",] == 2
    assert found["pochade_images_total",] == 3
    assert found["pochade_jobs_ended_total", "finished"] == 1
    assert found["pochade_jobs_ended_total", "failed"] == 1
    assert found["pochade_jobs_ended_total", "stopped"] == 0
    assert found["pochade_stage_seconds_sum", "total"] == 0.5
    assert found["pochade_worker_state", "ready"] == 1
    assert found["pochade_worker_has_painted",] == 1
    assert found["process_resident_memory_bytes",] > 0


def test_what_waits_and_runs_is_seen_and_all_adds_up(face):
    client = face.open(gated=True, slots=1)
    calls = [submit(client) for _ in range(4)]
    until(lambda: numbers(client)["pochade_jobs", "running"] == 1)
    assert numbers(client)["pochade_jobs", "waiting"] == 3
    client.put(calls[3]["cancel_url"])
    face.gate.release(2)
    follow(client, calls[0])
    found = numbers(client)
    ended = {state: found["pochade_jobs_ended_total", state] for state in ("finished", "stopped")}
    assert ended == {"finished": 1, "stopped": 1}
    under_way = found["pochade_jobs", "waiting"] + found["pochade_jobs", "running"]
    assert found["pochade_jobs_submitted_total",] == sum(ended.values()) + under_way


def test_what_an_earlier_life_left_counts_as_taken(face):
    client = face.open(gated=True)
    for _ in range(3):
        submit(client)
    face.jobs.close()
    assert numbers(face.open(gated=True))["pochade_jobs_submitted_total",] == 3


def test_requests_are_counted_by_template_never_by_what_they_say(client):
    call = submit(client)
    follow(client, call)
    client.get(f"/queue/{TEXT}/requests/{SECRET}/status")
    client.get(f"/queue/{TEXT}/{SECRET}")
    client.request("BREW", f"/{TEXT}")
    client.post(f"/{TEXT}", json=QUICK, headers={"content-length": str(10**12)})
    proxied = {"x-fal-target-url": f"https://queue.fal.run/{TEXT}"}
    client.post("/api/fal/proxy", json=QUICK, headers=proxied)
    text = client.get("/metrics").text
    status = f'route="/queue/{TEXT}/requests/{{request_id}}/status"'
    for expected in (
        f'method="POST",route="/queue/{TEXT}",status="200"}} 2.0',
        f'method="GET",{status},status="200"',
        f'method="GET",{status},status="404"}} 1.0',
        'method="GET",route="other",status="404"} 1.0',
        f'method="other",route="/{TEXT}",status="405"}} 1.0',
        f'method="POST",route="/{TEXT}",status="413"}} 1.0',
    ):
        assert f"pochade_request_seconds_count{{{expected}" in text
    for said in (call["request_id"], "Quillfeather", "BREW"):
        assert said not in text


def test_a_defect_counts_as_500(face):
    client = face.open(library=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        client.get("/docs")
    assert numbers(client)["pochade_request_seconds_count", "/docs", "500", "GET"] == 1


def test_told_receivers_are_counted(face):
    client = face.open()
    webhooks = Webhooks(
        face.api, open_signing_key(face.data_dir), Fetcher(), pauses_s=(), look_s=0.01
    )
    webhooks.start()
    submit(client, query="?fal_webhook=http://127.0.0.1:9/")
    until(lambda: numbers(client)["pochade_webhooks_total", "failed"] == 1)
    webhooks.stop()
    assert numbers(client)["pochade_webhooks_total", "delivered"] == 0


def test_uploaded_bytes_are_told(face):
    client = face.open()
    face.api.files.put(b"x" * 700, content_type="text/plain", owner="local")
    assert numbers(client)["pochade_files_bytes",] == 700


def test_numbers_need_a_key_where_everything_does(face):
    client = face.open(is_open=lambda: False)
    assert client.get("/metrics").status_code == 401
    key = {"authorization": f"Key {face.api.keys.add('ann')}"}
    assert client.get("/metrics", headers=key).status_code == 200


def test_not_ready_when_the_worker_is_gone(tmp_path):
    workers = []

    def build() -> ThreadWorker:
        workers.append(ThreadWorker(ScriptedEngine))
        return workers[-1]

    jobs = Jobs(JobSettings(data_dir=tmp_path / "d", output_dir=tmp_path / "o"), build)
    jobs.start()
    jobs.wait(jobs.submit(toy_plan()), 10.0)
    assert (jobs.status().state, jobs.status().has_painted) == ("ready", True)
    workers[0].kill()
    until(lambda: not jobs.status().has_painted)
    jobs.wait(jobs.submit(toy_plan()), 10.0)
    assert jobs.status().has_painted
    jobs.close()


def test_the_log_names_the_job_and_neither_prompt_nor_key(face, caplog):
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(Lines())
    client = face.open(is_open=lambda: False)
    key = face.api.keys.add("ann")
    client.headers["authorization"] = f"Key {key}"
    ids = []
    for prompt in (SECRET, f"{SECRET} ends=fail", f"{SECRET} ends=raise", f"{SECRET} admit=raise"):
        call = submit(client, {"prompt": prompt, "negative_prompt": SECRET})
        follow(client, call, logs=1)
        client.get(call["response_url"])
        ids.append(call["request_id"])
    client.post(f"/{TEXT}", json={"prompt": SECRET, "styles": [SECRET], "num_images": 99})
    client.post(f"/{TEXT}", json={**QUICK, "prompt": SECRET})
    lines = caplog.text.splitlines()
    for request_id in ids:
        assert sum(f" job={request_id}: " in line for line in lines) >= 3
    secret = key.rpartition(":")[2]
    assert not [line for line in lines if "Quillfeather" in line or secret in line or key in line]
