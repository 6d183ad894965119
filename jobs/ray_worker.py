"""A worker on some machine of a Ray cluster. Ray itself runs in child processes alone (`jobs.ray_child`)."""

import importlib.util
import secrets
import shutil
import threading
from pathlib import Path
from typing import cast

from engine import InvalidRequest
from jobs.children import Child
from jobs.own_folders import own_folder
from jobs.process_worker import ProcessWorker
from jobs.protocol import EngineSpec, Message, Quit, Unable, WorkerGone
from jobs.ray_orders import Count, Hold, Order, Paint

CHILD = "jobs.ray_child"
LOCAL = "local"
"""The address that stands for a cluster of this machine alone, which we start."""
ANSWER_S = 60.0
"""How long a cluster may take to answer."""


class RayCluster:
    """The machines of a cluster; safe from any thread."""

    def __init__(self, address: str, *, cpus: int | None = None) -> None:
        """Know a cluster by its address; one of this machine alone begins to start.

        Linux ends that one when the thread that calls this ends.

        Args:
            address: ``HOST:PORT``, ``auto``, or ``local`` for one of this machine alone.
            cpus: With ``local``, how many CPUs it has; None is all.

        Raises:
            InvalidRequest: Ray is not installed.
        """
        if importlib.util.find_spec("ray") is None:
            problem = "expected Ray to be there (pip install -r requirements-cluster.txt), got none"
            raise InvalidRequest("ray", problem)
        self._cpus = cpus
        self._lock = threading.Lock()
        self._secret: dict[str, str] = {}
        self._folder: Path | None = None
        self._home: Child | None = None
        self._address = address
        if address == LOCAL:
            self._start()

    def address(self) -> str:
        """Say where it is, once it is there; one of this machine alone that died is started again.

        Raises:
            WorkerGone: it cannot be started.
        """
        with self._lock:
            if self._home is not None and not self._home.alive():
                self._end()
                self._start()
            if self._address == LOCAL and self._home is not None:
                self._address = str(answer(self._home))
            return self._address

    def room(self) -> int:
        """Say how many workers it has room for: one for each GPU, or where there is none for each machine.

        Raises:
            WorkerGone: it cannot be reached.
        """
        child = self.child(Count(self.address()))
        try:
            return cast(int, answer(child))
        finally:
            child.end()
            child.close()

    def child(self, order: Order) -> Child:
        """Start a process that speaks to Ray."""
        return Child(CHILD, order, self._secret)

    def close(self) -> None:
        """End the cluster, if it is ours."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        self._address = LOCAL
        self._folder = own_folder("pochade-ray")
        self._secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._home = self.child(Hold(str(self._folder), self._cpus))

    def _end(self) -> None:
        if self._home is not None:
            self._home.send(Quit())
            self._home.end()
            self._home.close()
            self._home = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class RayWorker(ProcessWorker):
    """An actor of a cluster that paints; the child process passes on what either side says."""

    def __init__(self, cluster: RayCluster, spec: EngineSpec) -> None:
        super().__init__(spec)
        self._cluster = cluster
        self._is_killed = False

    def start(self) -> None:
        """Start the actor, where the cluster has a place for it.

        Raises:
            WorkerGone: there is no cluster.
        """
        self._child = self._cluster.child(Paint(self._cluster.address(), self._spec))

    def receive(self, timeout: float) -> Message | None:
        """Wait for the next message of the actor.

        Raises:
            WorkerGone: nothing will come any more.
        """
        try:
            return super().receive(timeout)
        except WorkerGone as gone:
            how = f"lost the cluster: what speaks to it {gone}"
            raise WorkerGone(how, is_blameless=not self._is_killed) from gone

    def kill(self) -> None:
        """End the actor at once, and what speaks to it."""
        self._is_killed = True
        super().kill()


def answer(child: Child) -> object:
    """Wait for what a child that speaks to Ray answers.

    Raises:
        WorkerGone: it cannot do what it was told.
    """
    try:
        said: object = child.receive(ANSWER_S)
    except EOFError as error:
        raise WorkerGone(f"cannot start: what speaks to Ray {child.end()}") from error
    if isinstance(said, Unable):
        raise WorkerGone(f"cannot start: {said.problem}")
    if said is None:
        raise WorkerGone(f"cannot start: Ray did not answer within {ANSWER_S:.0f} s")
    return said
