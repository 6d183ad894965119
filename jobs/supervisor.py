"""Keeps one worker running: starts it, passes on what it says, starts it again when it dies.

Knows nothing of jobs; `jobs.dispatcher` decides what a death means for them.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from engine import ImageReady
from jobs.dispatcher import Dispatcher
from jobs.protocol import (
    Gone,
    JobEvent,
    Loading,
    Message,
    Quit,
    Ready,
    Stopping,
    Unable,
    Worker,
    WorkerGone,
)
from jobs.views import WorkerStatus

log = logging.getLogger(__name__)

TICK_S = 1.0
"""How often the dispatcher is told that time passes."""
STEADY_S = 10.0
"""A worker that lived so long did not die at once."""
LONGEST_PAUSE_S = 30.0
LEAVE_S = 2.0
"""How long a worker that was told to leave may take."""

Post = Callable[[Callable[[], None]], None]
"""Runs something on the dispatcher's thread, later, in order."""


class Supervisor:
    """A thread that starts, hears and ends workers, one at a time."""

    def __init__(
        self,
        name: str,
        build: Callable[[], Worker],
        *,
        dispatcher: Dispatcher,
        post: Post,
        backoff_s: float,
    ) -> None:
        self.name = name
        """What its workers are called, one after the other."""
        self._build = build
        self._dispatcher = dispatcher
        self._post = post
        self._backoff_s = backoff_s
        self._worker: Worker | None = None
        self._leaving = threading.Event()
        self._ticked_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"supervisor of {name}", daemon=True)
        self.status = WorkerStatus(state="starting")
        """What the worker is up to; replaced, never changed."""

    def start(self) -> None:
        """Start the thread, and with it the first worker."""
        self._thread.start()

    def leave(self) -> None:
        """Tell the worker to leave."""
        self._leaving.set()
        worker = self._worker
        if worker is not None:
            worker.send(Quit())

    def stop(self) -> None:
        """Let the worker leave, by force when it takes longer than a moment, and wait for it."""
        self.leave()
        if self._thread.ident is not None:
            self._thread.join()
        self.status = WorkerStatus(state="stopped")

    def _run(self) -> None:
        deaths = 0
        while not self._leaving.is_set():
            started_at = time.monotonic()
            gone = self._live_through()
            self._post(partial(self._dispatcher.worker_gone, self.name, gone.blame))
            deaths = 1 if time.monotonic() - started_at > STEADY_S else deaths + 1
            if not self._leaving.is_set():
                self._pause(str(gone), deaths)

    def _live_through(self) -> WorkerGone:
        """Start a worker and pass on what it says until it is gone; returns how it went."""
        self._worker = worker = self._build()
        try:
            worker.start()
            while True:
                self._hear(worker)
        except WorkerGone as gone:
            return gone
        except OSError as error:
            return WorkerGone(f"could not be started: {error.strerror}")
        finally:
            self._worker = None
            worker.stop(LEAVE_S)

    def _hear(self, worker: Worker) -> None:
        message = worker.receive(TICK_S)
        self._tick()
        match message:
            case None:
                if self._leaving.is_set():
                    raise WorkerGone("was told to leave")
            case Loading(base_model):
                self.status = WorkerStatus(state="loading", base_model=base_model)
            case Ready():
                self.status = WorkerStatus(
                    state="ready",
                    message=message.problem,
                    base_model=message.base_model,
                    device=message.device,
                    has_painted=message.base_model is not None and not message.problem,
                )
                self._post(partial(self._dispatcher.worker_ready, self.name, worker, message))
            case Unable(problem):
                raise WorkerGone(f"cannot start: {problem}")
            case Gone(how, is_blameless):
                raise WorkerGone(how, is_blameless=is_blameless)
            case Stopping():
                pass
            case _:
                self._note_picture(message)
                self._post(partial(self._dispatcher.heard, self.name, message))

    def _note_picture(self, message: Message) -> None:
        """Take a first picture as the proof that the worker can paint, where it could not try beforehand."""
        is_picture = isinstance(message, JobEvent) and isinstance(message.event, ImageReady)
        if is_picture and not self.status.has_painted:
            self.status = dataclasses.replace(self.status, has_painted=True)

    def _pause(self, how: str, deaths: int) -> None:
        """Wait before the next worker, the longer the more of them died at once."""
        pause_s = 0.0 if deaths < 2 else min(LONGEST_PAUSE_S, self._backoff_s * 2 ** (deaths - 2))
        times = f", {deaths} times in a row" if deaths > 1 else ""
        message = f"the worker {how}{times}; it is started again in {pause_s:.0f} s"
        log.error("%s: %s", self.name, message)
        self.status = WorkerStatus(state="restarting", message=message)
        until = time.monotonic() + pause_s
        while (left := until - time.monotonic()) > 0 and not self._leaving.wait(min(left, TICK_S)):
            self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked_at >= TICK_S:
            self._ticked_at = now
            self._post(self._dispatcher.tick)
