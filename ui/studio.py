"""What the page needs to know of the rest of the program."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

from engine import Catalog, Library
from jobs import Jobs


@dataclass
class Studio:
    """The parts that the page is built from."""

    jobs: Jobs
    library: Library
    preset: Mapping[str, Any] = field(default_factory=dict)
    """A partial request: what the form shows at first."""
    read_library: Callable[[], Library] | None = None
    """Reads the library anew from the disk; None where it never changes."""
    presets_dir: Path | None = None
    """Where presets go that are saved on the page; None where none can be."""
    owner_of: Callable[[Request], str] = lambda request: "local"
    """Names whose jobs and pictures a visitor sees."""

    @property
    def catalog(self) -> Catalog:
        """The weights that are there."""
        return self.library.catalog
