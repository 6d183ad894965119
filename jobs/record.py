"""Events as text in the database, and back. Pictures and previews are not part of it."""

import json
from dataclasses import asdict, dataclass, fields

from engine import (
    Event,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Queued,
    Started,
    Stopped,
)

KINDS = {kind.__name__: kind for kind in (Queued, Started, ImageSkipped, Finished, Failed, Stopped)}
"""The events that are all values; of `ImageReady` the image's row has the rest."""


@dataclass(frozen=True, slots=True)
class ImageMade:
    """What is recorded of an `ImageReady`: which image of the job it was, and what the safety checker said."""

    index: int
    has_nsfw_concept: bool = False


def event_to_json(event: Event) -> str:
    """Write an event; of `ImageReady` what `ImageMade` has."""
    kind = type(event)
    if isinstance(event, ImageReady):
        made = ImageMade(event.index, event.has_nsfw_concept)
        return json.dumps({"event": kind.__name__, **asdict(made)})
    assert kind.__name__ in KINDS
    values = {item.name: getattr(event, item.name) for item in fields(event)}
    return json.dumps({"event": kind.__name__, **values}, default=dict)


def event_from_json(text: str) -> Event | ImageMade:
    """Read an event back; an `ImageReady` comes back as `ImageMade`."""
    values = json.loads(text)
    kind = values.pop("event")
    if kind == ImageReady.__name__:
        return ImageMade(**values)
    if kind == Finished.__name__:
        values |= {name: tuple(values.get(name, ())) for name in ("has_nsfw_concepts", "notes")}
    event: Event = KINDS[kind](**values)
    return event
