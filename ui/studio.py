"""What the page needs to know of the rest of the program."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from engine import Catalog
from jobs import Jobs


@dataclass(frozen=True)
class Studio:
    """The parts that the page is built from."""

    jobs: Jobs
    catalog: Catalog
    preset: Mapping[str, Any] = field(default_factory=dict)
    """A partial request: what the form shows at first."""
    owner_of: Callable[[Request], str] = lambda request: "local"
    """Names whose jobs and pictures a visitor sees."""
