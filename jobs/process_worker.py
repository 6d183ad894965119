"""A worker in a child process: the default. The server survives whatever the engine does to its process.

The child is a fresh interpreter that runs `jobs.child` rather than a fork or a multiprocessing child: neither of those
would spare it the imports of the server's main module.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from jobs.pipe import Pipe
from jobs.protocol import Command, EngineSpec, Message, Quit, WorkerGone

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the program's packages."""
LEAVE_S = 5.0
"""How long a child that closed its line may take to end."""


class ProcessWorker:
    """A child process that paints."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None before the start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the child. Linux kills it when the thread that calls this ends, so that thread must outlive it."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobs.child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipe = Pipe(self._process.stdout, self._process.stdin)  # type: ignore[arg-type]
        self._pipe.send(self._spec)

    def send(self, command: Command) -> None:
        """Give the child a command."""
        if self._pipe is not None:
            self._pipe.send(command)

    def receive(self, timeout: float) -> Message | None:
        """Wait for the next message of the child.

        Raises:
            WorkerGone: the child ended.
        """
        assert self._pipe is not None
        try:
            message: Message | None = self._pipe.receive(timeout)
        except EOFError as error:
            raise WorkerGone(_how(self._wait(LEAVE_S))) from error
        return message

    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the child at once."""
        if self._process is not None:
            self._process.kill()

    def stop(self, timeout: float) -> None:
        """Ask the child to leave, wait, and kill it when it does not."""
        if self._process is None or self._pipe is None:
            return
        self._pipe.send(Quit())
        self._wait(timeout)
        self._pipe.close()

    def _wait(self, timeout: float) -> int:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout)
        self._process.kill()
        return self._process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
