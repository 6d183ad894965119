"""What a face sees of jobs, pictures and the worker: frozen values, safe to keep."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from engine import Failed, Plan, Progress, Size

JobState = Literal["waiting", "running", "finished", "failed", "stopped"]
UNFINISHED: tuple[JobState, ...] = ("waiting", "running")
WorkerState = Literal["starting", "loading", "ready", "restarting", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Where the queue keeps things, and how much it takes."""

    data_dir: Path
    """Holds the database, the inputs and a lock."""
    output_dir: Path
    """Holds the pictures, a folder a day."""
    database_url: str | None = None
    """Any SQLAlchemy URL; None is a SQLite file in `data_dir`."""
    max_waiting: int = 100
    """How many jobs of one owner may wait; those that run do not count."""
    max_waiting_of_all: int = 5000
    """The same of all owners together: strangers on a Space can be as many as they like."""
    min_free_bytes: int = 256 * 2**20
    """Free bytes on a disk below which the server says that it is not ready."""
    drain_s: float = 30.0
    """How long `Jobs.close` may take, most of it for jobs that run to end."""
    trash_days: float = 7.0
    """How long a deleted picture can be restored."""
    call_days: float = 30.0
    """How long a program can ask what became of its call; of one that was refused, a day."""
    stuck_s: float = 1800.0
    """A worker that holds jobs and says nothing for so long is killed as if it had died; a slow model load counts too."""
    backoff_s: float = 0.5
    """Pause before a worker that died at once is started for the third time; it doubles from death to death."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageView:
    """One picture that is on disk."""

    id: str
    """Unguessable; the cursor of `Jobs.history` too."""
    job_id: str
    index: int
    """Its place in the job's plan."""
    path: Path
    seed: int
    size: Size
    content_type: str
    created_at: datetime
    """In UTC."""
    prompt: str
    plan: Plan | None = field(repr=False)
    """The plan of this picture alone, as it was painted; None when a version wrote it whose plans this one cannot read."""
    extras: Mapping[str, Path] = field(default_factory=dict)
    """Further files that came with it, by what they are; see `engine.ImageReady`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job as it was when it was looked at."""

    id: str
    owner: str
    state: JobState
    position: int | None
    """How many jobs start before it; None unless it waits."""
    plan: Plan | None = field(repr=False)
    """None when a version wrote it whose plans this one cannot read."""
    prompt: str
    images: tuple[ImageView, ...]
    """The pictures that are ready, by index; deleted ones are left out."""
    progress: Progress | None = field(repr=False)
    """The latest; None unless it runs."""
    error: Failed | None
    """Why it failed; None unless it did."""
    timings: Mapping[str, float]
    """Seconds by stage; empty unless it finished."""
    has_nsfw_concepts: tuple[bool, ...]
    """One flag a picture of `images`: whether the safety checker took it for unsafe; empty unless the job finished."""
    text: str = ""
    """What a picture was put into, where the job was to describe one."""
    attempt: int
    """How many times it was started."""
    created_at: datetime
    """In UTC, as are the others."""
    started_at: datetime | None
    """When it was last started."""
    ended_at: datetime | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in UNFINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a job is: the part of a `JobView` that is cheap to look at."""

    state: JobState
    position: int | None = None
    """How many jobs start before it; None unless it waits."""
    error: Failed | None = None
    """Why it failed; None unless it did."""
    seconds: float = 0.0
    """How long it ran; 0 until it is over."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in UNFINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """What a worker is up to, or all of them as a whole."""

    state: WorkerState
    name: str = ""
    jobs: int = 0
    """How many it paints."""
    message: str = ""
    """A sentence for the page, where there is something to say."""
    base_model: str | None = None
    device: str = ""
    has_painted: bool = False
    """Whether this worker has made a picture; the first one, a tiny one, is made before it takes jobs."""
