"""The server survives whatever happens to the worker process, says what happened, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import InvalidRequest
from jobs import EngineSpec, ProcessWorker
from jobs.protocol import Loading, Ready, Stopping, WorkerGone
from tests.jobs.scripted_engine import toy_plan

SOON_S = 60.0
ROOT = Path(__file__).parents[2]
FACTORY = "tests.jobs.scripted_engine:ScriptedEngine"


def spec(base_model=None, **kwargs):
    return EngineSpec(factory=FACTORY, kwargs=kwargs, base_model=base_model)


def until(condition):
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def is_running(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def launch(studio):
    """Open a queue on worker processes; returns it and the list of workers that were started."""
    started = []

    def open_(engine_spec, **changes):
        def build():
            started.append(ProcessWorker(engine_spec))
            return started[-1]

        return studio.open(build, **changes), started

    return open_


def test_a_job_that_takes_its_process_along_fails_and_the_others_do_not(launch, tmp_path):
    jobs, started = launch(spec())
    bad = jobs.submit(toy_plan("ends=crash"))
    good = jobs.submit(toy_plan("steps=3", images=2))
    once = jobs.submit(toy_plan(f"ends=crash once={tmp_path / 'once'}"))
    error = jobs.wait(bad, SOON_S).error
    assert error.kind == "worker_died"
    assert error.message == (
        "the worker exited with code 3 while it painted this job, twice, the second time with no other beside it"
    )
    assert jobs.wait(good, SOON_S).state == "finished"
    assert jobs.wait(once, SOON_S).state == "finished"
    jobs.close()
    assert not any(worker.alive() for worker in started)


def test_a_killed_worker_is_replaced_and_its_job_goes_on(launch):
    jobs, started = launch(spec(step_s=0.02))
    job_id = jobs.submit(toy_plan("steps=20", images=2))
    until(lambda: jobs.job(job_id, owner="local").images)
    os.kill(started[0].pid, signal.SIGKILL)
    view = jobs.wait(job_id, SOON_S)
    assert (view.state, view.attempt, len(view.images)) == ("finished", 2, 2)


def test_a_worker_that_hangs_is_killed(launch, tmp_path):
    jobs, started = launch(spec(), stuck_s=0.5)
    job_id = jobs.submit(toy_plan(f"ends=hang once={tmp_path / 'once'}"))
    view = jobs.wait(job_id, SOON_S)
    assert (view.state, len(started)) == ("finished", 2)


def test_a_hanging_worker_does_not_hold_up_the_end(launch):
    jobs, started = launch(spec(), drain_s=0.5)
    job_id = jobs.submit(toy_plan("ends=hang"))
    until(lambda: jobs.job(job_id, owner="local").progress)
    began = time.monotonic()
    jobs.close()
    assert time.monotonic() - began < 8
    assert not started[0].alive()


def test_a_worker_that_dies_at_once_again_and_again_is_said_to(launch):
    jobs, _ = launch(spec("toy", preload_exits=9), backoff_s=30.0)
    job_id = jobs.submit(toy_plan())
    until(lambda: "2 times in a row" in jobs.status().message)
    status = jobs.status()
    assert status.state == "restarting"
    assert (
        status.message
        == "the worker exited with code 9, 2 times in a row; it is started again in 30 s"
    )
    assert jobs.job(job_id, owner="local").state == "waiting"
    assert jobs.cancel(job_id, owner="local")


def test_a_base_model_that_is_missing_is_said_and_jobs_run_all_the_same(launch):
    jobs, _ = launch(spec("gone", preload_fails=True))
    assert jobs.wait(jobs.submit(toy_plan()), SOON_S).state == "finished"
    status = jobs.status()
    assert (status.state, status.device) == ("ready", "toy")
    assert status.message == "base_model: no base model named 'gone'"


def test_the_worker_says_what_it_does_and_leaves_when_told():
    worker = ProcessWorker(spec("toy"))
    worker.start()
    seen = []
    until(lambda: seen.append(worker.receive(1.0)) or isinstance(seen[-1], Ready))
    assert [item for item in seen if item is not None] == [
        Loading("toy"),
        Ready(slots=2, device="toy", base_model="toy"),
    ]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    worker.stop(SOON_S)
    assert not worker.alive()
    assert worker.receive(1.0) == Stopping()
    with pytest.raises(WorkerGone, match=r"^exited with code 0$"):
        worker.receive(1.0)


def test_a_worker_whose_server_is_killed_leaves_by_itself():
    code = (
        "import sys, time\n"
        "from jobs import EngineSpec, ProcessWorker\n"
        f"worker = ProcessWorker(EngineSpec(factory='{FACTORY}'))\n"
        "worker.start()\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as server:
        pid = int(server.stdout.readline())
        server.kill()
    began = time.monotonic()
    until(lambda: not is_running(pid))
    assert time.monotonic() - began < 10


def test_a_worker_that_is_born_after_its_server_died_leaves_at_once():
    ended = subprocess.run(
        [sys.executable, "-m", "jobs.child", "999999999"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SOON_S,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.strip() == "the server is gone"


def test_what_a_library_prints_does_not_disturb_the_line(launch):
    jobs, _ = launch(EngineSpec(factory="tests.jobs.test_job_process:chatty"))
    view = jobs.wait(jobs.submit(toy_plan()), SOON_S)
    assert view.state == "finished"


def chatty():
    """Build an engine in a noisy way, as some libraries do."""
    from tests.jobs.scripted_engine import ScriptedEngine

    os.write(1, b"loading weights...\n")
    return ScriptedEngine()


def unable():
    """A factory whose engine cannot be built."""
    raise InvalidRequest("device", "expected one that is there (cpu), got 'tpu'")


def test_an_engine_that_cannot_be_built_is_said_with_its_reason(launch):
    jobs, _ = launch(EngineSpec(factory="tests.jobs.test_job_process:unable"))
    reason = "the worker cannot start: device: expected one that is there (cpu), got 'tpu'"
    until(lambda: jobs.status().message.startswith(reason))
    assert jobs.status().state == "restarting"
