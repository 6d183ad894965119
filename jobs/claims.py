"""Pictures that are written, but may not be recorded: what becomes of them and of their claims.

What cannot be removed now is logged and left for the server's next life.
"""

import logging

from jobs.files import OutputFolder
from jobs.store import Store

log = logging.getLogger(__name__)


def settle_claim(outputs: OutputFolder, job_id: str, name: str, *, is_recorded: bool) -> None:
    """Drop the claim on a picture, and the picture with it unless it is recorded."""
    try:
        if is_recorded:
            outputs.confirm(job_id, name)
        else:
            outputs.withdraw(job_id, name)
    except OSError as error:
        log.warning("%s: %s", name, error.strerror, extra={"job": job_id})


def settle_old_claims(store: Store, outputs: OutputFolder) -> None:
    """Decide about the pictures that an earlier life wrote; those of other servers are not ours to judge.

    Raises:
        StorageFailed: the database cannot be read.
    """
    for job_id, name in list(outputs.claims()):
        if store.is_known(job_id):
            settle_claim(outputs, job_id, name, is_recorded=name in store.paths(job_id))
