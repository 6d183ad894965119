"""A job that is not over, as the dispatcher keeps it in mind."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from engine import Failed, Finished, ImageReady, ImageSkipped, Stopped, WorkerDied
from jobs.log import JobLog
from jobs.routing import Weights
from jobs.store import NewJob
from jobs.story import Entry, Story
from jobs.waiting import Priority


@dataclass(slots=True, kw_only=True)
class Live:
    """A job that is not over."""

    id: str
    number: int
    owner: str
    plan: str
    inputs: dict[str, str]
    story: Story = field(default_factory=Story)
    log: JobLog = field(default_factory=JobLog)
    priority: Priority = "normal"
    start_until: float | None = None
    """Monotonic time until which it has to start; None waits for ever."""
    alone: bool = False
    """A worker died while it ran this job, so it runs with no other beside it."""
    cancelled: bool = False
    weights: Weights | None = None
    """What its plan needs in memory, once somebody asked."""
    settled: set[int] = field(default_factory=set)
    """Images that are ready or skipped; what a second attempt makes of them is dropped."""
    doom: Failed | None = None
    """How it ends whatever the worker says next."""
    ending: Finished | Failed | Stopped | None = None
    """Its end, while that is not recorded yet."""

    def ending_without_worker(self, how: str | None) -> Failed | Stopped | None:
        """Say how it ends now that its worker left it; None when it runs again.

        Args:
            how: How the worker died; None when no job can be to blame.
        """
        if self.doom is not None:
            return self.doom
        if self.cancelled:
            return Stopped()
        if how is None or not self.alone:
            return None
        message = f"the worker {how} while it painted this job, twice, the second time with no other beside it"
        return Failed(kind=WorkerDied.kind, message=message)


def begin(job: NewJob, number: int, story: Story) -> Live:
    """Take up a job that was just recorded."""
    return Live(
        id=job.id,
        number=number,
        owner=job.owner,
        plan=job.plan,
        inputs=dict(job.inputs),
        story=story,
        priority=job.priority,
        start_until=None if job.start_by is None else until(job.start_by),
    )


def revive(row: sa.Row[Any], entries: Sequence[Entry], life: int) -> Live:
    """Take up a job that an earlier life of the server left: its row and the story so far."""
    events = (entry.event for entry in entries)
    return Live(
        id=row.id,
        number=row.number,
        owner=row.owner,
        plan=row.plan,
        inputs=json.loads(row.inputs),
        story=Story(entries, life=life),
        alone=row.alone,
        cancelled=row.cancelled,
        priority=row.priority,
        start_until=None if row.start_by is None or row.attempt else until(row.start_by),
        settled={event.index for event in events if isinstance(event, ImageReady | ImageSkipped)},
    )


def until(when: float) -> float:
    """Turn a Unix time into one of the monotonic clock, which nobody sets."""
    return time.monotonic() + when - time.time()
