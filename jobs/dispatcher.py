"""What happens to jobs, one decision after the other: who runs, what is recorded, what follows when a worker dies.

Everything here but the look-ups runs on one thread, which is the only one that writes the database. Knows workers only as
somebody to send commands to; `jobs.supervisor` keeps one alive and passes on what it says.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from engine import (
    Event,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Progress,
    Queued,
    Started,
    Stopped,
    WorkerDied,
)
from jobs.archive import Archive, read_plan
from jobs.claims import settle_claim, settle_old_claims
from jobs.errors import IdTaken, QueueFull, ShuttingDown, StartTimeout, StorageFailed
from jobs.files import TENSORS, InputFolder, OutputFolder
from jobs.live import Live, revive, until
from jobs.protocol import Cancel, GivenBack, JobEvent, Message, Ready, Run, Skip, Worker
from jobs.store import NewImage, NewJob, Store
from jobs.story import Entry, Story
from jobs.sweeping import sweep_calls, sweep_trash
from jobs.views import JobSettings, Standing
from jobs.waiting import Waiting

log = logging.getLogger(__name__)

SWEEP_S = 3600.0
"""How often what is old is looked through for what goes for good."""


class Dispatcher:
    """All jobs that are not over."""

    def __init__(
        self,
        settings: JobSettings,
        *,
        store: Store,
        archive: Archive,
        inputs: InputFolder,
        outputs: OutputFolder,
    ) -> None:
        self._settings = settings
        self._store = store
        self._archive = archive
        self._inputs = inputs
        self._outputs = outputs
        self._live: dict[str, Live] = {}
        self._waiting = Waiting()
        self._running: dict[str, Live] = {}
        self._worker: Worker | None = None
        self._slots = 0
        self._life = 0
        self._draining = False
        self.is_closed = False
        """Whether nothing more happens to any job in this life of the server."""
        self._heard_at = 0.0
        self._swept_at = time.monotonic()
        self.at_rest = threading.Event()
        """Set while no job runs."""
        self.at_rest.set()
        self.listeners: list[Callable[[Event], None]] = []
        """Each hears of every job that is taken, every picture and every end, once that is recorded."""
        self.trouble = ""
        """Why jobs cannot be recorded at the moment, as a sentence."""

    # Look-ups, from any thread

    def find(self, job_id: str) -> Live | None:
        """Find a job that is not over."""
        return self._live.get(job_id)

    @property
    def is_draining(self) -> bool:
        """Whether the server is about to end."""
        return self._draining

    def positions(self) -> dict[str, int]:
        """Say how many jobs start before each one that waits."""
        return self._waiting.positions()

    def standing(self, live: Live) -> Standing:
        """Say how far a job is that is not over."""
        if live.id in self._running:
            return Standing(state="running")
        return Standing(state="waiting", position=self.positions().get(live.id, 0))

    def waiting(self, owner: str | None = None) -> int:
        """Count the jobs that wait, of one owner or of all."""
        return len(self._waiting) if owner is None else self._waiting.count(owner)

    def running(self) -> int:
        """Count the jobs that run."""
        return len(self._running)

    def check_room(self, owner: str) -> None:
        """Refuse early what `submit` would refuse.

        Raises:
            ShuttingDown, QueueFull: no job is taken now.
        """
        if self._draining:
            raise ShuttingDown
        if self._waiting.count(owner) >= self._settings.max_waiting:
            raise QueueFull(self._settings.max_waiting)

    # What faces ask for

    def recover(self) -> None:
        """Take up what an earlier life of the server left; its death counts against nobody.

        Raises:
            StorageFailed: the database cannot be read or written.
        """
        self._life = self._store.begin_life()
        settle_old_claims(self._store, self._outputs)
        for row in self._store.unfinished():
            live = self._live[row.id] = revive(row, self._archive.story(row.id), self._life)
            if read_plan(live.plan) is None:
                self._end(
                    live,
                    Failed(
                        kind="internal",
                        message="another version submitted this job; submit it again",
                    ),
                )
            elif live.cancelled:
                self._end(live, Stopped())
            elif row.state == "running":
                self._wait_again(live)
            else:
                self._wait(live)
        self._sweep()

    def submit(self, job: NewJob) -> str:
        """Record a job and let it wait; returns its id. One whose id its owner has used before is not taken again.

        Raises:
            ShuttingDown, QueueFull: no job is taken now.
            IdTaken: another owner has used its id before.
            StorageFailed: it cannot be recorded.
        """
        owner = self._store.owner_of(job.id)
        if owner is not None and owner != job.owner:
            raise IdTaken(job.id)
        if owner is not None:
            return job.id
        self.check_room(job.owner)
        story = Story(life=self._life)
        queued = Queued(len(self._waiting))
        number = self._store.add_job(job, Entry(story.next_seq, queued))
        story.add(queued)
        live = Live(
            id=job.id,
            number=number,
            owner=job.owner,
            plan=job.plan,
            inputs=dict(job.inputs),
            story=story,
            priority=job.priority,
            start_until=None if job.start_by is None else until(job.start_by),
        )
        self._live[job.id] = live
        self._wait(live)
        self._tell(queued)
        self._fill()
        return job.id

    def cancel(self, job_id: str) -> bool:
        """Stop a job; False when it is over."""
        live = self._live.get(job_id)
        if live is None or live.ending is not None:
            return False
        if self._waiting.remove(job_id):
            self._end(live, Stopped())
            self._fill()
        elif not live.cancelled:
            live.cancelled = True
            try:
                self._store.mark_cancelled(job_id)
            except StorageFailed as error:
                self._complain(job_id, error)
            self._send(Cancel(job_id))
        return True

    def skip(self, job_id: str) -> bool:
        """End the image of a job that is nearest to its end; False when it does not run."""
        if job_id not in self._running:
            return False
        self._send(Skip(job_id))
        return True

    def announce(self) -> None:
        """Tell those who watch a waiting job where it stands now."""
        if not any(live.story.has_listeners for live in self._live.values()):
            return
        for position, job_id in enumerate(self._waiting.order()):
            story = self._live[job_id].story
            if story.has_listeners:
                story.show(Queued(position))

    def drain(self) -> None:
        """Start and take no more jobs."""
        self._draining = True

    def release(self) -> None:
        """Give back what still runs, now that the worker has left, and let all readers go."""
        self._worker = None
        self.is_closed = True
        for live in self._take_running():
            self._return(live, how=None)
        for live in self._live.values():
            live.story.close()

    # What the supervisor tells

    def worker_ready(self, worker: Worker, ready: Ready) -> None:
        """Give jobs to a worker from now on."""
        self._worker = worker
        self._slots = ready.slots
        self._fill()

    def worker_gone(self, how: str) -> None:
        """Let the jobs of a dead worker run again, alone; one that ran alone for that reason fails."""
        self._worker = None
        for live in self._take_running():
            self._return(live, how=None if self._draining else how)

    def heard(self, message: Message) -> None:
        """Record what the worker says about jobs."""
        self._heard_at = time.monotonic()
        if isinstance(message, JobEvent):
            live = self._running.get(message.job_id)
            if live is not None:
                self._follow(live, message.event)
        elif isinstance(message, GivenBack):
            for job_id in message.job_ids:
                live = self._take_running_one(job_id)
                if live is not None:
                    self._return(live, how="failed")
            self._fill()

    def tick(self) -> None:
        """Do what time brings; called about once a second."""
        for live in [live for live in self._live.values() if live.ending is not None]:
            assert live.ending is not None
            self._end(live, live.ending)
        now = time.monotonic()
        self._time_out(now)
        if now - self._swept_at > SWEEP_S:
            self._sweep()
        if self._running and self._worker and now - self._heard_at > self._settings.stuck_s:
            named = ",".join(self._running)
            silent_s = now - self._heard_at
            log.error("worker: silent for %.0f s; killed", silent_s, extra={"job": named})
            self._heard_at = now
            self._worker.kill()
        self._fill()

    # The rest

    def _fill(self) -> None:
        """Start jobs while the worker has room, then tell the others how far they have come."""
        while (
            self._worker is not None and not self._draining and (live := self._next()) is not None
        ):
            entry = Entry(live.story.next_seq, Started())
            try:
                self._store.start(live.id, entry)
            except StorageFailed as error:
                self._complain(live.id, error)
                break
            self.trouble = ""
            self._waiting.take(live.id)
            if not self._running:
                self._heard_at = time.monotonic()
            self._running[live.id] = live
            live.start_until = None
            self.at_rest.clear()
            live.story.add(entry.event)
            live.log.note(entry.event)
            log.info("started", extra={"job": live.id})
            self._send(Run(live.id, live.plan, self._inputs.paths(live.inputs)))
        self.announce()

    def _next(self) -> Live | None:
        """Choose the job that starts now, if any may."""
        job_id = self._waiting.first()
        if job_id is None or len(self._running) >= self._slots:
            return None
        live = self._live[job_id]
        alone = live.alone or any(other.alone for other in self._running.values())
        return None if alone and self._running else live

    def _wait(self, live: Live) -> None:
        self._waiting.add(
            live.id,
            number=live.number,
            owner=live.owner,
            alone=live.alone,
            priority=live.priority,
        )

    def _time_out(self, now: float) -> None:
        """End the jobs that still wait though they had to start by now; one that ever ran had started."""
        for live in list(self._live.values()):
            is_late = live.start_until is not None and now >= live.start_until
            if is_late and live.ending is None and self._waiting.remove(live.id):
                self._end(live, Failed(kind=StartTimeout.kind, message=str(StartTimeout())))

    def _follow(self, live: Live, event: Event) -> None:
        live.log.note(event)
        match event:
            case Progress():
                live.story.show(event)
            case ImageReady():
                self._save(live, event)
            case ImageSkipped():
                self._note_skipped(live, event)
            case Finished() | Failed() | Stopped():
                self._take_running_one(live.id)
                self._end(live, live.doom or event)
                self._fill()
            case Queued() | Started():
                pass  # ours to say, not the worker's

    def _save(self, live: Live, event: ImageReady) -> None:
        if event.index in live.settled or live.doom is not None:
            return
        saved: list[str] = []
        try:
            saved.append(self._outputs.save(live.id, event.content_type, event.data))
            for data in event.extras.values():
                saved.append(self._outputs.save(live.id, TENSORS, data))
            entry = self._record(live, event, saved)
        except (OSError, StorageFailed) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._doom(live, f"the picture could not be saved: {reason}")
            self._settle_claims(live, saved, is_recorded=False)
            return
        self._settle_claims(live, saved, is_recorded=True)
        live.settled.add(event.index)
        live.story.add(entry.event, entry.path)
        self._tell(entry.event)

    def _record(self, live: Live, event: ImageReady, saved: Sequence[str]) -> Entry:
        """Record a picture whose files are written, its own first."""
        name, *others = saved
        seen = replace(event, data=b"", extras={})
        entry = Entry(live.story.next_seq, seen, self._outputs.path(name))
        extras = dict(zip(event.extras, others, strict=True))
        image = NewImage(id=uuid.uuid4().hex, path=name, event=event, extras=extras)
        self._store.add_image(live.id, image, entry)
        return entry

    def _settle_claims(self, live: Live, names: Iterable[str], *, is_recorded: bool) -> None:
        for name in names:
            settle_claim(self._outputs, live.id, name, is_recorded=is_recorded)

    def _note_skipped(self, live: Live, event: ImageSkipped) -> None:
        if event.index in live.settled:
            return
        live.settled.add(event.index)
        try:
            self._store.add_event(live.id, Entry(live.story.next_seq, event))
        except StorageFailed as error:
            self._complain(live.id, error)
        live.story.add(event)

    def _doom(self, live: Live, message: str) -> None:
        log.error("%s", message, extra={"job": live.id})
        live.doom = Failed(kind=StorageFailed.kind, message=message)
        self._send(Cancel(live.id))

    def _end(self, live: Live, event: Finished | Failed | Stopped) -> None:
        """Record the end of a job; when that fails, `tick` tries again."""
        live.ending = event
        try:
            self._store.end(live.id, Entry(live.story.next_seq, event), live.log.as_json())
        except StorageFailed as error:
            self._complain(live.id, error)
            return
        self.trouble = ""
        self._live.pop(live.id, None)
        live.story.add(event)
        self._tell(event)
        log.info("%s", type(event).__name__.lower(), extra={"job": live.id})

    def _return(self, live: Live, *, how: str | None) -> None:
        """Decide about a job whose worker left it; `how` it died, or None when nobody is to blame."""
        if live.doom is not None:
            self._end(live, live.doom)
        elif live.cancelled:
            self._end(live, Stopped())
        elif how is not None and live.alone:
            message = f"the worker {how} while it painted this job, twice, the second time with no other beside it"
            self._end(live, Failed(kind=WorkerDied.kind, message=message))
        else:
            live.alone = live.alone or how is not None
            self._wait_again(live)

    def _wait_again(self, live: Live) -> None:
        queued = Queued(0)
        try:
            self._store.give_back(live.id, Entry(live.story.next_seq, queued), alone=live.alone)
        except StorageFailed as error:
            self._complain(live.id, error)
        live.story.add(queued)
        self._wait(live)
        how = ", to run alone" if live.alone else ""
        log.info("waits again%s", how, extra={"job": live.id})

    def _take_running(self) -> list[Live]:
        lost = list(self._running.values())
        self._running.clear()
        self.at_rest.set()
        return lost

    def _take_running_one(self, job_id: str) -> Live | None:
        live = self._running.pop(job_id, None)
        if not self._running:
            self.at_rest.set()
        return live

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _send(self, command: Run | Skip | Cancel) -> None:
        if self._worker is not None:
            self._worker.send(command)

    def _sweep(self) -> None:
        self._swept_at = time.monotonic()
        try:
            sweep_trash(self._store, self._outputs, self._settings.trash_days)
            sweep_calls(self._store, self._settings.call_days)
        except (StorageFailed, OSError) as error:
            log.warning("sweep: %s", error)

    def _complain(self, job_id: str, error: StorageFailed) -> None:
        log.error("%s", error, extra={"job": job_id})
        self.trouble = str(error)
