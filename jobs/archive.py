"""What faces read: jobs, stories and pictures as they are in the database. Callable from any thread; changes nothing."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from engine import Failed, Finished, ImageReady, Plan, Size, plan_from_json
from engine.plan import only_image
from jobs.database import Database
from jobs.errors import ImageNotFound, JobNotFound
from jobs.files import OutputFolder
from jobs.record import ImageMade, event_from_json
from jobs.story import Entry
from jobs.tables import events, images, jobs
from jobs.views import UNFINISHED, ImageView, JobView, Standing

Row = sa.Row[Any]
MAX_WORDS = 20
"""How many words of a search are looked at."""


class Archive:
    """The reading side of the database."""

    def __init__(self, database: Database, outputs: OutputFolder) -> None:
        self._database = database
        self._outputs = outputs

    def job(self, job_id: str, owner: str) -> JobView:
        """Read one job.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        query = sa.select(jobs).where(jobs.c.id == job_id, jobs.c.owner == owner)
        with self._database.transaction() as connection:
            found = self._jobs(connection, connection.execute(query).all())
        if not found:
            raise JobNotFound(job_id)
        return found[0]

    def check(self, job_id: str, owner: str) -> None:
        """Look whether a job is there and the owner's.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        query = sa.select(jobs.c.number).where(jobs.c.id == job_id, jobs.c.owner == owner)
        with self._database.transaction() as connection:
            if connection.scalar(query) is None:
                raise JobNotFound(job_id)

    def input(self, job_id: str, name: str, owner: str) -> str | None:
        """Find the hash of a file that was sent along with a job; None where it has none of that name.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        query = sa.select(jobs.c.inputs).where(jobs.c.id == job_id, jobs.c.owner == owner)
        with self._database.transaction() as connection:
            text = connection.scalar(query)
        if text is None:
            raise JobNotFound(job_id)
        digest: str | None = json.loads(text).get(name)
        return digest

    def standing(self, job_id: str, owner: str) -> Standing:
        """Read how far a job is, with one look.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        query = sa.select(jobs).where(jobs.c.id == job_id, jobs.c.owner == owner)
        with self._database.transaction() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise JobNotFound(job_id)
            end = _end(connection, row)
        seconds = row.ended_at - row.started_at if row.ended_at and row.started_at else 0.0
        error = end if isinstance(end, Failed) else None
        return Standing(state=row.state, error=error, seconds=max(seconds, 0.0))

    def active(self, owner: str | None) -> list[JobView]:
        """Read the jobs that are not over, by submission; None reads everybody's."""
        query = sa.select(jobs).where(jobs.c.state.in_(UNFINISHED))
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        with self._database.transaction() as connection:
            return self._jobs(connection, connection.execute(query.order_by(jobs.c.number)).all())

    def story(self, job_id: str) -> list[Entry]:
        """Read the part of a job's story that is kept."""
        with self._database.transaction() as connection:
            query = sa.select(images).where(images.c.job_id == job_id)
            by_place = {row.place: row for row in connection.execute(query)}
            query = sa.select(events.c.seq, events.c.body).where(events.c.job_id == job_id)
            rows = connection.execute(query.order_by(events.c.seq)).all()
        return [entry for row in rows if (entry := self._entry(row, by_place)) is not None]

    def history(self, owner: str, search: str, before: str | None, limit: int) -> list[ImageView]:
        """Read pictures, newest first.

        Args:
            owner: Whose.
            search: Words that the prompt has to contain, in any order and case.
            before: Id of the last picture of the page before; None starts with the newest.
            limit: How many at most.
        """
        query = (
            _pictures().where(jobs.c.owner == owner).order_by(images.c.number.desc()).limit(limit)
        )
        for word in search.casefold().split()[:MAX_WORDS]:
            query = query.where(jobs.c.search_text.contains(word, autoescape=True))
        if before is not None:
            cursor = sa.select(images.c.number).where(images.c.id == before).scalar_subquery()
            query = query.where(images.c.number < cursor)
        with self._database.transaction() as connection:
            return self._images(connection.execute(query).all())

    def image(self, image_id: str, owner: str) -> ImageView:
        """Read one picture.

        Raises:
            ImageNotFound: the owner has none of that id, or deleted it.
        """
        query = _pictures().where(images.c.id == image_id, jobs.c.owner == owner)
        with self._database.transaction() as connection:
            found = self._images(connection.execute(query).all())
        if not found:
            raise ImageNotFound(image_id)
        return found[0]

    def _entry(self, row: Row, by_place: Mapping[int, Row]) -> Entry | None:
        event = event_from_json(row.body)
        if not isinstance(event, ImageMade):
            return Entry(row.seq, event)
        image = by_place.get(event.index)  # none when it was deleted for good
        return image and Entry(row.seq, _image_ready(image), self._outputs.path(image.path))

    def _jobs(self, connection: sa.Connection, rows: Sequence[Row]) -> list[JobView]:
        query = _pictures().where(jobs.c.id.in_([row.id for row in rows])).order_by(images.c.place)
        pictures = self._images(connection.execute(query).all()) if rows else []
        return [
            _job_view(
                row,
                tuple(item for item in pictures if item.job_id == row.id),
                _end(connection, row),
                _flags(connection, row),
            )
            for row in rows
        ]

    def _images(self, rows: Sequence[Row]) -> list[ImageView]:
        return [self._image(row) for row in rows]

    def _image(self, row: Row) -> ImageView:
        return ImageView(
            id=row.id,
            job_id=row.job_id,
            index=row.place,
            path=self._outputs.path(row.path),
            seed=row.seed,
            size=Size(row.width, row.height),
            content_type=row.content_type,
            created_at=datetime.fromtimestamp(row.created_at, UTC),
            prompt=row.prompt,
            plan=_plan_of_image(row),
            extras={
                name: self._outputs.path(path)
                for name, path in json.loads(row.extras or "{}").items()
            },
        )


def read_plan(text: str) -> Plan | None:
    """Read a plan; None when this version cannot."""
    try:
        return plan_from_json(text)
    except ValueError:
        return None


def _plan_of_image(row: Row) -> Plan | None:
    if row.plan is not None:
        return read_plan(row.plan)
    plan = read_plan(row.job_plan)
    return only_image(plan, row.place) if plan and row.place < len(plan.images) else None


def _pictures() -> sa.Select[Any]:
    return (
        sa.select(images, jobs.c.prompt, jobs.c.plan.label("job_plan"))
        .join(jobs, jobs.c.id == images.c.job_id)
        .where(images.c.deleted_at.is_(None))
    )


def _image_ready(row: Row) -> ImageReady:
    return ImageReady(
        index=row.place,
        seed=row.seed,
        size=Size(row.width, row.height),
        content_type=row.content_type,
        data=b"",
        plan=row.plan,
    )


def _end(connection: sa.Connection, row: Row) -> Finished | Failed | None:
    if row.state in UNFINISHED:
        return None
    query = sa.select(events.c.body).where(events.c.job_id == row.id)
    body = connection.scalar(query.order_by(events.c.seq.desc()).limit(1))
    event = event_from_json(body) if body is not None else None
    return event if isinstance(event, Finished | Failed) else None


def _flags(connection: sa.Connection, row: Row) -> Mapping[int, bool]:
    """Say of each picture that a finished job made whether it was flagged."""
    if row.state != "finished":
        return {}
    query = sa.select(events.c.body).where(events.c.job_id == row.id)
    found = map(event_from_json, connection.scalars(query))
    return {event.index: event.has_nsfw_concept for event in found if isinstance(event, ImageMade)}


def _job_view(
    row: Row,
    pictures: tuple[ImageView, ...],
    end: Finished | Failed | None,
    flags: Mapping[int, bool],
) -> JobView:
    return JobView(
        id=row.id,
        owner=row.owner,
        state=row.state,
        position=None,
        plan=read_plan(row.plan),
        prompt=row.prompt,
        images=pictures,
        progress=None,
        error=end if isinstance(end, Failed) else None,
        timings=end.timings if isinstance(end, Finished) else {},
        text=end.text if isinstance(end, Finished) else "",
        has_nsfw_concepts=tuple(flags[item.index] for item in pictures) if flags else (),
        attempt=row.attempt,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        started_at=_time(row.started_at),
        ended_at=_time(row.ended_at),
    )


def _time(value: float | None) -> datetime | None:
    return None if value is None else datetime.fromtimestamp(value, UTC)
