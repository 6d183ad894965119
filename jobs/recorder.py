"""Writes what a worker made: the files, then the row and the event, so that a death in between loses and doubles nothing."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace

from engine import ImageReady
from jobs.claims import settle_claim
from jobs.errors import StorageFailed
from jobs.files import TENSORS, OutputFolder
from jobs.live import Live
from jobs.store import NewImage, Store
from jobs.story import Entry


class Recorder:
    """Puts pictures on the disk and into the database."""

    def __init__(self, store: Store, outputs: OutputFolder) -> None:
        self._store = store
        self._outputs = outputs

    def save(self, live: Live, event: ImageReady) -> Entry:
        """Write a picture with what came along, and record it.

        Raises:
            OSError: a file cannot be written.
            StorageFailed: it cannot be recorded; its files are withdrawn.
        """
        saved: list[str] = []
        try:
            saved.append(self._outputs.save(live.id, event.content_type, event.data))
            for data in event.extras.values():
                saved.append(self._outputs.save(live.id, TENSORS, data))
            entry = self._record(live, event, saved)
        except (OSError, StorageFailed):
            self._settle_claims(live, saved, is_recorded=False)
            raise
        self._settle_claims(live, saved, is_recorded=True)
        return entry

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
