"""Deleted pictures go for good when nobody has wanted them back for a while."""

import time

from jobs.files import OutputFolder
from jobs.store import Store

DAY_S = 86_400.0
COUNT = 200
"""How many go in one transaction."""


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
        for _, name in found:
            outputs.remove(name)
        store.forget([image_id for image_id, _ in found])
