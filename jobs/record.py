"""Events as text in the database, and back. Pictures and previews are not part of it."""

import json
from dataclasses import dataclass, fields

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
    """What is recorded of an `ImageReady`: which image of the job it was."""

    index: int


def event_to_json(event: Event) -> str:
    """Write an event; of `ImageReady` only which image it was."""
    kind = type(event)
    if isinstance(event, ImageReady):
        return json.dumps({"event": kind.__name__, "index": event.index})
    assert kind.__name__ in KINDS
    values = {item.name: getattr(event, item.name) for item in fields(event)}
    return json.dumps({"event": kind.__name__, **values}, default=dict)


def event_from_json(text: str) -> Event | ImageMade:
    """Read an event back; an `ImageReady` comes back as `ImageMade`."""
    values = json.loads(text)
    kind = values.pop("event")
    if kind == ImageReady.__name__:
        return ImageMade(values["index"])
    if kind == Finished.__name__:
        values["has_nsfw_concepts"] = tuple(values["has_nsfw_concepts"])
    event: Event = KINDS[kind](**values)
    return event
