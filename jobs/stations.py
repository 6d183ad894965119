"""The workers as the dispatcher sees them: what each holds, has to do, and when it last spoke.

Written by one thread. Knows workers only as somebody to send commands to.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.archive import read_plan
from jobs.live import Live
from jobs.protocol import Command, Ready, Worker
from jobs.routing import Weights, choose, emptiest, weights_of
from jobs.waiting import Waiting


@dataclass(slots=True)
class Station:
    """A place where one worker after the other does jobs."""

    name: str
    slots: int = 0
    """How many jobs may run here; 0 while no worker takes any."""
    weights: Weights = field(default_factory=Weights)
    running: dict[str, Live] = field(default_factory=dict)
    _worker: Worker | None = None
    _heard_at: float = 0.0

    @property
    def load(self) -> int:
        """How many jobs run here."""
        return len(self.running)

    @property
    def is_taken(self) -> bool:
        """Whether a job runs here that has to run alone."""
        return any(live.alone for live in self.running.values())

    def open(self, worker: Worker, ready: Ready) -> None:
        """Let a worker do jobs here."""
        self._worker = worker
        self.slots = ready.slots
        self.weights = Weights(ready.base_model)

    def close(self) -> list[Live]:
        """Let nobody do jobs here any more; returns those that ran."""
        self._worker, self.slots = None, 0
        lost = list(self.running.values())
        self.running.clear()
        return lost

    def send(self, command: Command) -> None:
        """Give the worker a command; nothing happens while there is none."""
        if self._worker is not None:
            self._worker.send(command)

    def note_sign(self) -> None:
        """Note that the worker lives."""
        self._heard_at = time.monotonic()

    def kill_if_silent(self, longest_s: float) -> float:
        """End a worker that has jobs and said nothing for so long; returns how long that was, else 0."""
        silent_s = time.monotonic() - self._heard_at
        if self._worker is None or not self.running or silent_s <= longest_s:
            return 0.0
        self.note_sign()
        self._worker.kill()
        return silent_s


class Stations:
    """All of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._stations = {name: Station(name) for name in names}
        self._of: dict[str, Station] = {}

    def __getitem__(self, name: str) -> Station:
        return self._stations[name]

    def __iter__(self) -> Iterator[Station]:
        return iter(self._stations.values())

    def __len__(self) -> int:
        """Count the jobs that run, anywhere."""
        return len(self._of)

    def of(self, job_id: str) -> Station | None:
        """Say where a job runs, from any thread; None when it does not."""
        return self._of.get(job_id)

    def next(self, waiting: Waiting, jobs: Mapping[str, Live]) -> tuple[Live, Station] | None:
        """Choose the job that starts now and where; None when none may.

        A job that has to run alone waits until a worker has no other. The one with the fewest gets no more meanwhile, the
        others go on.
        """
        job_id, places = waiting.first(), list(self)
        is_alone = job_id is not None and jobs[job_id].alone
        if is_alone and not any(it.slots and not it.load for it in places):
            kept = emptiest(places)
            places = [it for it in places if it is not kept]
            job_id, is_alone = waiting.first(with_alone=False), False
        if job_id is None or not any(it.load < it.slots for it in places):
            return None
        live = jobs[job_id]
        station = choose(places, _weights(live), alone=is_alone)
        return None if station is None else (live, station)

    def give(self, live: Live, station: Station) -> None:
        """Note that a job runs at a station from now on."""
        if not station.running:
            station.note_sign()
        station.running[live.id] = live
        station.weights = _weights(live)
        self._of[live.id] = station

    def take(self, job_id: str) -> Live | None:
        """Note that a job runs no more."""
        station = self._of.pop(job_id, None)
        return None if station is None else station.running.pop(job_id)

    def close(self, station: Station) -> list[Live]:
        """Let nobody do jobs at a station; returns those that ran there."""
        lost = station.close()
        for live in lost:
            del self._of[live.id]
        return lost


def _weights(live: Live) -> Weights:
    if live.weights is None:
        plan = read_plan(live.plan)
        live.weights = Weights() if plan is None else weights_of(plan)
    return live.weights
