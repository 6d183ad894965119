"""The queue as the faces see it: submit, watch, stop, look back.

Every call is safe from any thread and blocks at most for a write to disk, but for `wait` and `close`; `events` is for an
event loop. A face watches a job and never owns it: what is submitted is done whether or not anybody looks.
"""

import asyncio
import contextlib
import dataclasses
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from engine import Event, Plan, plan_to_json
from jobs.archive import Archive
from jobs.calls import Call, CallStore
from jobs.crew import Build, Crew, best
from jobs.database import Database
from jobs.dispatcher import Dispatcher
from jobs.errors import JobNotFound, ShuttingDown, StorageFailed
from jobs.files import InputFolder, OutputFolder, lock_folder
from jobs.log import LogLine
from jobs.reading import news_of, read_on
from jobs.storage_check import StorageCheck
from jobs.store import NewJob, Store
from jobs.story import Story
from jobs.views import ImageView, JobSettings, JobView, Standing, WorkerStatus
from jobs.waiting import Priority

log = logging.getLogger(__name__)

T = TypeVar("T")
DRAIN_SHARE = 0.7
"""The part of `JobSettings.drain_s` that running jobs get; the rest is for the worker to leave."""


class Jobs:
    """The durable queue: jobs wait here, run on the workers, and are remembered."""

    def __init__(self, settings: JobSettings, workers: Build | Mapping[str, Build]) -> None:
        """Put it together; nothing is opened or started yet.

        Args:
            settings: Where things are kept.
            workers: What makes the worker, or each of them by its name.
        """
        builds = workers if isinstance(workers, Mapping) else {"worker": workers}
        self._settings = settings
        url = (
            settings.database_url or f"sqlite:///{settings.data_dir.absolute() / 'pochade.sqlite'}"
        )
        self._database = Database(url)
        self._inputs = InputFolder(settings.data_dir / "inputs")
        self._outputs = OutputFolder(settings.output_dir)
        self._store = Store(self._database)
        self._archive = Archive(self._database, self._outputs)
        self._dispatcher = Dispatcher(
            settings,
            store=self._store,
            archive=self._archive,
            inputs=self._inputs,
            outputs=self._outputs,
            workers=list(builds),
        )
        folders = (settings.data_dir, settings.output_dir)
        self._storage_check = StorageCheck(self._store, folders, settings.min_free_bytes)
        self._crew = Crew(
            builds, dispatcher=self._dispatcher, post=self._post, backoff_s=settings.backoff_s
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dispatcher")
        self._lock: IO[str] | None = None
        self.calls = CallStore(self._database, self._ask)
        """What programs asked for."""

    def open(self) -> None:
        """Open the database and take up what an earlier life left; from now on jobs are taken, though none runs.

        Raises:
            DataDirInUse: another server works on the same data folder.
            StorageFailed: the database cannot be opened.
        """
        self._lock = lock_folder(self._settings.data_dir)
        self._database.upgrade()
        self._inputs.sweep(self._store.used_inputs())
        self._ask(self._dispatcher.recover)

    def start(self) -> None:
        """Start the workers, after `open` where nobody called that; returns before any is ready.

        Raises:
            DataDirInUse, StorageFailed: as `open`.
        """
        if self._lock is None:
            self.open()
        self._crew.start()

    def close(self) -> None:
        """Take no more jobs, let those that run end within `drain_s`, give back the others, let the workers leave."""
        with contextlib.suppress(ShuttingDown):
            self._ask(self._dispatcher.drain)
            self._dispatcher.at_rest.wait(self._settings.drain_s * DRAIN_SHARE)
            self._crew.stop()
            self._ask(self._dispatcher.release)
        self._thread.shutdown()
        self._database.close()
        if self._lock is not None:
            self._lock.close()

    def submit(
        self,
        plan: Plan,
        *,
        owner: str = "local",
        inputs: Mapping[str, bytes] | None = None,
        priority: Priority = "normal",
        start_within_s: float | None = None,
        call: Call | None = None,
    ) -> str:
        """Take a job in; it is on disk when its id is returned.

        Args:
            plan: What to paint.
            owner: Whose it is; nobody else sees it.
            inputs: Files that the plan refers to, by the name it uses.
            priority: ``low`` waits behind everybody's ``normal`` ones.
            start_within_s: Seconds after which it fails if it still waits.
            call: The program's call that it is, recorded with it; its id becomes the job's, and the same id again is the
                same job.

        Raises:
            IdTaken: another owner has a call of that id.
            QueueFull: as many jobs of the owner wait as may wait.
            ShuttingDown: the server is about to end.
            StorageFailed: it cannot be written.
        """
        self.check_room(owner)
        try:
            hashes = self._inputs.save(inputs or {})
        except OSError as error:
            raise StorageFailed(f"inputs: {error.strerror}") from error
        job = NewJob(
            id=str(uuid.uuid4()) if call is None else call.id,
            owner=owner,
            plan=plan_to_json(plan),
            inputs=hashes,
            prompt=plan.prompt,
            priority=priority,
            start_by=None if start_within_s is None else time.time() + start_within_s,
            call=call,
        )
        return self._ask(lambda: self._dispatcher.submit(job))

    def check_room(self, owner: str) -> None:
        """Refuse what `submit` would refuse however it is asked.

        Raises:
            QueueFull: as many jobs of the owner wait as may wait.
            ShuttingDown: the server is about to end.
        """
        self._dispatcher.check_room(owner)

    def cancel(self, job_id: str, *, owner: str) -> bool:
        """Stop a job, whatever it does; False when it is over already.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        self._archive.check(job_id, owner)
        return self._ask(lambda: self._dispatcher.cancel(job_id))

    def skip(self, job_id: str, *, owner: str) -> bool:
        """End the image of a job that is nearest to its end and go on with the others; False when it does not run.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        self._archive.check(job_id, owner)
        return self._ask(lambda: self._dispatcher.skip(job_id))

    def job(self, job_id: str, *, owner: str) -> JobView:
        """Look at a job.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        return self._with_progress([self._archive.job(job_id, owner)])[0]

    def input(self, job_id: str, name: str, *, owner: str) -> Path | None:
        """Say where a file is that was sent along with a job; None where it has none of that name.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        digest = self._archive.input(job_id, name, owner)
        return None if digest is None else self._inputs.paths({name: digest})[name]

    def standing(self, job_id: str, *, owner: str) -> Standing:
        """Look how far a job is: from memory while it is not over, else with one look at the database.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        live = self._dispatcher.find(job_id)
        if live is None:
            return self._archive.standing(job_id, owner)
        if live.owner != owner:
            raise JobNotFound(job_id)
        return self._dispatcher.standing(live)

    def log(self, job_id: str, *, owner: str) -> Sequence[LogLine]:
        """Read the log of a call's job.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        live = self._dispatcher.find(job_id)
        if live is None:
            self._archive.check(job_id, owner)
            return self.calls.log(job_id)
        if live.owner != owner:
            raise JobNotFound(job_id)
        return live.log.lines

    def waiting(self, owner: str | None = None) -> int:
        """Count the jobs that wait, of one owner or of all."""
        return self._dispatcher.waiting(owner)

    def running(self) -> int:
        """Count the jobs that run."""
        return self._dispatcher.running()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Tell of every job that is taken, every picture (without its bytes) and every end, of any owner.

        `listener` is called in between two decisions of the queue, so it has to be quick and must not fail.
        """
        self._dispatcher.listeners.append(listener)

    @contextmanager
    def watching(self, job_id: str) -> Iterator[asyncio.Event]:
        """Set an event of the running loop whenever something happens to a job; it is set from the start.

        A job that is over, or is not there, sets it no more: look first, then wait.
        """
        live = self._dispatcher.find(job_id)
        story = Story() if live is None else live.story
        with news_of(story) as news:
            news.set()
            if live is not None:
                self._post(self._dispatcher.announce)
            yield news

    def active(self, *, owner: str | None) -> list[JobView]:
        """Look at the jobs that are not over, by submission; None looks at everybody's."""
        return self._with_progress(self._archive.active(owner))

    async def events(
        self, job_id: str, *, owner: str, after: int = 0
    ) -> AsyncIterator[tuple[int, Event]]:
        """Tell a job's story from the start, then as it happens, up to its end.

        A late reader gets all but old positions and progress. Ends without a terminal event only when the server shuts
        down; `after` takes the story up again, here or after a restart.

        Args:
            job_id: Which job.
            owner: Whose it is.
            after: The number of the last event that is known already.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        story = await asyncio.to_thread(self._story, job_id, owner)
        reading = read_on(story, after, lambda: self._post(self._dispatcher.announce))
        async with contextlib.aclosing(reading):
            async for item in reading:
                yield item

    def wait(self, job_id: str, timeout: float, *, owner: str = "local") -> JobView:
        """Block until a job is over or `timeout` seconds have passed; look at the answer's `is_over`.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        until = time.monotonic() + timeout
        story = self._story(job_id, owner)
        news = threading.Event()
        with story.listening(news.set):
            while not story.read(0)[1] and (left := until - time.monotonic()) > 0:
                news.wait(left)
                news.clear()
        return self.job(job_id, owner=owner)

    def preview(self, job_id: str, image: int, *, owner: str) -> bytes | None:
        """Return the latest preview of an image that is being painted, a JPEG; None when there is none.

        Raises:
            JobNotFound: the owner has none of that id.
        """
        live = self._dispatcher.find(job_id)
        if live is None:
            self._archive.check(job_id, owner)
            return None
        if live.owner != owner:
            raise JobNotFound(job_id)
        return live.story.previews.get(image)

    def history(
        self, *, owner: str, search: str = "", before: str | None = None, limit: int = 50
    ) -> list[ImageView]:
        """Look at pictures, newest first.

        Args:
            owner: Whose.
            search: Words that the prompt has to contain, in any order and case.
            before: Id of the last picture of the page before; None starts with the newest.
            limit: How many at most.
        """
        return self._archive.history(owner, search, before, limit)

    def image(self, image_id: str, *, owner: str) -> ImageView:
        """Look at one picture.

        Raises:
            ImageNotFound: the owner has none of that id, or deleted it.
        """
        return self._archive.image(image_id, owner)

    def delete(self, image_ids: Iterable[str], *, owner: str) -> int:
        """Hide pictures; after `trash_days` their files go too. Returns how many were hidden."""
        wanted = list(image_ids)
        return self._ask(lambda: self._store.hide(wanted, owner))

    def restore(self, image_ids: Iterable[str], *, owner: str) -> int:
        """Undo `delete`; returns how many came back."""
        wanted = list(image_ids)
        return self._ask(lambda: self._store.unhide(wanted, owner))

    @property
    def is_closed(self) -> bool:
        """Whether nothing more happens to any job in this life of the server."""
        return self._dispatcher.is_closed

    def status(self) -> WorkerStatus:
        """Say what the workers are up to as a whole: what the one does that is best off."""
        status, trouble = best(self._crew.statuses()), self._dispatcher.trouble
        if self._dispatcher.is_draining:
            return dataclasses.replace(status, state="stopped", message=str(ShuttingDown()))
        return dataclasses.replace(status, message=trouble) if trouble else status

    def workers(self) -> list[WorkerStatus]:
        """Say what each worker is up to."""
        return self._crew.statuses()

    def check_storage(self) -> None:
        """Make sure that there is room on the disks and the database can be written.

        Raises:
            ShuttingDown: the server is about to end.
            StorageFailed: there is not, or it cannot.
        """
        problem = self._ask(self._storage_check.look)
        if problem is not None:
            raise problem

    def _story(self, job_id: str, owner: str) -> Story:
        self._archive.check(job_id, owner)
        live = self._dispatcher.find(job_id)
        if live is not None:
            return live.story
        story = Story(self._archive.story(job_id))
        story.close()
        return story

    def _with_progress(self, views: Sequence[JobView]) -> list[JobView]:
        """Add what is known in memory alone."""
        positions = self._dispatcher.positions()
        found = []
        for view in views:
            if view.state == "waiting":
                view = dataclasses.replace(view, position=positions.get(view.id, 0))
            elif (live := self._dispatcher.find(view.id)) is not None:
                view = dataclasses.replace(view, progress=live.story.progress)
            found.append(view)
        return found

    def _ask(self, action: Callable[[], T]) -> T:
        """Run something on the dispatcher's thread and wait for what it returns or raises."""
        try:
            future = self._thread.submit(action)
        except RuntimeError as error:
            raise ShuttingDown from error
        return future.result()

    def _post(self, action: Callable[[], None]) -> None:
        """Run something on the dispatcher's thread, later; a defect there ends that action alone and is logged."""
        with contextlib.suppress(RuntimeError):  # after `close` nobody listens
            self._thread.submit(action).add_done_callback(_log_defect)


def _log_defect(future: Future[None]) -> None:
    error = future.exception()
    if error is not None:
        log.critical("dispatcher: a defect", exc_info=error)
