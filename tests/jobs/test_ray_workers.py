"""Two workers on one queue, child processes or Ray actors: one is killed, and nobody notices but for the wait."""

import asyncio
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import fal_client
import pytest
import uvicorn

from api import Front
from app import Programs
from engine import Finished, ImageReady, Started, is_terminal
from jobs import Build, EngineSpec, Jobs, JobSettings, RayCluster
from jobs.staff import on_cluster, on_devices
from settings import read_settings
from tests.clients.conftest import point  # noqa: F401  (a fixture)
from tests.clients.server import library, page
from tests.jobs.scripted_engine import picture, toy_plan
from tests.jobs.test_job_process import is_running

SOON_S = 90.0
SPEC = EngineSpec(
    factory="tests.jobs.scripted_engine:with_pid",
    kwargs={"slots": 2, "step_s": 0.01},
    base_model="toy",
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Crew:
    """A queue with two workers, in the folders of a studio."""

    def __init__(self, folder: Path, builds: Mapping[str, Build]) -> None:
        self.folder = folder
        names = ["--data-dir", str(folder / "data"), "--output-dir", str(folder / "outputs")]
        self.settings = read_settings(names, {})
        facts = JobSettings(data_dir=folder / "data", output_dir=folder / "outputs", drain_s=2.0)
        self.jobs = Jobs(facts, builds)
        self.jobs.start()

    def until_all_are_ready(self) -> None:
        until(lambda: all(it.state == "ready" for it in self.jobs.workers()))

    def busy(self) -> str:
        """Name the one worker that has a job."""
        until(lambda: any(it.jobs for it in self.jobs.workers()))
        (name,) = [it.name for it in self.jobs.workers() if it.jobs]
        return name

    def pid(self, name: str) -> int:
        (device,) = [it.device for it in self.jobs.workers() if it.name == name]
        return int(device.split()[1])


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def kill(pid: int) -> None:
    """End a process as its machine's lack of memory would, and wait until it does nothing more."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid))


@pytest.fixture(scope="module", params=["process", "ray"])
def crew(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("crew")
    if request.param == "process":
        crew, cluster = Crew(folder, on_devices(SPEC, ["cpu", "cpu"])), None
    else:
        if importlib.util.find_spec("ray") is None:
            pytest.skip("Ray is not installed (pip install -r requirements-cluster.txt)")
        cluster = RayCluster("local", cpus=2)
        crew = Crew(folder, on_cluster(SPEC, cluster, 2))
    yield crew
    crew.jobs.close()
    if cluster is not None:
        cluster.close()


def story(jobs: Jobs, job_id: str):
    async def read():
        return [event async for _, event in jobs.events(job_id, owner="local")]

    return asyncio.run(read())


def test_forty_jobs_and_a_killed_worker(crew, tmp_path):
    """None is lost, none is painted twice; the page's pill says ready all the time."""
    jobs, gate = crew.jobs, tmp_path / "gate"
    crew.until_all_are_ready()
    ids = [jobs.submit(toy_plan(f"steps=4 waits={gate}", images=2))]
    name = crew.busy()
    victim, pictures, states = crew.pid(name), [], set()

    def listen(event):
        states.add(jobs.status().state)
        if isinstance(event, ImageReady):
            pictures.append(event)
            if len(pictures) == 20:
                kill(victim)
                gate.touch()

    jobs.listen(listen)
    ids += [jobs.submit(toy_plan("steps=4", images=2)) for _ in range(39)]
    views = [jobs.wait(job_id, SOON_S) for job_id in ids]
    assert {view.state for view in views} == {"finished"}
    assert views[0].attempt == 2
    assert sum(view.attempt - 1 for view in views) <= 2
    assert len(pictures) == 80
    assert states == {"ready"}
    for view in views:
        assert [it.path.read_bytes() for it in view.images] == [
            picture(view.id, 0),
            picture(view.id, 1),
        ]
        events = story(jobs, view.id)
        assert sum(isinstance(event, Started) for event in events) == view.attempt
        assert sum(isinstance(event, ImageReady) for event in events) == 2
        assert [is_terminal(event) for event in events] == [False] * (len(events) - 1) + [True]
        assert isinstance(events[-1], Finished)
    files = [path for path in (crew.folder / "outputs").rglob("*") if path.is_file()]
    assert len(files) == 80
    crew.until_all_are_ready()
    assert crew.pid(name) != victim


def test_a_job_that_takes_its_worker_along_twice_fails_and_no_other_does(crew):
    crew.until_all_are_ready()
    bad, *good = (crew.jobs.submit(toy_plan(words)) for words in ("ends=crash", *["steps=9"] * 4))
    assert crew.jobs.wait(bad, SOON_S).error.kind == "worker_died"
    assert {crew.jobs.wait(job_id, SOON_S).state for job_id in good} == {"finished"}


@pytest.fixture
def address(crew, point) -> Iterator[str]:  # noqa: F811
    """The fal face over the crew, and fal's client pointed at it."""
    programs = Programs(crew.settings, crew.jobs, library)
    programs.start()
    config = uvicorn.Config(Front(page, programs.face), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    until(lambda: server.started)
    (port,) = [it.getsockname()[1] for it in server.servers[0].sockets]
    point(f"http://127.0.0.1:{port}")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
    programs.stop()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # fal's client closes none
def test_a_program_notices_nothing_of_a_killed_worker(crew, address, tmp_path):
    crew.until_all_are_ready()
    gate = tmp_path / "gate"
    handle = fal_client.submit(
        "fal-ai/fooocus", arguments={"prompt": f"star steps=9 waits={gate}", "num_images": 2}
    )
    lines, states = [], []
    for update in handle.iter_events(with_logs=True, interval=0.05):
        states.append(type(update).__name__)
        lines += [line["message"] for line in getattr(update, "logs", None) or ()]
        if not gate.exists() and any("step 1/9" in line for line in lines):
            kill(crew.pid(crew.busy()))
            gate.touch()
    assert states[-1] == "Completed"
    assert states.count("Completed") == 1
    result = handle.get()
    assert len(result["images"]) == 2
    assert crew.jobs.job(handle.request_id, owner="local").attempt == 2
