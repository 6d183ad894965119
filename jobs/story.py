"""The events of one job, for any number of readers, however late or slow.

What must not be missed is kept in order: queued, started, images, the end. Of everything else only the latest is kept:
the position while the job waits, the progress of each image while it runs. So a slow reader skips steps instead of
piling them up. Safe to use from several threads. Knows nothing of files or the database.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine import Event, Progress, Queued, is_terminal

LIFE = 1_000_000
"""Events of the server's n-th life are numbered from n times this, above all that an earlier life gave out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event and its place in the story."""

    seq: int
    event: Event
    path: Path | None = None
    """Where the bytes of an `ImageReady` are; the event in the story has none."""


class Story:
    """What happened to one job so far. Written by one thread, read by many."""

    def __init__(self, entries: Iterable[Entry] = (), *, life: int = 0) -> None:
        self._lock = threading.Lock()
        self._kept = list(entries)
        self._latest: dict[int | None, Entry] = {}
        self._listeners: dict[int, Callable[[], None]] = {}
        self._closed = False
        self._next = life * LIFE + 1
        self.previews: dict[int, bytes] = {}
        """The latest preview of each image."""
        self.progress: Progress | None = None
        """The latest progress of any image."""

    @property
    def next_seq(self) -> int:
        """The number that the next event will have."""
        return self._next

    @property
    def has_listeners(self) -> bool:
        """Whether anybody waits for events."""
        return bool(self._listeners)

    def add(self, event: Event, path: Path | None = None) -> None:
        """Keep an event; one that queues or ends the job makes its progress stale."""
        with self._lock:
            if isinstance(event, Queued) or is_terminal(event):
                self._latest.clear()
                self.previews.clear()
                self.progress = None
            else:
                self._latest.pop(None, None)
            self._kept.append(Entry(self._next, event, path))
            self._next += 1
        self._wake()

    def show(self, event: Queued | Progress) -> None:
        """Put an event in the place of the one before it."""
        with self._lock:
            image = event.image if isinstance(event, Progress) else None
            before = self._latest.get(image) or (self._kept[-1] if self._kept else None)
            if before is not None and before.event == event:
                return
            self._latest[image] = Entry(self._next, event)
            self._next += 1
            if isinstance(event, Progress):
                self.progress = event
                if event.preview is not None:
                    self.previews[event.image] = event.preview
        self._wake()

    def read(self, after: int) -> tuple[list[Entry], bool]:
        """Return what comes after the event numbered `after`, in order, and whether nothing will follow."""
        with self._lock:
            found = [entry for entry in (*self._kept, *self._latest.values()) if entry.seq > after]
            over = self._closed or bool(self._kept and is_terminal(self._kept[-1].event))
        return sorted(found, key=lambda entry: entry.seq), over

    def close(self) -> None:
        """Let all readers go: this server tells no more of the story."""
        self._closed = True
        self._wake()

    @contextmanager
    def listening(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake`, from any thread, whenever there is more to read."""
        key = id(wake)
        with self._lock:
            self._listeners[key] = wake
        try:
            yield
        finally:
            with self._lock:
                del self._listeners[key]

    def _wake(self) -> None:
        with self._lock:
            listeners = list(self._listeners.values())
        for wake in listeners:
            wake()
