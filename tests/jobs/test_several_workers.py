"""Several workers share one queue: each job's commands reach its own, and a death concerns that worker's jobs alone."""

import threading
import time

import pytest

from engine import InvalidRequest
from jobs import EngineSpec, ThreadWorker
from jobs.staff import devices_of, on_devices
from tests.jobs.scripted_engine import ScriptedEngine, toy_plan

SOON_S = 60.0


def until(condition):
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


class Broken(ThreadWorker):
    """A worker that cannot be started."""

    def start(self):
        raise OSError(2, "no such device")


class Pair:
    """Two gated workers, ``left`` and ``right``."""

    def __init__(self, studio, slots=2):
        self.gates = {name: threading.Semaphore(0) for name in ("left", "right")}
        self.engines = {name: [] for name in self.gates}
        self.workers = {name: [] for name in self.gates}
        self.broken = set()
        self.slots = slots
        self.jobs = studio.open({name: lambda name=name: self.build(name) for name in self.gates})
        until(lambda: all(it.state == "ready" for it in self.jobs.workers()))

    def build(self, name):
        def engine():
            made = ScriptedEngine(slots=self.slots, gate=self.gates[name])
            self.engines[name].append(made)
            return made

        kind = Broken if name in self.broken else ThreadWorker
        self.workers[name].append(kind(engine, "toy"))
        return self.workers[name][-1]

    def submit(self, words="steps=3", count=1, **more):
        return [self.jobs.submit(toy_plan(words, **more)) for _ in range(count)]

    def order(self, name):
        """The jobs that the latest engine of a worker has had."""
        return self.engines[name][-1].order

    def until_full(self):
        until(lambda: all(len(self.order(name)) == self.slots for name in self.gates))

    def of(self, job_id):
        """Name the worker that has a job."""
        until(lambda: any(job_id in self.order(name) for name in self.gates))
        return next(name for name in self.gates if job_id in self.order(name))

    def open_gates(self):
        for gate in self.gates.values():
            gate.release(100_000)


@pytest.fixture
def pair(studio):
    pair = Pair(studio)
    yield pair
    pair.open_gates()


def state(pair, job_id):
    return pair.jobs.job(job_id, owner="local").state


def test_jobs_are_shared_out_and_each_is_done_once(pair):
    ids = pair.submit(count=6)
    pair.until_full()
    assert [it.jobs for it in pair.jobs.workers()] == [2, 2]
    pair.open_gates()
    assert {pair.jobs.wait(job_id, SOON_S).state for job_id in ids} == {"finished"}
    assert sorted(pair.order("left") + pair.order("right")) == sorted(ids)


def test_cancel_and_skip_reach_the_worker_that_has_the_job(pair):
    one, two = pair.submit(count=2, images=2)
    names = pair.of(one), pair.of(two)
    assert set(names) == {"left", "right"}
    assert pair.jobs.cancel(one, owner="local")
    assert pair.jobs.wait(one, SOON_S).state == "stopped"
    assert pair.jobs.skip(two, owner="local")
    pair.open_gates()
    view = pair.jobs.wait(two, SOON_S)
    assert (view.state, [image.index for image in view.images]) == ("finished", [1])


def test_a_death_returns_only_the_jobs_of_the_one_that_died(pair):
    ids = pair.submit(count=4)
    pair.until_full()
    lost, kept = list(pair.order("left")), list(pair.order("right"))
    pair.workers["left"][0].kill()
    until(lambda: len(pair.engines["left"]) == 2 and pair.order("left"))
    pair.open_gates()
    views = {job_id: pair.jobs.wait(job_id, SOON_S) for job_id in ids}
    assert {view.state for view in views.values()} == {"finished"}
    assert [views[job_id].attempt for job_id in lost + kept] == [2, 2, 1, 1]


def test_alone_is_alone_on_one_worker_while_the_other_goes_on(pair):
    pair.submit(count=4)
    pair.until_full()
    others = pair.submit(count=4)
    pair.workers["left"][0].kill()
    until(lambda: len(pair.engines["left"]) == 2 and pair.order("left"))
    pair.gates["right"].release(1000)
    until(lambda: all(state(pair, job_id) == "finished" for job_id in others))
    assert pair.engines["left"][1].most_at_once == 1
    assert set(others) <= set(pair.order("right"))


def test_a_job_that_has_to_run_alone_does_not_wait_for_ever(pair):
    """The only worker that is left gets no more jobs until it has none, and then that one."""
    pair.submit(count=4)
    pair.until_full()
    lost, kept = list(pair.order("left")), list(pair.order("right"))
    others = pair.submit(count=4)
    pair.broken.add("left")
    pair.workers["left"][0].kill()
    until(lambda: all(state(pair, job_id) == "waiting" for job_id in lost))
    pair.open_gates()
    assert {pair.jobs.wait(job_id, SOON_S).state for job_id in lost + others} == {"finished"}
    assert pair.order("right") == [*kept, *lost, *others]


def test_the_studio_is_as_ready_as_its_best_worker(pair):
    pair.gates["right"].release(1000)
    pair.submit()
    pair.workers["left"][0].kill()
    assert pair.jobs.status().state == "ready"
    assert [it.name for it in pair.jobs.workers()] == ["left", "right"]
    pair.jobs.close()
    assert {it.state for it in pair.jobs.workers()} == {"stopped"}


def test_what_is_wrong_with_one_worker_is_said_beside_the_others(studio):
    jobs = studio.open(
        {"good": lambda: ThreadWorker(ScriptedEngine), "bad": lambda: Broken(ScriptedEngine)}
    )
    until(lambda: jobs.status().message)
    until(lambda: jobs.status().state == "ready")
    assert jobs.status().message.startswith("bad: the worker could not be started: no such device")
    assert jobs.wait(jobs.submit(toy_plan()), SOON_S).state == "finished"


@pytest.mark.parametrize(
    ("named", "gpus", "expected"),
    [
        ("auto", 0, ["auto"]),
        ("auto", 1, ["auto"]),
        ("auto", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda", 2, ["cuda:0", "cuda:1"]),
        ("cuda:1", 2, ["cuda:1"]),
        ("cpu", 2, ["cpu"]),
        ("cuda:0,cuda:2", 4, ["cuda:0", "cuda:2"]),
        ("cpu,cpu", 0, ["cpu", "cpu"]),
        ("cuda", None, ["cuda"]),
        ("cuda:0,cuda:1", None, ["cuda:0", "cuda:1"]),
    ],
)
def test_devices_come_from_the_flag_and_the_machine(named, gpus, expected):
    assert devices_of(named, lambda: gpus) == expected


def test_a_device_that_is_none_is_refused():
    with pytest.raises(
        InvalidRequest, match=r"^device: expected one of auto, cpu, cuda, mps, got 'tpu'$"
    ):
        devices_of("cuda:0,tpu", lambda: 0)


@pytest.mark.parametrize(
    ("named", "gpus", "problem"),
    [
        ("cuda", 0, r"expected one that is there \(cpu\), got 'cuda'"),
        ("cpu,cuda:2", 2, r"expected one that is there \(cpu, cuda:0, cuda:1\), got 'cuda:2'"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(named, gpus, problem):
    with pytest.raises(InvalidRequest, match=f"^device: {problem}$"):
        devices_of(named, lambda: gpus)


def test_workers_are_called_as_their_devices():
    spec = EngineSpec(factory="")
    assert list(on_devices(spec, ["cuda:0", "cuda:1"])) == ["cuda:0", "cuda:1"]
    assert list(on_devices(spec, ["cpu", "cpu", "cpu"])) == ["cpu", "cpu (2)", "cpu (3)"]
    assert list(on_devices(spec, ["auto"])) == ["worker"]
