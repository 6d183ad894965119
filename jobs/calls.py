"""The calls of programs: what was asked through the API and what is left to tell of it, over restarts.

A call has the id of its job. One that was refused before it became a job has its error instead.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import sqlalchemy as sa

from jobs.database import Database
from jobs.errors import IdTaken
from jobs.log import LogLine, lines_from_json
from jobs.tables import calls, jobs
from jobs.views import UNFINISHED

MAX_CACHED = 1000
"""Calls that are kept in mind, so that a look at a status needs no disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as it was made."""

    id: str
    owner: str
    endpoint: str
    """Which one, e.g. ``fal-ai/fooocus/inpaint``."""
    has_job: bool = True
    error: tuple[int, str] | None = None
    """Why there is no job: status and JSON of the answer."""
    webhook: str | None = None
    """Where its end is told."""
    sync_mode: bool = False
    """Whether the pictures themselves are in the answer."""
    cdn: str = ""
    """Address of the files as the caller reaches them."""
    created_at: float = 0.0
    """Unix time."""
    tries: int = 0
    """How often its webhook was called."""


class CallStore:
    """The calls in the database. Callable from any thread; `write` runs what changes something on the one that may."""

    def __init__(self, database: Database, write: Callable[[Callable[[], None]], None]) -> None:
        self._database = database
        self._write = write
        self._lock = Lock()
        self._cached: OrderedDict[str, Call] = OrderedDict()

    def add(self, call: Call) -> None:
        """Record a call that became no job; one that is there already stays as it is.

        Raises:
            IdTaken: another owner has a call or a job of that id.
            StorageFailed: it cannot be recorded.
        """
        self._write(lambda: self._add(call))

    def get(self, call_id: str, owner: str) -> Call | None:
        """Find a call; None when the owner has none of that id.

        Raises:
            StorageFailed: the database cannot be read.
        """
        with self._lock:
            call = self._cached.get(call_id)
        if call is None:
            query = sa.select(calls).where(calls.c.id == call_id)
            with self._database.transaction() as connection:
                row = connection.execute(query).one_or_none()
            if row is None:
                return None
            call = _call(row)
            self._keep(call)
        return call if call.owner == owner else None

    def log(self, call_id: str) -> list[LogLine]:
        """Read the log of a call whose job is over.

        Raises:
            StorageFailed: the database cannot be read.
        """
        with self._database.transaction() as connection:
            text = connection.scalar(sa.select(calls.c.log).where(calls.c.id == call_id))
        return lines_from_json(text) if text else []

    def due_deliveries(self, now: float, limit: int = 100) -> list[Call]:
        """List the calls that are over and whose webhook is to be called by `now` (a Unix time), oldest first.

        Raises:
            StorageFailed: the database cannot be read.
        """
        over = sa.or_(~calls.c.has_job, jobs.c.state.not_in(UNFINISHED))
        query = (
            sa.select(calls)
            .outerjoin(jobs, jobs.c.id == calls.c.id)
            .where(calls.c.next_try_at <= now, over)
            .order_by(calls.c.next_try_at)
            .limit(limit)
        )
        with self._database.transaction() as connection:
            return [_call(row) for row in connection.execute(query)]

    def note_delivery(self, call_id: str, *, is_done: bool, next_try_at: float | None) -> None:
        """Record that a webhook was called; without a next time it is given up.

        Raises:
            StorageFailed: it cannot be recorded.
        """
        when = None if is_done else next_try_at
        self._write(lambda: self._note_delivery(call_id, when))

    def _keep(self, call: Call) -> None:
        with self._lock:
            self._cached[call.id] = call
            while len(self._cached) > MAX_CACHED:
                self._cached.popitem(last=False)

    def _add(self, call: Call) -> None:
        with self._database.transaction() as connection:
            taken = sa.union_all(
                sa.select(calls.c.owner).where(calls.c.id == call.id),
                sa.select(jobs.c.owner).where(jobs.c.id == call.id),
            )
            owners = set(connection.scalars(taken))
            if owners - {call.owner}:
                raise IdTaken(call.id)
            if not owners:
                insert_call(connection, call)

    def _note_delivery(self, call_id: str, when: float | None) -> None:
        change = sa.update(calls).where(calls.c.id == call_id)
        with self._database.transaction() as connection:
            connection.execute(change.values(tries=calls.c.tries + 1, next_try_at=when))


def insert_call(connection: sa.Connection, call: Call) -> None:
    """Write the row of a call."""
    status, error = call.error or (None, None)
    connection.execute(
        sa.insert(calls).values(
            id=call.id,
            owner=call.owner,
            endpoint=call.endpoint,
            has_job=call.has_job,
            status=status,
            error=error,
            webhook=call.webhook,
            sync_mode=call.sync_mode,
            cdn=call.cdn,
            created_at=call.created_at or time.time(),
            tries=0,
            next_try_at=0.0 if call.webhook else None,
        )
    )


def _call(row: sa.Row[Any]) -> Call:
    return Call(
        id=row.id,
        owner=row.owner,
        endpoint=row.endpoint,
        has_job=row.has_job,
        error=None if row.status is None else (row.status, row.error),
        webhook=row.webhook,
        sync_mode=row.sync_mode,
        cdn=row.cdn,
        created_at=row.created_at,
        tries=row.tries,
    )
