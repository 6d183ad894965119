"""Child processes and the line to each: a fresh interpreter that runs one of this package's modules.

Neither a fork nor a multiprocessing child: neither of those would spare it the imports of the server's main module.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobs.pipe import Pipe

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the program's packages."""
LEAVE_S = 5.0
"""How long a child that closed its line may take to end."""


class Child:
    """One child process."""

    def __init__(
        self, module: str, order: object, environment: dict[str, str] | None = None
    ) -> None:
        """Start it and tell it what it is to do. Linux kills it when the thread that calls this ends.

        Raises:
            OSError: it cannot be started.
        """
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {}), "PYTHONPATH": path},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipe = Pipe(self._process.stdout, self._process.stdin)  # type: ignore[arg-type]
        self._pipe.send(order)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, value: object) -> None:
        """Tell it something; nothing happens when it is gone."""
        self._pipe.send(value)

    def receive(self, timeout: float) -> Any:
        """Wait for what it says next; None when nothing came in time.

        Raises:
            EOFError: it ended and all it said has been received.
        """
        return self._pipe.receive(timeout)

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def end(self, timeout: float = LEAVE_S) -> str:
        """Wait until it has left, and kill it when it does not; returns how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return _how(self._process.wait(timeout))
        self._process.kill()
        return _how(self._process.wait())

    def close(self) -> None:
        """Close the line of a child that has left."""
        self._pipe.close()


def _how(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
