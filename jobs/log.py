"""What a person would want to read of a job afterwards: a line for each step and each stage, in order."""

import json
import time
from dataclasses import asdict, dataclass

from engine import (
    Event,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Progress,
    Queued,
    Started,
    Stopped,
)

MAX_LINES = 2000
"""Lines that are kept of one job; the last step of more is not told."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line."""

    at: float
    """Unix time."""
    message: str
    level: str = "INFO"
    """``INFO`` or ``ERROR``."""


class JobLog:
    """The lines of one job. Written by one thread, read by many; a reader may keep a count of the lines it has."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    def note(self, event: Event) -> None:
        """Add the line of an event, where it has one that was not said just before."""
        message = _message(event)
        if not message or len(self.lines) >= MAX_LINES:
            return
        if not self.lines or self.lines[-1].message != message:
            level = "ERROR" if isinstance(event, Failed) else "INFO"
            self.lines.append(LogLine(time.time(), message, level))

    def as_json(self) -> str:
        """Write all lines."""
        return json.dumps([asdict(line) for line in self.lines])


def lines_from_json(text: str) -> list[LogLine]:
    """Read what `JobLog.as_json` wrote."""
    return [LogLine(**values) for values in json.loads(text)]


def _message(event: Event) -> str:
    match event:
        case Started() | Finished() | Stopped():
            return type(event).__name__.lower()
        case ImageReady(index=index) | ImageSkipped(index=index):
            return f"image {index + 1} is {'ready' if isinstance(event, ImageReady) else 'skipped'}"
        case Failed(message=message):
            return " ".join(message.split())
        case Progress():
            return _progress(event)
        case Queued():
            return ""


def _progress(event: Progress) -> str:
    if event.stage == "fetching":
        return f"fetching {event.file}"
    if event.stage != "sampling":
        return event.stage
    if not event.step:
        return ""
    step = f"step {event.step}/{event.steps}"
    return f"image {event.image + 1}: {step}" if event.image else step
