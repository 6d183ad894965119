"""Whatever people, workers and the server do, in any order: every job's story is whole and ends once, as it should."""

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from engine import Failed, ImageReady, ImageSkipped, Queued, Started, is_terminal
from jobs import QueueFull
from tests.jobs.conftest import Studio
from tests.jobs.scripted_engine import picture, toy_plan

SOON_S = 60.0
MAX_WAITING = 5
SCRIPTS = {
    "steps=1": None,
    "steps=3": None,
    "ends=fail": "out_of_memory",
    "ends=raise": "internal",
    "admit=fail": "model_not_found",
    "admit=raise": "internal",
}
"""What a job does, and the kind of error that it should end with."""


@dataclass
class Submitted:
    """A job as the one who submitted it remembers it."""

    id: str
    owner: str
    script: str
    images: int
    was_cancelled: bool = False
    was_skipped: bool = False
    deaths: int = 0
    """Workers and servers that ended before it did."""


class QueueMachine(RuleBasedStateMachine):
    """People, workers and a server, each doing what they like."""

    jobs = Bundle("jobs")

    @initialize(slots=st.integers(1, 3), workers=st.integers(1, 2))
    def open(self, slots, workers):
        self.folder = tempfile.TemporaryDirectory()
        self.studio = Studio(Path(self.folder.name))
        self.slots, self.workers = slots, workers
        self.submitted = []
        self.start()

    def start(self):
        self.queue = self.studio.open(
            gated=True,
            slots=self.slots,
            workers=self.workers,
            max_waiting=MAX_WAITING,
            drain_s=0.05,
        )

    @rule(
        target=jobs,
        owner=st.sampled_from("ab"),
        script=st.sampled_from(sorted(SCRIPTS)),
        images=st.integers(1, 2),
    )
    def submit(self, owner, script, images):
        waiting = sum(
            view.state == "waiting" for owner in "ab" for view in self.queue.active(owner=owner)
        )
        try:
            job_id = self.queue.submit(toy_plan(script, images=images), owner=owner)
        except QueueFull:
            assert waiting >= MAX_WAITING
            return multiple()
        self.submitted.append(Submitted(job_id, owner, script, images))
        return self.submitted[-1]

    @rule(job=jobs)
    def cancel(self, job):
        before = self.queue.job(job.id, owner=job.owner)
        if self.queue.cancel(job.id, owner=job.owner):
            assert not before.is_over
            job.was_cancelled = True

    @rule(job=jobs)
    def skip(self, job):
        job.was_skipped |= self.queue.skip(job.id, owner=job.owner)

    @rule(steps=st.integers(1, 6))
    def let_the_engine_work(self, steps):
        self.studio.gate.release(steps)

    @rule(which=st.integers(1, 2))
    def kill_a_worker(self, which):
        for worker in self.studio.workers[-which:][:1]:
            worker.kill()
        for job in self.submitted:
            job.deaths += 1

    @rule()
    def restart_the_server(self):
        self.queue.close()
        self.start()

    @rule(job=jobs)
    def look(self, job):
        view = self.queue.job(job.id, owner=job.owner)
        assert (view.position is None) == (view.state != "waiting")
        assert len({image.index for image in view.images}) == len(view.images)
        for image in view.images:
            assert image.path.read_bytes() == picture(job.id, image.index)

    def teardown(self):
        if not hasattr(self, "studio"):
            return
        with contextlib.ExitStack() as stack:
            stack.callback(self.folder.cleanup)
            stack.callback(self.studio.close)
            self.studio.gate.release(1_000_000)
            views = [self.queue.wait(job.id, SOON_S, owner=job.owner) for job in self.submitted]
            for job, view in zip(self.submitted, views, strict=True):
                self.check_end(job, view)
                self.check_story(job, view)
            assert len(self.studio.files()) == sum(len(view.images) for view in views)

    def check_end(self, job, view):
        assert view.is_over
        if view.state == "stopped":
            assert job.was_cancelled
        elif view.state == "failed" and view.error.kind == "worker_died":
            assert job.deaths >= 2
        elif SCRIPTS[job.script] is not None and not job.was_skipped:
            assert view.error.kind == SCRIPTS[job.script]
        elif SCRIPTS[job.script] is None:
            assert view.state == "finished"
            assert job.was_skipped or len(view.images) == job.images

    def check_story(self, job, view):
        numbers, events = zip(*asyncio.run(self.read(job)), strict=True)
        assert list(numbers) == sorted(set(numbers))
        assert isinstance(events[0], Queued)
        assert [is_terminal(event) for event in events] == [False] * (len(events) - 1) + [True]
        assert sum(isinstance(event, Started) for event in events) == view.attempt
        settled = [event.index for event in events if isinstance(event, ImageReady | ImageSkipped)]
        assert len(settled) == len(set(settled))
        if isinstance(events[-1], Failed):
            assert view.error == events[-1]

    async def read(self, job):
        return [item async for item in self.queue.events(job.id, owner=job.owner)]


QueueMachine.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestQueue = QueueMachine.TestCase
