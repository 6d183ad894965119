"""All workers of the studio: started and ended together, and how they are as a whole."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jobs.dispatcher import Dispatcher
from jobs.protocol import Worker
from jobs.supervisor import Post, Supervisor
from jobs.views import WorkerState, WorkerStatus

Build = Callable[[], Worker]
BEST: tuple[WorkerState, ...] = ("ready", "loading", "starting", "restarting", "stopped")
"""The states of a worker, by what they promise to who waits for a picture."""


class Crew:
    """A supervisor for each worker."""

    def __init__(
        self, builds: Mapping[str, Build], *, dispatcher: Dispatcher, post: Post, backoff_s: float
    ) -> None:
        self._dispatcher = dispatcher
        self._supervisors = [
            Supervisor(name, build, dispatcher=dispatcher, post=post, backoff_s=backoff_s)
            for name, build in builds.items()
        ]

    def start(self) -> None:
        """Start all workers; returns before any is ready."""
        for supervisor in self._supervisors:
            supervisor.start()

    def stop(self) -> None:
        """Let all workers leave, by force those that take longer than a moment."""
        for supervisor in self._supervisors:
            supervisor.leave()
        for supervisor in self._supervisors:
            supervisor.stop()

    def statuses(self) -> list[WorkerStatus]:
        """Say what each is up to."""
        return [
            dataclasses.replace(it.status, name=it.name, jobs=self._dispatcher.running(it.name))
            for it in self._supervisors
        ]


def best(statuses: Sequence[WorkerStatus]) -> WorkerStatus:
    """Say how they are as a whole: as the one that is best off, with what is wrong with another where that has nothing to say."""
    first = min(statuses, key=lambda it: (BEST.index(it.state), not it.has_painted))
    complaints = (f"{it.name}: {it.message}" for it in statuses if it.message)
    message = first.message or next(complaints, "")
    return dataclasses.replace(first, message=message, jobs=sum(it.jobs for it in statuses))
