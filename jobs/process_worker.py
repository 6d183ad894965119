"""A worker in a child process: the default. The server survives whatever the engine does to its process."""

from jobs.children import Child
from jobs.protocol import Command, EngineSpec, Message, Quit, WorkerGone


class ProcessWorker:
    """A child process that paints."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None before the start."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start the child. Linux kills it when the thread that calls this ends, so that thread must outlive it."""
        self._child = Child("jobs.child", self._spec)

    def send(self, command: Command) -> None:
        """Give the child a command."""
        if self._child is not None:
            self._child.send(command)

    def receive(self, timeout: float) -> Message | None:
        """Wait for the next message of the child.

        Raises:
            WorkerGone: the child ended.
        """
        assert self._child is not None
        try:
            message: Message | None = self._child.receive(timeout)
        except EOFError as error:
            raise WorkerGone(self._child.end()) from error
        return message

    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.alive()

    def kill(self) -> None:
        """End the child at once."""
        if self._child is not None:
            self._child.kill()

    def stop(self, timeout: float) -> None:
        """Ask the child to leave, wait, and kill it when it does not."""
        if self._child is not None:
            self._child.send(Quit())
            self._child.end(timeout)
            self._child.close()
