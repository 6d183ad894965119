"""Many jobs leave nothing behind in the process: no thread, no open file, no entry in any table that is kept in memory.

`bench.endurance` measures the same over more jobs and from outside, memory too.
"""

import asyncio
import functools
import gc
import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import ui
from jobs import Jobs
from jobs.calls import MAX_CACHED
from tests.api.conftest import Face, follow, submit
from tests.jobs.scripted_engine import toy_plan
from tests.ui.hostile_text import png
from ui.image_input import Uploads
from ui.lora_library import LoraLibrary

OURS = ("api", "engine", "jobs", "people", "ui")
"""Packages whose objects are looked into."""
FRAMEWORKS = ("starlette.", "fastapi.")
LEADS = ("app", "endpoint", "func", "middleware_stack", "routes", "router")
"""What in their objects leads to ours."""
KEPT = {"CallStore._cached": MAX_CACHED, "FileStore._files": 10_000}
"""Tables that grow to a limit, or until what is in them is over after some days."""
POOLS = ("AnyIO worker", "asyncio_", "ThreadPoolExecutor")
"""Threads that a library keeps for later, as many as there was to do at once."""
TABLES = (dict, list, set, OrderedDict, deque)
WARM_UP, ROUNDS = 2, 9
SOON_S = 60.0


class Held:
    """What a process holds, by name."""

    def __init__(self, roots: tuple[Any, ...]) -> None:
        gc.collect()
        self.tables = Counter[str]()
        self._walk(roots)
        names = (thread.name for thread in threading.enumerate())
        self.threads = sorted(it for it in names if not it.startswith(POOLS))
        self.files = Counter(_open_files())

    def _walk(self, roots: tuple[Any, ...]) -> None:
        seen: dict[int, Any] = {}
        left: list[tuple[str, Any]] = [("root", it) for it in roots]
        while left:
            name, it = left.pop()
            if id(it) in seen:
                continue
            seen[id(it)] = it
            if isinstance(it, TABLES):
                self.tables[name] += len(it)
            left += _inside(name, it)


def _inside(name: str, it: Any) -> Iterator[tuple[str, Any]]:
    """List what an object leads to, with the name of the table that it would be."""
    match it:
        case Mapping():
            yield from ((name, value) for value in it.values())
        case list() | tuple() | set() | frozenset() | deque():
            yield from ((name, value) for value in it)
        case MethodType():
            yield name, it.__self__
        case functools.partial():
            yield from ((name, value) for value in (it.func, *it.args, *it.keywords.values()))
        case FunctionType():
            cells = it.__closure__ or ()
            yield from ((name, cell.cell_contents) for cell in cells)
        case _ if type(it).__module__.partition(".")[0] in OURS:
            kind = type(it)
            slots = [slot for base in kind.__mro__ for slot in getattr(base, "__slots__", ())]
            for key in {*getattr(it, "__dict__", ()), *slots}:
                yield f"{kind.__name__}.{key}", getattr(it, key, None)
        case _ if type(it).__module__.startswith(FRAMEWORKS):
            yield from ((name, getattr(it, key, None)) for key in LEADS)


def _open_files() -> Iterator[str]:
    """Name what is open, but for the database, whose connections are a pool."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue  # the listing's own
        if ".sqlite" not in target:
            yield target.partition(":")[0] if ":" in target else target


class World:
    """The page and the API on one queue, without a browser."""

    def __init__(self, folder: Path) -> None:
        self.face = Face(folder)
        self.programs = self.face.open(max_waiting=50)
        self.jobs: Jobs = self.face.jobs
        self.studio = ui.Studio(
            jobs=self.jobs,
            library=self.face.library,
            uploads=Uploads(folder / "uploads"),
            loras=LoraLibrary(folder / "models", folder / "data"),
        )
        self.page = TestClient(Starlette(routes=ui.routes(self.studio)))

    def held(self) -> Held:
        """Look, once everything that was posted to the queue has happened."""
        self.jobs.delete([], owner="local")
        return Held((self.jobs, self.face.api, self.studio, self.page.app, self.programs.app))

    def play(self) -> None:
        """Let jobs of every kind come and go, the last of them alone."""
        for visit in (self.watch, self.leave, self.cancel, self.skip, self.fail, self.look):
            visit()
        self.call()
        self.submit("the last")

    def submit(self, prompt: str, **more: Any) -> str:
        job = self.jobs.submit(toy_plan(prompt), **more)
        assert self.jobs.wait(job, timeout=SOON_S).is_over
        return job

    def watch(self) -> None:
        job = self.jobs.submit(toy_plan("watched steps=5", images=2), inputs={"a": png()})
        assert asyncio.run(self._read(job, most=None)) > 2

    def leave(self) -> None:
        job = self.jobs.submit(toy_plan("left steps=30"))
        assert asyncio.run(self._read(job, most=1)) == 1
        assert self.jobs.wait(job, timeout=SOON_S).state == "finished"

    async def _read(self, job: str, most: int | None) -> int:
        story, seen = self.jobs.events(job, owner="local"), 0
        async for _ in story:
            seen += 1
            if seen == most:
                break
        await story.aclose()
        return seen

    def cancel(self) -> None:
        running, waiting = (self.jobs.submit(toy_plan("steps=100000000")) for _ in range(2))
        self.page.get(f"/studio/jobs/{running}/previews/0")
        for job in (waiting, running):
            assert self.page.post(f"/studio/jobs/{job}/cancel").json() == {"done": True}
            assert self.jobs.wait(job, timeout=SOON_S).state == "stopped"

    def skip(self) -> None:
        job = self.jobs.submit(toy_plan("steps=100000000", images=1))
        while not self.page.post(f"/studio/jobs/{job}/skip").json()["done"]:
            pass
        assert self.jobs.wait(job, timeout=SOON_S).is_over

    def fail(self) -> None:
        for way in ("ends=fail", "ends=raise", "admit=fail", "admit=raise"):
            assert self.jobs.job(self.submit(way), owner="local").state == "failed"

    def look(self) -> None:
        name = self.page.post("/studio/inputs", content=png()).json()["name"]
        for path in (f"inputs/{name}", "state", "lists", "images?search=left", "loras"):
            assert self.page.get(f"/studio/{path}").status_code == 200
        assert self.page.post("/studio/read", content=png()).status_code == 200
        assert self.page.get("/studio/jobs/none").status_code == 404

    def call(self) -> None:
        asked = {"prompt": "called steps=3", "seed": 1}
        call = submit(self.programs, asked)
        with self.programs.stream("GET", f"{call['status_url']}/stream") as stream:
            assert stream.status_code == 200
        follow(self.programs, call)
        assert self.programs.get(call["response_url"]).status_code == 200
        gone = submit(self.programs, {"prompt": "steps=100000000"})
        assert self.programs.put(gone["cancel_url"]).status_code == 202
        follow(self.programs, gone)
        refused = submit(self.programs, {"prompt": "x", "aspect_ratio": "wide"})
        assert self.programs.get(refused["response_url"]).status_code == 422


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    if sys.platform != "linux":
        pytest.skip("open files are listed as Linux does")
    world = World(tmp_path)
    yield world
    world.face.close()


def test_many_jobs_leave_nothing_in_memory(world: World) -> None:
    for _ in range(WARM_UP):
        world.play()
    before = world.held()
    for _ in range(ROUNDS):
        world.play()
    after = world.held()
    assert len(world.jobs.history(owner="local", limit=1000)) > ROUNDS * 4
    for name, most in KEPT.items():
        assert 0 < after.tables.pop(name) <= most
        del before.tables[name]
    assert after.tables == before.tables
    assert after.threads == before.threads
    assert after.files == before.files


def test_what_is_left_behind_is_seen(world: World, tmp_path: Path) -> None:
    before = world.held()
    job, end = world.jobs.submit(toy_plan("steps=100000000")), threading.Event()
    thread = threading.Thread(target=end.wait, name="left behind")
    thread.start()
    with (tmp_path / "open").open("w"):
        after = world.held()
    end.set()
    thread.join()
    assert after.tables["Dispatcher._live"] == before.tables["Dispatcher._live"] + 1
    assert "left behind" in after.threads
    assert after.files - before.files == Counter({str(tmp_path / "open"): 1})
    world.jobs.cancel(job, owner="local")
