"""What the fal face is built from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.files import FileStore
from api.keys import Keys
from api.limits import Limits
from api.metrics import Metrics
from api.signing import SigningKey
from engine import Library
from engine.net import Fetcher
from jobs import Jobs

KEEP_ALIVE_S = 65
"""How long the server keeps a connection on which nothing is asked: well above the 5 s of Python's clients, so that they
end it, and no request meets a line that is just being closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The parts of a studio that programs reach."""

    jobs: Jobs
    library: Callable[[], Library]
    """What may be named now."""
    start: Mapping[str, Any]
    """``base_model`` and ``vae`` that pictures are painted with unless a request names others; else fal's defaults hold."""
    files: FileStore
    keys: Keys
    fetcher: Fetcher
    limits: Limits = field(default_factory=Limits)
    signing_key: SigningKey | None = None
    """Signs webhooks; receivers look its public half up. None where nobody is told anything."""
    public_url: str | None = None
    """Address of the studio as clients reach it; None takes that of each request."""
    is_open: Callable[[], bool] = lambda: True
    """Says whether those without a key are let in now, as owner ``local``; asked for each request.

    It raises `StorageFailed` where people or keys cannot be read.
    """
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of base models."""
    metrics: Metrics = field(default_factory=Metrics)
    """Counts what happens."""
    require_safety: bool = False
    """Whether pictures that nobody checked are refused."""
