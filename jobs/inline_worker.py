"""A worker in this process, for a device that is lent for one call at a time (design D8): a Space with ZeroGPU.

The weights are loaded here; each job is painted by a call that the lender may run in a process of its own, forked from this one.
So what a job changes is gone with it, and only plain values cross: the plan as text, paths, events. Knows neither who lends nor Gradio.
"""

import mmap
import struct
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

from engine import EngineError, Event, Failed, Fetch, Plan, Progress, Stopped, is_terminal
from engine import plan_from_json as read_plan
from engine import plan_to_json as write_plan
from jobs.pace import Pace
from jobs.protocol import Engine
from jobs.thread_worker import ThreadWorker

LOOK_S = 0.5
"""How often it is told how far files are that a job waits for."""

T = TypeVar("T")
Story = Generator[Sequence[Event], None, None]
"""What happens to a job, step by step; closing it stops the job."""
Paint = Callable[[str, str, Mapping[str, str], int], Story]
"""Paints a job, by its id, its plan as text, the paths of its inputs, and how often *skip* was pressed before."""
Seconds = Callable[[str, str, Mapping[str, str], int], int]
"""How long the same call may take, in seconds."""


class Lent(Engine, Protocol):
    """An engine whose weights are loaded where its device is not."""

    def load(self, base_model: str) -> None:
        """Bring a base model into memory, and paint nothing.

        Raises:
            EngineError: it cannot be loaded.
        """

    def hash_weights(self, plan: Plan) -> None:
        """Work out the hashes of a plan's weights, which forked processes then know.

        Raises:
            EngineError: weights that it needs are not there.
        """


class Lender(Protocol):
    """Lends a device."""

    def lend(self, paint: Paint, seconds: Seconds) -> Paint:
        """Wrap `paint`, so that each call has the device for the `seconds` that it declares.

        The call raises `EngineError` where the device is not lent, or taken back.
        """

    def on_behalf(self, job_id: str, call: Callable[[], T]) -> T:
        """Make a call in the name of the visitor who asked for a job, as far as that is still known."""


class InlineWorker(ThreadWorker):
    """A thread that paints with a device that is lent to it."""

    def __init__(self, engine: "InlineEngine", base_model: str | None = None) -> None:
        super().__init__(lambda: engine, base_model)


class InlineEngine:
    """One job at a time, each in a call of its own. All calls come from one thread."""

    def __init__(
        self,
        engine: Lent,
        lender: Lender,
        pace: Pace,
        fetch: Callable[[Plan], Sequence[Fetch]],
    ) -> None:
        """Put it together; before the page is launched, since the lender wants to know then what it is asked for.

        Args:
            engine: Paints; nothing but `load` is called of it in this process, unless the lender does so.
            lender: Lends the device.
            pace: Knows how long jobs take.
            fetch: Brings the files that a plan needs, so that no lent time goes by with it.
        """
        self._engine = engine
        self._lender = lender
        self._pace = pace
        self._fetch = fetch
        self._skips = _Skips()
        self._paint = lender.lend(self._painted, self._seconds)
        self._job: str | None = None
        self._story: Story | None = None
        self._outbox: list[tuple[str, Event]] = []
        self._painted_jobs = 0
        self._problem: EngineError | None = None

    @property
    def device(self) -> str:
        """What it runs on, for people."""
        return self._engine.device

    def load(self, base_model: str) -> None:
        """Load a base model, in the thread that built the engine; `preload` tells how that went."""
        try:
            self._engine.load(base_model)
        except EngineError as error:
            self._problem = error

    def preload(self, base_model: str) -> None:
        """Tell whether the base model is there; it is tried out by the first job.

        Raises:
            EngineError: it could not be loaded.
        """
        if self._problem is not None:
            raise self._problem

    def slots(self) -> int:
        """One: a device is lent to one call."""
        return 1

    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._job is None and not self._outbox

    def counters(self) -> Mapping[str, int]:
        """How many jobs were painted."""
        return {"jobs": self._painted_jobs}

    def admit(self, job_id: str, plan: Plan, inputs: Mapping[str, Path]) -> None:
        """Take a job; only one is taken at a time."""
        paths = {name: str(path) for name, path in inputs.items()}
        self._story = self._told(job_id, plan, paths, self._skips.count)
        self._job = job_id

    def skip(self, job_id: str) -> None:
        """End the image that is being painted."""
        if job_id == self._job:
            self._skips.add()

    def cancel(self, job_id: str) -> None:
        """End the job, and give the device back."""
        if job_id == self._job and self._story is not None:
            self._lender.on_behalf(job_id, self._story.close)
            self._job = None
            self._outbox.append((job_id, Stopped()))

    def step(self) -> Sequence[tuple[str, Event]]:
        """Wait for what happens next, and tell it."""
        told, self._outbox = self._outbox, []
        job_id, story = self._job, self._story
        if told or job_id is None or story is None:
            return told
        for event in self._next(job_id, story):
            told.append((job_id, event))
            if is_terminal(event):
                self._job = None
                self._painted_jobs += 1
        return told

    def _next(self, job_id: str, story: Story) -> Sequence[Event]:
        try:
            events = self._lender.on_behalf(job_id, lambda: next(story, None))
        except EngineError as error:
            return [_failed(error)]
        unfinished = Failed(kind="internal", message="the painting ended before the picture")
        return [unfinished] if events is None else events

    def _told(self, job_id: str, plan: Plan, paths: Mapping[str, str], skips: int) -> Story:
        """Tell a job's story, in this process."""
        for fetch in self._fetch(plan):
            while not fetch.is_over:
                fetch.wait(LOOK_S)
                yield [fetch.progress()]
            if fetch.error is not None:
                raise fetch.error
        yield [Progress(stage="loading")]
        self._engine.hash_weights(plan)
        ending: list[Event] = []
        call = self._paint(job_id, write_plan(plan), paths, skips)
        with self._pace.timing(plan) as timing, closing(call):
            for events in call:
                timing.note(events)
                ending += [event for event in events if is_terminal(event)]
                yield [event for event in events if not is_terminal(event)]
        yield ending  # now that the device is given back

    def _seconds(self, job_id: str, plan: str, paths: Mapping[str, str], skips: int) -> int:
        return self._pace.seconds(read_plan(plan))

    def _painted(self, job_id: str, plan: str, paths: Mapping[str, str], skips: int) -> Story:
        """Paint a job where the device is; something is told at every step, since only then it can be stopped."""
        engine = self._engine
        try:
            engine.admit(
                job_id, read_plan(plan), {name: Path(path) for name, path in paths.items()}
            )
        except EngineError as error:
            yield [_failed(error)]
            return
        try:
            while not engine.idle():
                while skips < self._skips.count:
                    engine.skip(job_id)
                    skips += 1
                yield [event for _, event in engine.step()]
        finally:
            engine.cancel(job_id)
            while not engine.idle():
                engine.step()


class _Skips:
    """Counts in memory that processes forked from this one see too."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, struct.calcsize("Q"))

    @property
    def count(self) -> int:
        number: int = struct.unpack_from("Q", self._memory)[0]
        return number

    def add(self) -> None:
        struct.pack_into("Q", self._memory, 0, self.count + 1)


def _failed(error: EngineError) -> Failed:
    return Failed(kind=error.kind, message=str(error), field=getattr(error, "field", None))
