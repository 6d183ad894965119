"""What a worker is to the queue, and what an engine is to a worker.

Commands go to a worker, messages come from it; all are plain values that can be pickled. Knows nothing of processes,
threads or the database: the standard library and the engine's front door only.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from engine import Event, Plan


class Engine(Protocol):
    """What paints. All calls come from one thread."""

    @property
    def device(self) -> str:
        """What it runs on, for people."""

    def preload(self, base_model: str) -> None:
        """Bring a base model into memory before anyone asks for it, and paint a tiny picture with it; may take long.

        Raises:
            EngineError: it cannot be loaded, or not paint.
        """

    def slots(self) -> int:
        """How many jobs may be admitted at a time."""

    def admit(self, job_id: str, plan: Plan, inputs: Mapping[str, Path]) -> None:
        """Take a job in; cheap, since the work happens in `step`.

        Raises:
            EngineError: the job cannot be done; the engine is left unchanged.
        """

    def skip(self, job_id: str) -> None:
        """End the image of a job that is nearest to its end; an unknown id changes nothing."""

    def cancel(self, job_id: str) -> None:
        """End a job: `step` then reports `Stopped`; an unknown id changes nothing."""

    def step(self) -> Sequence[tuple[str, Event]]:
        """Advance everything by one model call and tell what happened; empty when idle.

        Reports `Progress`, `ImageReady`, `ImageSkipped` and exactly one terminal event for each admitted job.
        """

    def idle(self) -> bool:
        """Whether no job is admitted."""

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, for example ``unet_calls``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """How a worker builds its engine: by name, so that whoever starts the worker need not import torch."""

    factory: str
    """``package.module:function``; called with `kwargs`, returns an `Engine`."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    base_model: str | None = None
    """Loaded before the first job; None waits for the first job."""
    nice: int = 5
    """How far a worker process steps back for others, so that the page stays quick while the CPU paints."""

    def build(self) -> Engine:
        """Import the factory and call it."""
        module, _, name = self.factory.partition(":")
        return cast(Engine, getattr(importlib.import_module(module), name)(**self.kwargs))


@dataclass(frozen=True, slots=True)
class Run:
    """Paint this job."""

    job_id: str
    plan: str
    """As `plan_to_json` wrote it."""
    inputs: Mapping[str, Path]
    """Files that the plan refers to, by the name it uses."""


@dataclass(frozen=True, slots=True)
class Skip:
    """End the image of a job that is nearest to its end."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a job."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave now; jobs under way are forgotten."""


Command = Run | Skip | Cancel | Quit


@dataclass(frozen=True, slots=True)
class Loading:
    """The worker lives and loads its engine."""

    base_model: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The worker takes jobs."""

    slots: int
    device: str = ""
    base_model: str | None = None
    problem: str = ""
    """Why the base model could not be loaded beforehand, as a sentence; jobs are taken all the same."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something happened to a job."""

    job_id: str
    event: Event


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The engine failed while it held several jobs; none of them is known to be at fault."""

    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stopping:
    """The worker leaves because it was told to."""


@dataclass(frozen=True, slots=True)
class Unable:
    """The engine cannot be built, so the worker leaves."""

    problem: str
    """Why, as a sentence."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The worker is no more; said by what stands between it and the queue, where it does not live beside the queue."""

    how: str
    is_blameless: bool = False


Message = Unable | Loading | Ready | JobEvent | GivenBack | Stopping | Gone


class WorkerGone(Exception):
    """The worker is no more and all it said has been read; the text says how it ended."""

    def __init__(self, how: str, *, is_blameless: bool = False) -> None:
        """Say how it ended, and whether that can be no job's fault: the machine it ran on is gone."""
        super().__init__(how)
        self.blame = None if is_blameless else how
        """What is said of it to the jobs that it had; None when none of them can be to blame."""


class Connection(Protocol):
    """The worker's end of the line."""

    def receive(self, timeout: float) -> Command | None:
        """Wait for the next command; None when none came in time.

        Raises:
            EOFError: the other end is closed.
        """

    def send(self, message: Message) -> None:
        """Tell the other end; nothing happens when it is closed."""


class Worker(Protocol):
    """The queue's end of the line. `start`, `receive` and `stop` come from one thread, `send` and `kill` from any."""

    def start(self) -> None:
        """Begin; returns before the engine is built."""

    def send(self, command: Command) -> None:
        """Give a command; nothing happens when the worker is gone, since `receive` tells so."""

    def receive(self, timeout: float) -> Message | None:
        """Wait for the next message; None when none came in time.

        Raises:
            WorkerGone: nothing will come any more.
        """

    def alive(self) -> bool:
        """Whether messages may still come."""

    def kill(self) -> None:
        """End a worker that hangs, at once where that is possible; `receive` then raises."""

    def stop(self, timeout: float) -> None:
        """Ask the worker to leave, wait, and end it by force when it does not; frees what it held."""
