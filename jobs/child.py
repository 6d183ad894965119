"""The worker process from the inside; started as ``python -m jobs.child PARENT_PID``.

Standard input and output are the line to the server; whatever a library prints goes to standard error. Leaves by itself
when the server is gone, however that came about.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from engine import EngineError
from engine.logs import write_log
from jobs.pipe import Pipe
from jobs.protocol import EngineSpec, Unable
from jobs.worker_loop import worker_loop

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: which signal a process gets when its parent dies."""
GRACE_S = 3.0
"""How long a worker whose line is closed may take to leave in good order."""


def main() -> None:
    """Follow the server's commands until it says quit or goes away."""
    pipe = open_line()
    with contextlib.suppress(EOFError):
        spec: EngineSpec = first(pipe)
        if hasattr(os, "nice"):
            os.nice(spec.nice)
        try:
            engine = spec.build()
        except EngineError as error:
            pipe.send(Unable(str(error)))
            return
        worker_loop(engine, pipe, spec.base_model)


def open_line() -> Pipe:
    """Make a child of this process: it ends with its server, leaves when that says so, and speaks with nobody else."""
    follow_parent(int(sys.argv[1]))
    # Ctrl-C and a stop of the whole service reach every process; the server decides when its worker leaves. Not SIG_IGN,
    # which the children of this one would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    faulthandler.enable()
    write_log(os.environ.get("POCHADE_LOG_LEVEL", "INFO"))
    return _line()


def first(pipe: Pipe) -> Any:
    """Wait for the first thing that the server says.

    Raises:
        EOFError: the server is gone.
    """
    while (said := pipe.receive(60.0)) is None:
        pass
    return said


def follow_parent(parent: int) -> None:
    """Die with the process `parent`, which may be dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if hasattr(os, "getppid") and os.getppid() != parent:
        sys.exit("the server is gone")


def _line() -> Pipe:
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return Pipe(reader, writer, on_closed=_leave)


def _leave() -> None:
    """End the process from the reading thread: the main one may be deep inside a model call."""
    time.sleep(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
