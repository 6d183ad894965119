"""The program as a person starts it: one picture from the command line, or a studio that opens quickly and leaves in good order."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.stages.metadata import read_plan

ROOT = Path(__file__).parent.parent
PROMPT = "a large red star on a blue background"


def run(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.torch
def test_once_paints_a_red_star_on_blue_and_the_same_again(tmp_path: Path) -> None:
    """The star is read by the pocket model's scorer, which sees pixels only."""
    from pocket.score import read

    pictures = []
    for name in ("first.png", "second.png"):
        done = run("--once", PROMPT, "--seed", "7", "--output", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / name}: 512x512, seed 7\n"
        pictures.append(Image.open(tmp_path / name))
    first, second = (np.asarray(picture) for picture in pictures)
    assert np.array_equal(first, second)
    seen = read(np.asarray(pictures[0].resize((128, 128), Image.Resampling.BOX)))
    assert (seen.shape, seen.colour, seen.background, seen.size) == ("star", "red", "blue", "large")
    saved = read_plan(pictures[0])
    assert saved is not None
    assert (saved.prompt, saved.images[0].seed) == (PROMPT, 7)


@pytest.mark.torch
def test_wrong_flags_give_a_sentence(tmp_path: Path) -> None:
    ending = run("--once", "a star", "--output", str(tmp_path / "a.gif"))
    assert (ending.returncode, ending.stdout) == (2, "")
    assert (
        ending.stderr == "output: expected a name ending in .png, .jpg, .jpeg, .webp, got 'a.gif'\n"
    )
    port = run("--port", "99999")
    assert port.stderr == "port: expected 1 to 65535, got 99999\n"
    kind = run("--device", "tpu")
    assert kind.stderr == "device: expected one of auto, cpu, cuda, mps, got 'tpu'\n"
    preset = run("--once", "a star", "--preset", "nothing")
    assert preset.stderr.startswith("preset: expected one of anime, default, ")
    assert preset.stderr.endswith(", got 'nothing'\n")
    device = run("--once", "a star", "--device", "tpu")
    assert device.stderr.startswith("device: expected one that is there (cpu")
    model = run("--once", "a star", "--model", "pockt")
    assert model.stderr == "base_model: no base model named 'pockt'; closest are 'pocket'\n"


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    port = free_port()
    command = [sys.executable, "app.py", "--port", str(port), "--model", "pocket"]
    folders = ["--data-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "out")]
    process = subprocess.Popen([*command, *folders], cwd=ROOT, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    wait_for(address + "/health/live", 60)
    yield address, process
    process.kill()
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(address: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def wait_for(address: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if get(address)[0] == 200:
                return
        except urllib.error.URLError:
            pass
        assert time.monotonic() < deadline, address
        time.sleep(0.1)


@pytest.mark.torch
def test_the_studio_opens_and_leaves_in_good_order(
    studio: tuple[str, "subprocess.Popen[bytes]"],
) -> None:
    address, process = studio
    status, page = get(address + "/")
    assert status == 200
    assert b"Pochade" in page
    wait_for(address + "/health/ready", 120)
    ready = json.loads(get(address + "/health/ready")[1])
    assert ready == {"status": "ready", "workers": {"ready": 1}}
    assert get(address + "/", Host="evil.example")[0] == 403
    assert get(address + "/health/live", Origin="https://evil.example")[0] == 403
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
