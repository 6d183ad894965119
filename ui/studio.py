"""What the page needs to know of the rest of the program."""

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

from engine import Catalog, Fetches, Library, check_asked
from engine.net import Fetcher
from engine.presets import Preset
from jobs import Jobs
from ui.image_input import Uploads
from ui.lora_library import LoraLibrary


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
    owner_of: Callable[[Request], str] = lambda request: "local"
    """Names whose jobs and pictures a visitor sees."""
    revision: int = field(default=0, init=False)
    """Counts how often the library changed, so that pages see when to look again."""
    fetches: Fetches = field(init=False, repr=False)
    """Weights that visitors want now."""
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
                self.revision += 1

    def touch(self) -> None:
        """Let all open pages look at the lists again."""
        with self._lock:
            self.revision += 1

    def look_for_arrivals(self) -> None:
        """Read the library anew, in a thread, where a file that was fetched has come."""
        if self.catalog.has_arrivals:
            threading.Thread(target=self.refresh, name="library", daemon=True).start()

    def put_preset(self, name: str, preset: Preset | None) -> None:
        """Add a preset to the library, or take it out; the file is somebody else's work."""
        with self._lock:
            presets = {key: it for key, it in self.library.presets.items() if key != name}
            more = {} if preset is None else {name: preset}
            self.library = dataclasses.replace(self.library, presets={**presets, **more})
            self.revision += 1
