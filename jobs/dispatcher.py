"""What happens to jobs, one decision after the other: who runs, what is recorded, what follows when a worker dies.

Everything here but the look-ups runs on one thread, which is the only one that writes the database. Knows workers by their
names and what they said; `jobs.supervisor` keeps each alive, `jobs.stations` knows what each has to do.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

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
)
from jobs.archive import Archive, read_plan
from jobs.claims import settle_old_claims
from jobs.errors import IdTaken, QueueFull, ShuttingDown, StartTimeout, StorageFailed
from jobs.files import InputFolder, OutputFolder
from jobs.live import Live, begin, revive
from jobs.protocol import Cancel, GivenBack, JobEvent, Message, Ready, Run, Skip, Worker
from jobs.recorder import Recorder
from jobs.stations import Stations
from jobs.store import NewJob, Store
from jobs.story import Entry, Story
from jobs.sweeping import Sweeper
from jobs.views import JobSettings, Standing
from jobs.waiting import Waiting

log = logging.getLogger(__name__)

STRANGE = "another version submitted this job; submit it again"


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
        workers: Sequence[str],
    ) -> None:
        """Know the workers by their names; none of them takes jobs before `worker_ready`."""
        self._settings = settings
        self._store = store
        self._archive = archive
        self._inputs = inputs
        self._outputs = outputs
        self._recorder = Recorder(store, outputs)
        self._live: dict[str, Live] = {}
        self._waiting = Waiting()
        self._stations = Stations(workers)
        self._life = 0
        self.is_draining = False
        """Whether the server is about to end."""
        self.is_closed = False
        """Whether nothing more happens to any job in this life of the server."""
        self._sweeper = Sweeper(store, outputs, settings)
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

    def positions(self) -> dict[str, int]:
        """Say how many jobs start before each one that waits."""
        return self._waiting.positions()

    def standing(self, live: Live) -> Standing:
        """Say how far a job is that is not over."""
        if self._stations.of(live.id) is not None:
            return Standing(state="running")
        return Standing(state="waiting", position=self.positions().get(live.id, 0))

    def waiting(self, owner: str | None = None) -> int:
        """Count the jobs that wait, of one owner or of all."""
        return len(self._waiting) if owner is None else self._waiting.count(owner)

    def running(self, worker: str | None = None) -> int:
        """Count the jobs that run, on one worker or on all."""
        return len(self._stations) if worker is None else self._stations[worker].load

    def check_room(self, owner: str) -> None:
        """Refuse early what `submit` would refuse.

        Raises:
            ShuttingDown, QueueFull: no job is taken now.
        """
        if self.is_draining:
            raise ShuttingDown
        facts = self._settings
        for count, most in (
            (self.waiting(owner), facts.max_waiting),
            (self.waiting(), facts.max_waiting_of_all),
        ):
            if count >= most:
                raise QueueFull(most)

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
                self._end(live, Failed(kind="internal", message=STRANGE))
            elif live.cancelled:
                self._end(live, Stopped())
            elif row.state == "running":
                self._wait_again(live)
            else:
                self._wait(live)
        self._sweeper.sweep()

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
        live = self._live[job.id] = begin(job, number, story)
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
            self._send(job_id, Cancel(job_id))
        return True

    def skip(self, job_id: str) -> bool:
        """End the image of a job that is nearest to its end; False when it does not run."""
        return self._send(job_id, Skip(job_id))

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
        self.is_draining = True

    def release(self) -> None:
        """Give back what still runs, now that the workers have left, and let all readers go."""
        self.is_closed = True
        for station in self._stations:
            for live in self._take_all(station.name):
                self._return(live, how=None)
        for live in self._live.values():
            live.story.close()

    # What the supervisors tell

    def worker_ready(self, name: str, worker: Worker, ready: Ready) -> None:
        """Give jobs to a worker from now on."""
        self._stations[name].open(worker, ready)
        self._fill()

    def worker_gone(self, name: str, how: str | None) -> None:
        """Let the jobs of a dead worker run again.

        Args:
            name: Which worker.
            how: How it died: its jobs run alone, and one that ran alone for that reason fails. None when no job can be to
                blame: they run as before.
        """
        for live in self._take_all(name):
            self._return(live, how=None if self.is_draining else how)
        self._fill()

    def heard(self, name: str, message: Message) -> None:
        """Record what a worker says about jobs."""
        station = self._stations[name]
        station.note_sign()
        if isinstance(message, JobEvent):
            live = station.running.get(message.job_id)
            if live is not None:
                self._follow(live, message.event)
        elif isinstance(message, GivenBack):
            for job_id in message.job_ids:
                if job_id in station.running and (live := self._take(job_id)) is not None:
                    self._return(live, how="failed")
            self._fill()

    def tick(self) -> None:
        """Do what time brings; called about once a second."""
        for live in list(self._live.values()):
            if live.ending is not None:
                self._end(live, live.ending)
        self._time_out(time.monotonic())
        self._sweeper.sweep_if_due()
        for station in self._stations:
            if silent_s := station.kill_if_silent(self._settings.stuck_s):
                named = {"job": ",".join(station.running)}
                log.error("%s: silent for %.0f s; killed", station.name, silent_s, extra=named)
        self._fill()

    # The rest

    def _fill(self) -> None:
        """Start jobs while workers have room, then tell the others how far they have come."""
        while not self.is_draining and (found := self._stations.next(self._waiting, self._live)):
            live, station = found
            entry = Entry(live.story.next_seq, Started())
            try:
                self._store.start(live.id, entry)
            except StorageFailed as error:
                self._complain(live.id, error)
                break
            self.trouble = ""
            self._waiting.take(live.id)
            self._stations.give(live, station)
            live.start_until = None
            self.at_rest.clear()
            live.story.add(entry.event)
            live.log.note(entry.event)
            log.info("started on %s", station.name, extra={"job": live.id})
            station.send(Run(live.id, live.plan, self._inputs.paths(live.inputs)))
        self.announce()

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
                self._take(live.id)
                self._end(live, live.doom or event)
                self._fill()
            case Queued() | Started():
                pass  # ours to say, not the worker's

    def _save(self, live: Live, event: ImageReady) -> None:
        if event.index in live.settled or live.doom is not None:
            return
        try:
            entry = self._recorder.save(live, event)
        except (OSError, StorageFailed) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._doom(live, f"the picture could not be saved: {reason}")
            return
        live.settled.add(event.index)
        live.story.add(entry.event, entry.path)
        self._tell(entry.event)

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
        self._send(live.id, Cancel(live.id))

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
        ending = live.ending_without_worker(how)
        if ending is not None:
            self._end(live, ending)
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

    def _take_all(self, worker: str) -> list[Live]:
        lost = self._stations.close(self._stations[worker])
        self._note_rest()
        return lost

    def _take(self, job_id: str) -> Live | None:
        live = self._stations.take(job_id)
        self._note_rest()
        return live

    def _note_rest(self) -> None:
        if not len(self._stations):
            self.at_rest.set()

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _send(self, job_id: str, command: Skip | Cancel) -> bool:
        """Tell the worker that has a job; False when none has it."""
        station = self._stations.of(job_id)
        if station is not None:
            station.send(command)
        return station is not None

    def _complain(self, job_id: str, error: StorageFailed) -> None:
        log.error("%s", error, extra={"job": job_id})
        self.trouble = str(error)
