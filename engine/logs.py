"""Lines of the log, of one form in every process: when, how bad, who says it, ``job=ID`` where it belongs to jobs, what.

What is said holds no words of a prompt and no key. Line breaks and other control characters in it are written as escapes,
so that nobody can make up a line.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FORMAT = "%(asctime)s %(levelname)s %(name)s%(of)s: %(message)s"
QUIET = ("alembic", "httpx", "httpx2")
"""Libraries that tell too much."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_job: ContextVar[str | None] = ContextVar("job", default=None)


@contextmanager
def of_job(job_id: str) -> Iterator[None]:
    """Let every line of the block name a job, whoever says it."""
    token = _job.set(job_id)
    try:
        yield
    finally:
        _job.reset(token)


class Lines(logging.Formatter):
    """Writes a line; one that names its jobs itself has them as ``extra={"job": ...}``."""

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the library's name)
        """Write all but a traceback, which follows on lines of its own."""
        job = getattr(record, "job", None) or _job.get()
        record.of = f" job={job}" if job else ""
        return _CONTROL.sub(lambda found: repr(found[0])[1:-1], super().formatMessage(record))


def write_log(level: str) -> None:
    """Write the log of this process to standard error from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    logging.basicConfig(level=level, handlers=[handler])
    for library in QUIET:
        logging.getLogger(library).setLevel(logging.WARNING)
