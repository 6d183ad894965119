"""A worker in a thread of this process: for ``--once`` and tests, where nothing has to survive a crash."""

import queue
import threading
from collections.abc import Callable

from jobs.line import Line
from jobs.protocol import Command, Engine, Message, Quit, WorkerGone
from jobs.worker_loop import worker_loop


class ThreadWorker:
    """A thread that paints."""

    def __init__(self, build: Callable[[], Engine], base_model: str | None = None) -> None:
        self._line = Line()
        self._build = build
        self._base_model = base_model
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, command: Command) -> None:
        """Give the thread a command."""
        self._line.commands.put(command)

    def receive(self, timeout: float) -> Message | None:
        """Wait for the next message of the thread.

        Raises:
            WorkerGone: the thread ended.
        """
        try:
            message = self._line.messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            self._line.messages.put(None)
            raise WorkerGone("ended")
        return message

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def kill(self) -> None:
        """Stop listening to the thread: a thread cannot be ended by force."""
        self._line.messages.put(None)
        self._line.commands.put(Quit())

    def stop(self, timeout: float) -> None:
        """Ask the thread to leave and wait; one that does not is left behind and ends with the process."""
        self._line.commands.put(Quit())
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _work(self) -> None:
        try:
            worker_loop(self._build(), self._line, self._base_model)
        finally:
            self._line.messages.put(None)
