"""What goes for good: deleted pictures that nobody has wanted back for a while, and calls that nobody asks for any more."""

import logging
import time

from jobs.errors import StorageFailed
from jobs.files import OutputFolder
from jobs.store import Store
from jobs.views import JobSettings

log = logging.getLogger(__name__)

SWEEP_S = 3600.0
"""How often what is old is looked through for what goes for good."""
DAY_S = 86_400.0
COUNT = 200
"""How many pictures go in one transaction."""
REFUSED_DAYS = 1.0
"""How long a call is known that never became a job."""


class Sweeper:
    """Looks now and then; what goes wrong is logged and tried again the next time."""

    def __init__(self, store: Store, outputs: OutputFolder, settings: JobSettings) -> None:
        self._store = store
        self._outputs = outputs
        self._settings = settings
        self._swept_at = time.monotonic()

    def sweep_if_due(self) -> None:
        """Sweep, unless that was done within the hour."""
        if time.monotonic() - self._swept_at > SWEEP_S:
            self.sweep()

    def sweep(self) -> None:
        """Remove what is old."""
        self._swept_at = time.monotonic()
        try:
            sweep_trash(self._store, self._outputs, self._settings.trash_days)
            sweep_calls(self._store, self._settings.call_days)
        except (StorageFailed, OSError) as error:
            log.warning("sweep: %s", error)


def sweep_trash(store: Store, outputs: OutputFolder, days: float) -> None:
    """Remove pictures that were deleted more than `days` ago.

    The file goes before its row, so that a crash in between leaves a row that is swept again, never a file that nobody
    knows.

    Raises:
        StorageFailed: the database cannot be written.
        OSError: a file cannot be removed.
    """
    cutoff = time.time() - days * DAY_S
    while found := store.hidden_before(cutoff, COUNT):
        for _, names in found:
            for name in names:
                outputs.remove(name)
        store.forget([image_id for image_id, _ in found])


def sweep_calls(store: Store, days: float) -> None:
    """Remove calls that were made more than `days` ago; their jobs stay.

    Raises:
        StorageFailed: the database cannot be written.
    """
    now = time.time()
    store.forget_calls(now - days * DAY_S, now - min(days, REFUSED_DAYS) * DAY_S)
