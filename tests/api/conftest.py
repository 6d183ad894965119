"""The fal face on a fresh folder, over a queue with the scripted engine in a thread."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api import Api, Front, build
from api.files import FileStore
from api.keys import Keys
from api.limits import Limits
from engine import Library
from engine.catalog import Catalog, Checkpoint, Weights
from engine.library import ROOT
from engine.net import Fetcher
from engine.prompt.styles import read_styles
from jobs import Jobs, JobSettings, ThreadWorker
from tests.jobs.scripted_engine import ScriptedEngine

TEXT = "fal-ai/fooocus"
QUICK = {"performance": "Speed", "styles": []}
"""What makes an input need no weights."""
QUEUE = ("max_waiting", "min_free_bytes")
"""Settings of the queue that a test may change."""
MODES = ("sdxl_lcm_lora", "sdxl_lightning_4step_lora")


async def page(scope, receive, send):
    """Stands for whatever is behind the front."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the page"})


class Face:
    """Starts fal faces on one folder, one after the other, as a server that is started again does."""

    def __init__(self, folder: Path) -> None:
        self.data_dir, self.output_dir = folder / "data", folder / "outputs"
        self.gate = threading.Semaphore(0)
        self.engines: list[ScriptedEngine] = []
        weights = [
            Weights(name=f"{name}.safetensors", path=Path(name), kind="lora") for name in MODES
        ]
        self.library = Library(
            catalog=Catalog([Checkpoint(name="toy", path=Path("toy"))], weights),
            styles=read_styles([ROOT / "styles"]),
        )
        self.opened: list[Jobs] = []

    def open(self, *, gated=False, slots=2, **changes) -> TestClient:
        def engine() -> ScriptedEngine:
            self.engines.append(ScriptedEngine(slots=slots, gate=self.gate if gated else None))
            return self.engines[-1]

        settings = JobSettings(
            data_dir=self.data_dir,
            output_dir=self.output_dir,
            drain_s=2.0,
            backoff_s=0.01,
            **{name: changes.pop(name) for name in QUEUE if name in changes},
        )
        jobs = Jobs(settings, lambda: ThreadWorker(engine))
        self.opened.append(jobs)
        jobs.start()
        limits = changes.pop("limits", Limits())
        given = Api(
            jobs=jobs,
            library=lambda: self.library,
            start={},
            files=FileStore(self.data_dir, self.output_dir, limits),
            keys=Keys(self.data_dir),
            fetcher=Fetcher(),
            limits=limits,
        )
        self.api = replace(given, **changes)
        return TestClient(
            Front(page, build(self.api)), base_url="http://127.0.0.1:7860", follow_redirects=False
        )

    @property
    def jobs(self) -> Jobs:
        return self.opened[-1]

    def close(self) -> None:
        self.gate.release(1_000_000)
        for jobs in self.opened:
            jobs.close()


@pytest.fixture
def face(tmp_path: Path) -> Iterator[Face]:
    face = Face(tmp_path)
    yield face
    face.close()


@pytest.fixture
def client(face: Face) -> TestClient:
    return face.open()


def submit(client, body=None, endpoint=TEXT, query="", **headers):
    """Put a call into the queue; returns the JSON of the answer."""
    asked = {**QUICK, **(body or {})} if endpoint == TEXT else body
    answer = client.post(f"/queue/{endpoint}{query}", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def follow(client, call, logs=0, seconds=10.0):
    """Poll a status until it is COMPLETED; returns the last answer."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = client.get(call["status_url"], params={"logs": logs})
        if answer.json()["status"] == "COMPLETED":
            assert answer.status_code == 200
            return answer
        assert answer.status_code == 202
        time.sleep(0.01)
    raise TimeoutError(answer.text)
