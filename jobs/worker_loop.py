"""What a worker does, whatever it lives in: take commands, step the engine, tell what happened.

One loop for the child process and the thread. Knows the engine through its Protocol and the queue through a connection.
"""

import logging
from collections.abc import Iterable

from engine import EngineError, Event, Failed, is_terminal, plan_from_json
from engine.logs import of_job
from jobs.protocol import (
    Cancel,
    Command,
    Connection,
    Engine,
    GivenBack,
    JobEvent,
    Loading,
    Quit,
    Ready,
    Run,
    Skip,
    Stopping,
)

log = logging.getLogger(__name__)

IDLE_S = 0.5
"""How long an idle worker waits for a command before it looks around."""


def worker_loop(engine: Engine, connection: Connection, base_model: str | None = None) -> None:
    """Work until told to quit.

    An exception of the engine while it holds one job fails that job; while it holds several, all are given back to be
    run one at a time, and the engine is told to cancel them. An exception while it holds none means that the engine is
    broken: it leaves this function and ends the worker.

    Raises:
        EOFError: the other end went away.
    """
    connection.send(Loading(base_model))
    connection.send(_ready(engine, base_model))
    desk = _Desk(engine, connection)
    while True:
        command = connection.receive(IDLE_S if engine.idle() else 0.0)
        if isinstance(command, Quit):
            break
        if command is None:
            desk.step()
        else:
            desk.obey(command)
    connection.send(Stopping())


def _ready(engine: Engine, base_model: str | None) -> Ready:
    problem = ""
    if base_model is not None:
        try:
            engine.preload(base_model)
        except EngineError as error:
            log.warning("base model %s: %s", base_model, error)
            problem = str(error)
    device = str(getattr(engine, "device", ""))
    return Ready(
        slots=max(1, engine.slots()), device=device, base_model=base_model, problem=problem
    )


class _Desk:
    """The jobs that the engine holds, as the queue knows them."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._held: dict[str, None] = {}

    def obey(self, command: Command) -> None:
        match command:
            case Run():
                self._held[command.job_id] = None
                self._guarded(command)
            case Skip(job_id):
                self._engine.skip(job_id)
            case Cancel(job_id):
                self._engine.cancel(job_id)
            case Quit():
                pass

    def step(self) -> None:
        if not self._engine.idle():
            self._guarded(None)

    def _guarded(self, run: Run | None) -> None:
        """Let the engine work on behalf of jobs; the one place where any exception is caught."""
        if not self._held:
            self._tell(self._engine.step())
            return
        try:
            self._tell(self._admit(run) if run else self._engine.step())
        except Exception:
            at_fault = [run.job_id] if run else list(self._held)
            log.exception("the engine failed", extra={"job": ",".join(at_fault)})
            self._let_go(at_fault)

    def _admit(self, run: Run) -> Iterable[tuple[str, Event]]:
        try:
            with of_job(run.job_id):
                self._engine.admit(run.job_id, plan_from_json(run.plan), run.inputs)
        except EngineError as error:
            field = getattr(error, "field", None)
            return [(run.job_id, Failed(kind=error.kind, message=str(error), field=field))]
        return []

    def _let_go(self, job_ids: list[str]) -> None:
        if len(job_ids) == 1:
            self._tell(
                [
                    (
                        job_ids[0],
                        Failed(
                            kind="internal", message="an internal error; the log has the details"
                        ),
                    )
                ]
            )
        else:
            self._connection.send(GivenBack(tuple(job_ids)))
        for job_id in job_ids:
            self._held.pop(job_id, None)
            self._engine.cancel(job_id)

    def _tell(self, events: Iterable[tuple[str, Event]]) -> None:
        """Pass on what happened to jobs that are held; a job that was let go has no more story."""
        for job_id, event in events:
            if job_id not in self._held:
                continue
            if is_terminal(event):
                del self._held[job_id]
            self._connection.send(JobEvent(job_id, event))
