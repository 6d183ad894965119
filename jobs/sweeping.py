"""What goes for good: deleted pictures that nobody has wanted back for a while, and calls that nobody asks for any more."""

import time

from jobs.files import OutputFolder
from jobs.store import Store

DAY_S = 86_400.0
COUNT = 200
"""How many pictures go in one transaction."""
REFUSED_DAYS = 1.0
"""How long a call is known that never became a job."""


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
