"""A page on a real queue, whose engine does what each prompt says."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import ui
from engine import Catalog, Checkpoint, Size
from jobs import Jobs, JobSettings, ThreadWorker
from tests.libraries import library_of
from tests.ui.painting_engine import PaintingEngine

SUMMARY = "It paints simple shapes in plain colours, some places and drawing styles."
EXAMPLES = ("a red star on a blue background", "a yellow circle left of a green square")
POCKET = Checkpoint(
    name="pocket",
    path=Path("pocket"),
    native_size=256,
    buckets=(Size(256, 256), Size(288, 224), Size(224, 288)),
    sizes=(Size(1024, 1024), Size(1152, 896), Size(896, 1152)),
    summary=SUMMARY,
    examples=EXAMPLES,
)
OWN = Checkpoint(name="own.safetensors", path=Path("own.safetensors"))
MAX_WAITING = 4
OWNER_HEADER = "x-owner"
"""Names the visitor in tests of ownership."""


T = TypeVar("T")


def in_event_loop(build: Callable[[], T]) -> T:
    """Call `build` inside an event loop; outside of one, Gradio makes its own for each page and leaves it open."""

    async def inside() -> T:
        return build()

    return asyncio.run(inside())


def open_jobs(
    folder: Path, *, step_s: float = 0.0, gate: threading.Semaphore | None = None
) -> Jobs:
    """Start a queue on a folder."""
    settings = JobSettings(
        data_dir=folder / "data",
        output_dir=folder / "outputs",
        max_waiting=MAX_WAITING,
        drain_s=1.0,
    )
    jobs = Jobs(
        settings, lambda: ThreadWorker(lambda: PaintingEngine(slots=1, step_s=step_s, gate=gate))
    )
    jobs.start()
    return jobs


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = open_jobs(tmp_path)
    yield jobs
    jobs.close()


@pytest.fixture
def catalog() -> Catalog:
    return Catalog([POCKET])


@pytest.fixture
def studio(jobs: Jobs, catalog: Catalog) -> ui.Studio:
    return ui.Studio(
        jobs=jobs,
        library=library_of(catalog),
        owner_of=lambda request: request.headers.get(OWNER_HEADER, "local"),
    )


@pytest.fixture
def client(studio: ui.Studio) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=ui.routes(studio))) as client:
        yield client
