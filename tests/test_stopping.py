"""Ctrl+C while jobs run: the studio says at once what it waits for, and a second one does not wait."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import JOBS_END_S
from jobs import JobSettings
from jobs.queue import DRAIN_SHARE
from tests.test_app import ROOT, free_port, wait_for

HEADERS = {"content-type": "application/json"}


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A studio whose engine follows scripts."""
    port = free_port()
    command = [sys.executable, "-m", "bench.endurance", "--serve", str(tmp_path), str(port)]
    process = subprocess.Popen(
        [*command, "scripted"], cwd=ROOT, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/health/live", 60)
        yield address, process
    finally:
        process.kill()
        process.communicate()


def ask(address: str, body: object = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address, data, HEADERS)) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def test_a_second_signal_does_not_wait_for_jobs(
    studio: tuple[str, "subprocess.Popen[str]"],
) -> None:
    address, process = studio
    queue = f"{address}/queue/fal-ai/fooocus"
    job = ask(queue, {"prompt": "steps=100000000", "styles": [], "loras": []})["request_id"]
    until = time.monotonic() + 60
    while ask(f"{queue}/requests/{job}/status")["status"] != "IN_PROGRESS":
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    words = next(line for line in process.stderr if line.startswith("Stopping."))
    assert f"Jobs that run get some {JOBS_END_S} seconds to end: 1." in words
    assert "Ctrl+C again stops now" in words
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT


WITHIN = """
import signal, sys
from app import hear_signals, is_told

told, within = hear_signals(), 0

def interrupt(frame, event, argument):
    global within
    if frame.f_code.co_filename.endswith(("app.py", "threading.py")):
        within += 1
        signal.raise_signal(signal.SIGINT)

sys.setprofile(interrupt)
signal.raise_signal(signal.SIGTERM)
sys.setprofile(None)
assert within >= 3
assert is_told(told, timeout_s=60)
"""


def test_a_signal_may_come_while_another_is_taken() -> None:
    """As where a program that runs the studio signals it and its process group."""
    subprocess.run([sys.executable, "-c", WITHIN], cwd=ROOT, check=True, timeout=60)


def test_the_seconds_are_those_that_jobs_get(tmp_path: Path) -> None:
    given = JobSettings(data_dir=tmp_path, output_dir=tmp_path).drain_s * DRAIN_SHARE
    assert given == pytest.approx(JOBS_END_S, abs=2)
