"""What the page needs to know of the rest of the program."""

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

from engine import Catalog, Fetches, Library, Plan, check_asked
from engine.net import Fetcher
from engine.presets import Preset, read_own_presets
from jobs import Jobs
from ui.image_input import Uploads
from ui.lora_library import LoraLibrary

LOCAL = "local"
"""The visitor where nobody has to log in."""


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
    uploads: Uploads | None = None
    """Keeps the pictures that visitors bring; None where they can bring none."""
    loras: LoraLibrary | None = None
    """Takes in LoRAs and notes on them; None where there is no folder for either."""
    fetcher: Fetcher = field(default_factory=Fetcher)
    """Goes to the addresses that visitors name."""
    owner_of: Callable[[Request], str] = lambda request: LOCAL
    """Names whose jobs and pictures a visitor sees."""
    visitor_of: Callable[[Request], Mapping[str, str] | None] = lambda request: None
    """Tells name and role of a visitor who has logged in; None where nobody has to."""
    place_of: Callable[[Request], Mapping[str, Any]] | None = None
    """Tells a visitor what a Space runs on and who sees his pictures; None anywhere else."""
    seconds_of: Callable[[Plan], int] | None = None
    """Says for how long a plan needs a graphics card that is lent by the second; None where it is not."""
    revision: int = field(default=0, init=False)
    """Counts how often the library changed, so that pages see when to look again."""
    fetches: Fetches = field(init=False, repr=False)
    """Weights that visitors want now."""
    _presets: dict[str, Mapping[str, Preset]] = field(default_factory=dict, init=False, repr=False)
    """Presets of their own, by the visitors who saved them."""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self.fetches = Fetches(self.fetcher, arrived=self.refresh, check=check_asked)

    @property
    def catalog(self) -> Catalog:
        """The weights that are there."""
        return self.library.catalog

    def refresh(self) -> None:
        """Read the library anew, where it may have changed.

        Raises:
            EngineError: what is on the disk cannot be read; the library stays as it is.
        """
        with self._lock:
            if self.read_library is not None:
                self.library = self.read_library()
                self._presets.clear()
                self.revision += 1

    def touch(self) -> None:
        """Let all open pages look at the lists again."""
        with self._lock:
            self.revision += 1

    def look_for_arrivals(self) -> None:
        """Read the library anew, in a thread, where a file that was fetched has come."""
        if self.catalog.has_arrivals:
            threading.Thread(target=self.refresh, name="library", daemon=True).start()

    def presets_of(self, owner: str) -> Path | None:
        """Say where the presets of a visitor go; those of ``local`` are in everybody's list."""
        if self.presets_dir is None or owner == LOCAL:
            return self.presets_dir
        return self.presets_dir / "people" / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def library_of(self, owner: str) -> Library:
        """What a visitor may name: the library, with presets of his own."""
        folder = self.presets_of(owner)
        if folder is None or owner == LOCAL:
            return self.library
        with self._lock:
            if owner not in self._presets:
                self._presets[owner] = read_own_presets(folder)
            presets = {**self.library.presets, **self._presets[owner]}
            return dataclasses.replace(self.library, presets=presets)

    def put_preset(self, owner: str, name: str, preset: Preset | None) -> None:
        """Add a preset to a visitor's library, or take it out; the file is somebody else's work."""
        with self._lock:
            if owner == LOCAL:
                self.library = dataclasses.replace(
                    self.library, presets=_changed(self.library.presets, name, preset)
                )
            self._presets.pop(owner, None)
            self.revision += 1


def _changed(
    presets: Mapping[str, Preset], name: str, preset: Preset | None
) -> Mapping[str, Preset]:
    rest = {key: it for key, it in presets.items() if key != name}
    return rest if preset is None else {**rest, name: preset}
