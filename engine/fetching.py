"""Weights on their way from the network while pictures of other jobs are painted, or because a person wants them now.

Each file is fetched once, in a thread, whoever asks for it; another process that fetches the same one is waited for.
Knows nothing of jobs. No torch.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.catalog import Checkpoint, Weights
from engine.errors import EngineError, ModelNotFound
from engine.events import Progress
from engine.models.asked import fetch_asked
from engine.models.fetch import fetch_file
from engine.models.files import fetch_network, fetch_pipeline
from engine.net import Fetcher

log = logging.getLogger(__name__)

MEGABYTE = 1_000_000


class _Cancelled(Exception):
    """Nobody wants the file any more."""


class Fetch:
    """One file, or one pipeline of the hub, on its way."""

    def __init__(
        self,
        item: Checkpoint | Weights,
        guard: Fetcher,
        arrived: Callable[[], None],
        *,
        check: Callable[[Checkpoint | Weights], None] = lambda item: None,
        allow_pickle: bool = False,
    ) -> None:
        self.item = item
        """What is fetched."""
        self.done = 0
        """Bytes that are there."""
        self.total: int | None = None
        """Bytes in all; None while nobody knows."""
        self.error: EngineError | None = None
        """Why it ended without the file."""
        self._guard = guard
        self._arrived = arrived
        self._check = check
        self._allow_pickle = allow_pickle
        self._is_cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fetch {item.name}", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the file is there, or will not come."""
        return not self._thread.is_alive()

    def progress(self) -> Progress:
        """Say how far it is."""
        return Progress(
            stage="fetching",
            file=self.item.name,
            step=self.done // MEGABYTE,
            steps=(self.total or 0) // MEGABYTE,
        )

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is over, at most so many seconds."""
        self._thread.join(timeout)

    def cancel(self) -> None:
        """End it; what has arrived is kept. A server that is silent holds the thread until it speaks or is given up."""
        self._is_cancelled.set()

    def _run(self) -> None:
        try:
            self._fetch()
            self._check(self.item)
            self._arrived()
        except _Cancelled:
            log.info("no longer fetching %s", self.item.name)
        except EngineError as error:
            self.error = error
        except OSError as error:
            problem = f"{self.item.name}: expected to be fetched, got: {error}"
            self.error = ModelNotFound(problem)

    def _fetch(self) -> None:
        item = self.item
        if isinstance(item, Checkpoint) and item.hub_id is not None:
            fetch_pipeline(item.hub_id, item.path, tell=self._tell)
        elif item.source is not None and item.source.is_asked:
            fetch_asked(
                item.source,
                item.path,
                tell=self._tell,
                fetcher=self._guard,
                allow_pickle=self._allow_pickle,
            )
        elif item.source is not None and item.source.hub_id is not None:
            fetch_network(item.source.hub_id, item.path, tell=self._tell)
        elif item.source is not None:
            fetch_file(
                item.source.url,
                item.path,
                sha256=item.source.sha256,
                tell=self._tell,
            )

    def _tell(self, done: int, total: int | None) -> None:
        if self._is_cancelled.is_set():
            raise _Cancelled
        self.done, self.total = done, total or self.total


class Fetches:
    """All files on their way, by where they go; safe to use from several threads."""

    def __init__(
        self,
        guard: Fetcher,
        arrived: Callable[[], None] = lambda: None,
        *,
        check: Callable[[Checkpoint | Weights], None] = lambda item: None,
        allow_pickle: bool = False,
    ) -> None:
        """Start with none.

        Args:
            guard: Fetches what a request named by its address or on the hub.
            arrived: Called in a file's thread when it is there, before its fetch is over; an `EngineError` that it raises
                counts as that of the fetch.
            check: Looks at what came before that; one that raises an `EngineError` has removed it.
            allow_pickle: Whether what a request named may be pickled.
        """
        self._guard = guard
        self._arrived = arrived
        self._check = check
        self._allow_pickle = allow_pickle
        self._lock = threading.Lock()
        self._fetches: dict[Path, Fetch] = {}

    def start(self, items: Iterable[Checkpoint | Weights]) -> list[Fetch]:
        """Fetch what is missing; what is on its way already is not fetched twice."""
        return [self._start(item) for item in items if is_missing(item)]

    def cancel(self, item: Checkpoint | Weights) -> None:
        """Fetch a file no longer, and forget why it could not be fetched."""
        with self._lock:
            fetch = self._fetches.pop(item.path, None)
        if fetch is not None:
            fetch.cancel()

    def known(self) -> list[Fetch]:
        """List the files on their way, and those that could not be fetched and that nobody tried again."""
        with self._lock:
            return [it for it in self._fetches.values() if not it.is_over or it.error is not None]

    def _start(self, item: Checkpoint | Weights) -> Fetch:
        with self._lock:
            known = self._fetches.get(item.path)
            if known is None or known.is_over:
                log.info("fetching %s", item.name)
                known = self._fetches[item.path] = Fetch(
                    item,
                    self._guard,
                    self._arrived,
                    check=self._check,
                    allow_pickle=self._allow_pickle,
                )
            return known


def is_missing(item: Checkpoint | Weights) -> bool:
    """Whether an entry of the catalog must be fetched before it can be used."""
    is_elsewhere = item.source is not None or getattr(item, "hub_id", None) is not None
    return is_elsewhere and not item.path.exists()
