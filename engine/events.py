"""What happens to a job, as values: the one story that both faces read.

A job's story is `Queued`, `Started`, any number of `Progress`, `ImageReady` and `ImageSkipped`, and then exactly one of
`Finished`, `Failed` or `Stopped`. Nothing comes after that one. A job that is given back to the queue (its worker died,
or the server stopped) is `Queued` again. Knows nothing of who listens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.geometry import Size

Stage = Literal["fetching", "loading", "enlarging", "sampling"]
"""What the engine is busy with; faces turn it into words."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits; `position` jobs will start before it."""

    position: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One image of the job went one step on."""

    stage: Stage
    image: int = 0
    """Index of the image in the plan."""
    step: int = 0
    """Model steps that this image has behind it; while fetching, megabytes of `file` that are there."""
    steps: int = 0
    """Model steps that this image takes in all; while fetching, megabytes of `file`, 0 while nobody knows."""
    file: str = ""
    """The file that is being fetched."""
    fraction: float = 0.0
    """Share of the whole job that is done, 0 to 1; never falls within one attempt."""
    preview: bytes | None = field(default=None, repr=False)
    """A small JPEG of the image as it looks now, or None when there is nothing new to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReady:
    """One image is finished."""

    index: int
    seed: int
    size: Size
    content_type: str
    """``image/png``, ``image/jpeg`` or ``image/webp``."""
    data: bytes = field(repr=False)
    """The encoded file with its metadata inside, complete."""
    has_nsfw_concept: bool = False
    """Whether the safety checker took it for unsafe; it is black then."""
    plan: str | None = field(default=None, repr=False)
    """The plan of this picture alone as JSON, as it was painted: with an expansion model's words and the hashes of the
    weights; None where nothing was added to the job's plan."""
    extras: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Files of the whole job that come with its last picture, in safetensors: ``latents``, ``passes``."""


@dataclass(frozen=True, slots=True)
class ImageSkipped:
    """A person skipped this image; there will be no file of it."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Every image is ready or skipped."""

    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage: ``load``, ``encode``, ``sample``, ``decode``, ``total``."""
    has_nsfw_concepts: tuple[bool, ...] = ()
    """One flag an image that was made, in order."""
    notes: tuple[str, ...] = ()
    """Sentences on what was asked and could not be done, for the person who asked."""
    text: str = ""
    """What a picture was put into, where that was asked for; such a job has no images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The job cannot be done."""

    kind: str
    """`EngineError.kind`, or ``internal`` for a defect of ours."""
    message: str
    """One plain sentence for the person who asked."""
    field: str | None = None
    """The field of the request that is at fault, where there is one."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A person stopped the job; images that were ready by then are kept."""


Event = Queued | Started | Progress | ImageReady | ImageSkipped | Finished | Failed | Stopped
Terminal = Finished | Failed | Stopped


def is_terminal(event: Event) -> bool:
    """Say whether `event` ends its job."""
    return isinstance(event, Terminal)
