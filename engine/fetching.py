"""Weights on their way from the network while pictures of other jobs are painted.

Each file is fetched once, in a thread, whoever asks for it. Knows nothing of jobs.
"""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from engine.catalog import Checkpoint, Weights
from engine.errors import EngineError, ModelNotFound
from engine.events import Progress
from engine.models.fetch import fetch_file
from engine.models.files import fetch_network, fetch_pipeline
from engine.net import Fetcher

log = logging.getLogger(__name__)

MEGABYTE = 1_000_000


class Fetch:
    """One file, or one pipeline of the hub, on its way."""

    def __init__(self, item: Checkpoint | Weights, guard: Fetcher) -> None:
        self.name = item.name
        self.done = 0
        """Bytes that are there."""
        self.total: int | None = None
        """Bytes in all; None while nobody knows."""
        self.error: EngineError | None = None
        """Why it ended without the file."""
        self._item = item
        self._guard = guard
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
            file=self.name,
            step=self.done // MEGABYTE,
            steps=(self.total or 0) // MEGABYTE,
        )

    def wait(self, timeout: float) -> None:
        """Wait until it is over, at most so many seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        item = self._item
        try:
            if isinstance(item, Checkpoint) and item.hub_id is not None:
                fetch_pipeline(item.hub_id, item.path)
            elif item.source is not None and item.source.hub_id is not None:
                fetch_network(item.source.hub_id, item.path)
            elif item.source is not None:
                fetch_file(
                    item.source.url,
                    item.path,
                    sha256=item.source.sha256,
                    tell=self._tell,
                    fetcher=self._guard if item.source.is_asked else None,
                )
        except ModelNotFound as error:
            self.error = ModelNotFound(f"{error}. The preset Pocket paints without it.")
        except EngineError as error:
            self.error = error
        except OSError as error:
            self.error = ModelNotFound(f"{item.name}: expected to be fetched, got: {error}")

    def _tell(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total


class Fetches:
    """All files on their way, by where they go."""

    def __init__(self, guard: Fetcher) -> None:
        """Start with none.

        Args:
            guard: Fetches what a request named by its address.
        """
        self._guard = guard
        self._fetches: dict[Path, Fetch] = {}

    def start(self, items: Iterable[Checkpoint | Weights]) -> list[Fetch]:
        """Fetch what is missing; what is on its way already is not fetched twice."""
        return [self._start(item) for item in items if is_missing(item)]

    def _start(self, item: Checkpoint | Weights) -> Fetch:
        known = self._fetches.get(item.path)
        if known is None or known.is_over:
            log.info("fetching %s", item.name)
            known = self._fetches[item.path] = Fetch(item, self._guard)
        return known


def is_missing(item: Checkpoint | Weights) -> bool:
    """Whether an entry of the catalog must be fetched before it can be used."""
    is_elsewhere = item.source is not None or getattr(item, "hub_id", None) is not None
    return is_elsewhere and not item.path.exists()
