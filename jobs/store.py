"""What the dispatcher writes: jobs, images, events. Each method is one transaction.

A job ends at most once: every change of state says from which states it may start, and an end only from those that are
none. Only the dispatcher's thread calls what writes.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from engine import Event, Failed, Finished, ImageReady, Stopped
from jobs.calls import Call, insert_call
from jobs.database import Database
from jobs.record import event_to_json
from jobs.story import Entry
from jobs.tables import calls, events, images, jobs, lives
from jobs.views import UNFINISHED, JobState
from jobs.waiting import Priority

CHUNK = 500
"""How many ids go into one statement; databases limit that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What is known of a job when it is submitted."""

    id: str
    owner: str
    plan: str
    inputs: Mapping[str, str]
    prompt: str
    priority: Priority = "normal"
    start_by: float | None = None
    """Unix time by which it has to start."""
    call: Call | None = None
    """The program's call that it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """What is known of an image when its file is written."""

    id: str
    path: str
    event: ImageReady
    extras: Mapping[str, str] = field(default_factory=dict)
    """Paths of further files, by what they are."""


class Store:
    """The writing side of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin_life(self) -> int:
        """Record that the server started; returns how many times it has."""
        with self._database.transaction() as connection:
            key = connection.execute(
                sa.insert(lives).values(started_at=time.time())
            ).inserted_primary_key
            assert key is not None
            return int(key[0])

    def note_alive(self) -> None:
        """Write something that changes nothing, to see whether that can be done."""
        with self._database.transaction() as connection:
            last = sa.select(sa.func.max(lives.c.number)).scalar_subquery()
            same = sa.update(lives).where(lives.c.number == last)
            connection.execute(same.values(started_at=lives.c.started_at))

    def add_job(self, job: NewJob, entry: Entry) -> int:
        """Record a job that waits; returns its number."""
        with self._database.transaction() as connection:
            result = connection.execute(
                sa.insert(jobs).values(
                    id=job.id,
                    owner=job.owner,
                    state="waiting",
                    plan=job.plan,
                    inputs=json.dumps(dict(job.inputs)),
                    prompt=job.prompt,
                    search_text=job.prompt.casefold(),
                    attempt=0,
                    alone=False,
                    cancelled=False,
                    priority=job.priority,
                    start_by=job.start_by,
                    created_at=time.time(),
                )
            )
            if job.call is not None:
                insert_call(connection, job.call)
            _note(connection, job.id, entry)
            key = result.inserted_primary_key
            assert key is not None
            return int(key[0])

    def start(self, job_id: str, entry: Entry) -> None:
        """Record that a job runs."""
        with self._database.transaction() as connection:
            values = {"attempt": jobs.c.attempt + 1, "started_at": time.time()}
            if _move(connection, job_id, UNFINISHED, "running", **values):
                _note(connection, job_id, entry)

    def give_back(self, job_id: str, entry: Entry, *, alone: bool) -> None:
        """Record that a job that ran waits again."""
        with self._database.transaction() as connection:
            if _move(connection, job_id, UNFINISHED, "waiting", alone=alone):
                _note(connection, job_id, entry)

    def mark_cancelled(self, job_id: str) -> None:
        """Record that a person wants a running job to stop, should the server not live to see it."""
        with self._database.transaction() as connection:
            connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(cancelled=True))

    def add_event(self, job_id: str, entry: Entry) -> None:
        """Record an event that changes no state."""
        with self._database.transaction() as connection:
            _note(connection, job_id, entry)

    def add_image(self, job_id: str, image: NewImage, entry: Entry) -> None:
        """Record an image whose file is whole."""
        event = image.event
        with self._database.transaction() as connection:
            connection.execute(
                sa.insert(images).values(
                    id=image.id,
                    job_id=job_id,
                    place=event.index,
                    path=image.path,
                    seed=event.seed,
                    width=event.size.width,
                    height=event.size.height,
                    content_type=event.content_type,
                    plan=event.plan,
                    extras=json.dumps(dict(image.extras)) if image.extras else None,
                    created_at=time.time(),
                )
            )
            _note(connection, job_id, entry)

    def end(self, job_id: str, entry: Entry, log: str = "[]") -> bool:
        """Record the end of a job, and its log where it is a call; False when it had ended before, and nothing is changed."""
        state = _end_state(entry.event)
        with self._database.transaction() as connection:
            moved = _move(connection, job_id, UNFINISHED, state, ended_at=time.time())
            if moved:
                _note(connection, job_id, entry)
                connection.execute(sa.update(calls).where(calls.c.id == job_id).values(log=log))
            return moved

    def hide(self, image_ids: Iterable[str], owner: str) -> int:
        """Mark images as deleted; returns how many were not."""
        return self._mark(image_ids, owner, images.c.deleted_at.is_(None), time.time())

    def unhide(self, image_ids: Iterable[str], owner: str) -> int:
        """Take the mark of `hide` off; returns how many had it."""
        return self._mark(image_ids, owner, images.c.deleted_at.is_not(None), None)

    def hidden_before(self, when: float, limit: int) -> list[tuple[str, list[str]]]:
        """List id and files of images that were deleted before `when`, at most `limit`."""
        query = _files(images.c.deleted_at < when).limit(limit)
        with self._database.transaction() as connection:
            return [(row.id, _paths(row)) for row in connection.execute(query)]

    def forget(self, image_ids: Sequence[str]) -> None:
        """Remove images, whose files are gone, for good."""
        with self._database.transaction() as connection:
            connection.execute(sa.delete(images).where(images.c.id.in_(image_ids)))

    def forget_calls(self, before: float, refused_before: float) -> None:
        """Remove the calls that were made before a Unix time and are over, and refused ones that were made before another.

        One whose webhook is still to be called stays.
        """
        unfinished = sa.select(jobs.c.id).where(jobs.c.state.in_(UNFINISHED))
        is_old = calls.c.created_at < sa.case((calls.c.has_job, before), else_=refused_before)
        is_over = calls.c.next_try_at.is_(None) & calls.c.id.not_in(unfinished)
        with self._database.transaction() as connection:
            connection.execute(sa.delete(calls).where(is_old, is_over))

    def unfinished(self) -> list[sa.Row[Any]]:
        """List the rows of all jobs that are not over, by number."""
        query = sa.select(jobs).where(jobs.c.state.in_(UNFINISHED)).order_by(jobs.c.number)
        with self._database.transaction() as connection:
            return list(connection.execute(query))

    def owner_of(self, job_id: str) -> str | None:
        """Say whose a job or call is; None when there is none of that id."""
        taken = sa.union_all(
            sa.select(jobs.c.owner).where(jobs.c.id == job_id),
            sa.select(calls.c.owner).where(calls.c.id == job_id),
        )
        with self._database.transaction() as connection:
            return connection.scalars(taken).first()

    def is_known(self, job_id: str) -> bool:
        """Whether a job was ever submitted here."""
        query = sa.select(jobs.c.number).where(jobs.c.id == job_id)
        with self._database.transaction() as connection:
            return connection.scalar(query) is not None

    def paths(self, job_id: str) -> list[str]:
        """List the files of all images of a job, also of deleted ones."""
        query = _files(images.c.job_id == job_id)
        with self._database.transaction() as connection:
            return [path for row in connection.execute(query) for path in _paths(row)]

    def used_inputs(self) -> set[str]:
        """Collect the hashes of all inputs that any job refers to."""
        query = sa.select(jobs.c.inputs).where(jobs.c.inputs != "{}").distinct()
        with self._database.transaction() as connection:
            return {
                digest for text in connection.scalars(query) for digest in json.loads(text).values()
            }

    def _mark(
        self,
        image_ids: Iterable[str],
        owner: str,
        when: sa.ColumnElement[bool],
        value: float | None,
    ) -> int:
        wanted = list(dict.fromkeys(image_ids))
        owned = sa.select(jobs.c.id).where(jobs.c.owner == owner)
        count = 0
        with self._database.transaction() as connection:
            for start in range(0, len(wanted), CHUNK):
                chosen = images.c.id.in_(wanted[start : start + CHUNK])
                change = sa.update(images).where(chosen, images.c.job_id.in_(owned), when)
                count += connection.execute(change.values(deleted_at=value)).rowcount
        return count


def _move(
    connection: sa.Connection,
    job_id: str,
    before: Sequence[JobState],
    after: JobState,
    **values: Any,
) -> bool:
    change = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(before))
    return connection.execute(change.values(state=after, **values)).rowcount == 1


def _files(which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(images.c.id, images.c.path, images.c.extras).where(which)


def _paths(row: sa.Row[Any]) -> list[str]:
    return [row.path, *json.loads(row.extras or "{}").values()]


def _note(connection: sa.Connection, job_id: str, entry: Entry) -> None:
    values = {"job_id": job_id, "seq": entry.seq, "body": event_to_json(entry.event)}
    connection.execute(sa.insert(events).values(**values))


def _end_state(event: Event) -> JobState:
    match event:
        case Finished():
            return "finished"
        case Failed():
            return "failed"
        case Stopped():
            return "stopped"
        case _:
            raise ValueError(f"event: expected one that ends a job, got {type(event).__name__}")
