"""A worker inside a Ray actor, on whatever machine of the cluster: the same loop as in a child process, in a thread.

`jobs.ray_child` makes an actor of it. Its methods are called by several threads.
"""

import logging
import os
import queue
import shutil
import socket
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from engine import EngineError, is_terminal
from engine.logs import write_log
from jobs.line import Line
from jobs.own_folders import own_folder
from jobs.protocol import (
    Command,
    EngineSpec,
    GivenBack,
    JobEvent,
    Message,
    Ready,
    Run,
    Unable,
)
from jobs.worker_loop import worker_loop

log = logging.getLogger(__name__)


class Painter:
    """An engine, and the line to it."""

    def __init__(self, spec: EngineSpec, log_level: str | None = None) -> None:
        """Start to build the engine; a log level makes the log of this process ours."""
        if log_level is not None:
            write_log(log_level)
        self._spec = spec
        self._line = Line()
        self._lock = threading.Lock()
        self._early: dict[int, Command] = {}
        self._next = 0
        self._folder: Path | None = None
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    def place(self) -> tuple[str, str]:
        """Name the machine, as Ray does and as people do."""
        import ray

        return ray.get_runtime_context().get_node_id(), socket.gethostname()

    def obey(self, number: int, command: Command, files: Mapping[str, bytes]) -> None:
        """Take a command; they are followed by their numbers, from 0, since calls may overtake each other.

        Args:
            number: Its place among all commands.
            command: What to do.
            files: Of a `Run`, its inputs, since this machine has not the server's disk.
        """
        if isinstance(command, Run):
            command = replace(command, inputs=self._inputs(command.job_id, files))
        with self._lock:
            self._early[number] = command
            while self._next in self._early:
                self._line.commands.put(self._early.pop(self._next))
                self._next += 1

    def tell(self, timeout: float) -> list[Message | None]:
        """Wait for news; returns all there are, none when none came in time, None as the last when no more will come."""
        found: list[Message | None] = []
        try:
            found.append(self._line.messages.get(timeout=timeout))
            while found[-1] is not None:
                found.append(self._line.messages.get_nowait())
        except queue.Empty:
            pass
        for message in found:
            self._sweep(message)
        return [self._placed(message) for message in found]

    def _work(self) -> None:
        try:
            os.nice(self._spec.nice)
            worker_loop(self._spec.build(), self._line, self._spec.base_model)
        except EngineError as error:
            self._line.send(Unable(str(error)))
        except Exception:
            log.exception("the worker ends")
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._line.messages.put(None)

    def _placed(self, message: Message | None) -> Message | None:
        """Let a device say on which machine it is."""
        if not isinstance(message, Ready):
            return message
        return replace(message, device=f"{message.device} on {socket.gethostname()}")

    def _inputs(self, job_id: str, files: Mapping[str, bytes]) -> dict[str, Path]:
        """Write a job's inputs; without those that it needs it fails, while later commands are still followed."""
        try:
            return self._write(job_id, files)
        except OSError as error:
            log.error("inputs cannot be written: %s", error, extra={"job": job_id})
            return {}

    def _write(self, job_id: str, files: Mapping[str, bytes]) -> dict[str, Path]:
        if not files:
            return {}
        with self._lock:
            self._folder = self._folder or own_folder("pochade-inputs")
        folder = self._folder / job_id
        folder.mkdir()
        paths = {}
        for number, (name, data) in enumerate(files.items()):
            paths[name] = folder / str(number)
            paths[name].write_bytes(data)
        return paths

    def _sweep(self, message: Message | None) -> None:
        """Remove the inputs of jobs that are over here."""
        if self._folder is None:
            return
        over: tuple[str, ...] = ()
        if isinstance(message, JobEvent) and is_terminal(message.event):
            over = (message.job_id,)
        elif isinstance(message, GivenBack):
            over = message.job_ids
        for job_id in over:
            shutil.rmtree(self._folder / job_id, ignore_errors=True)
