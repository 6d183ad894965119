"""A page on a real queue, and a browser to see it with."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import ui
from engine import Catalog, Library
from jobs import Jobs
from tests.browser import open_chromium
from tests.ui.live_studio import LiveStudio, visit
from tests.ui.studios import OWNER_HEADER, full_library, in_event_loop, open_jobs

WAIT_MS = 30_000
"""A browser on a busy machine is slow; what is waited for comes long before."""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = open_jobs(tmp_path)
    yield jobs
    jobs.close()


@pytest.fixture
def library() -> Library:
    return full_library()


@pytest.fixture
def catalog(library: Library) -> Catalog:
    return library.catalog


@pytest.fixture
def studio(jobs: Jobs, library: Library, tmp_path: Path) -> ui.Studio:
    return ui.Studio(
        jobs=jobs,
        library=library,
        read_library=full_library,
        presets_dir=tmp_path / "presets",
        owner_of=lambda request: request.headers.get(OWNER_HEADER, "local"),
    )


@pytest.fixture
def client(studio: ui.Studio) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=ui.routes(studio))) as client:
        yield client


@pytest.fixture(scope="module")
def running(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStudio]:
    studio = in_event_loop(lambda: LiveStudio(tmp_path_factory.mktemp("studio")))
    yield studio
    studio.close()
    gc.collect()  # here, where what Gradio left open may be


@pytest.fixture(scope="module")
def chromium(running: LiveStudio, chromium_path: str) -> Iterator[Any]:
    with open_chromium(chromium_path) as browser:
        yield browser


@pytest.fixture
def live(running: LiveStudio) -> Iterator[LiveStudio]:
    yield running
    running.rest()


@pytest.fixture
def open_page(chromium, live: LiveStudio) -> Iterator[Callable]:
    """Open the page in a browser of its own; the test fails when a script does."""
    contexts, faults = [], []

    def open_(**look):
        context = chromium.new_context(
            locale="en-US", **{"viewport": {"width": 1400, "height": 900}, **look}
        )
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        visit(page, live)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []
