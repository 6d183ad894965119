"""A whole studio, as `app.serve` puts it together, in which everything that can be named has a payload for a name."""

import dataclasses
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from starlette.middleware import Middleware

import app
import ui
from api import Front
from engine import (
    Event,
    Failed,
    Finished,
    ImageReady,
    Library,
    ModelNotFound,
    Progress,
    Shelves,
    TextRequest,
    plan,
    read_library,
)
from engine.library import ROOT
from engine.plan import DescribePicture
from guard import Guard
from jobs import ImageView, Jobs, JobSettings, ThreadWorker
from people import Door
from settings import read_settings
from tests.people.house import House
from tests.ui.hostile_text import (
    ALL,
    IMG,
    NAMES,
    WORD,
    write_models,
    write_presets,
    write_styles,
    write_wildcards,
)
from tests.ui.painting_engine import PaintingEngine
from ui.lora_library import LoraLibrary


class HostileEngine(PaintingEngine):
    """Says everything that an engine can say in payloads."""

    device = IMG

    def preload(self, base_model: str) -> None:
        raise ModelNotFound(f"base_model: no base model named {base_model!r}; {ALL}")

    def step(self) -> Sequence[tuple[str, Event]]:
        wordless = {
            job_id
            for job_id, script in self._jobs.items()
            if isinstance(script.plan.start, DescribePicture)
        }
        return [
            (job_id, _said(event))
            for job_id, event in super().step()
            if not (job_id in wordless and isinstance(event, ImageReady))
        ]


def _said(event: Event) -> Event:
    match event:
        case Failed():
            return dataclasses.replace(event, message=ALL)
        case Finished():
            return dataclasses.replace(event, text=ALL, notes=(ALL,))
        case Progress(stage="fetching"):
            return dataclasses.replace(event, file=WORD)
        case _:
            return event


class HostileStudio:
    """The studio, open for browsers."""

    def __init__(self, folder: Path) -> None:
        self.gate = threading.Semaphore(0)
        write_models(folder / "models")
        (folder / "models" / "pocket").symlink_to(ROOT / "models" / "pocket")
        write_styles(folder / "styles")
        write_wildcards(folder / "wildcards")
        write_presets(folder / "data" / "presets")
        settings = JobSettings(
            data_dir=folder / "data", output_dir=folder / "outputs", drain_s=1.0, max_waiting=20
        )
        engine = partial(HostileEngine, slots=1, gate=self.gate)
        self.jobs = Jobs(settings, lambda: ThreadWorker(engine, base_model=NAMES[0]))
        self.jobs.start()
        self.house = House(folder / "data", self.jobs)
        self.studio = self.house.studio
        self.studio.loras = LoraLibrary(folder / "models", folder / "data")
        shelves = Shelves(
            models_dir=folder / "models",
            presets_dirs=(folder / "data" / "presets",),
            styles_dirs=(folder / "styles",),
            wildcards_dirs=(folder / "wildcards",),
        )

        def read() -> Library:
            return read_library(shelves, may_fetch=lambda url: True)

        self.studio.read_library = read
        self.studio.refresh()
        flags = {
            "data-dir": folder / "data",
            "output-dir": folder / "outputs",
            "models-dir": folder / "models",
        }
        self.programs = app.Programs(
            read_settings([f"--{name}={value}" for name, value in flags.items()], {}),
            self.jobs,
            lambda: self.studio.library,
        )
        self.programs.start()
        self.demo = ui.build(self.studio)
        _, self.address, _ = self.demo.launch(
            **ui.launch_options(),
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            app_kwargs={
                "routes": ui.routes(self.studio),
                "middleware": [
                    Middleware(Guard),
                    Middleware(Front, api=self.programs.face),
                    Middleware(Door, entrance=self.house.entrance, pages=self.house.pages),
                ],
            },
        )

    def paint(self, owner: str) -> ImageView:
        """Make a picture of somebody's without the page."""
        wanted = plan(TextRequest(prompt="steps=1", num_images=1), self.studio.library, seed=3)
        job = self.jobs.submit(wanted, owner=owner)
        self.gate.release()
        return self.jobs.wait(job, timeout=30, owner=owner).images[0]

    def close(self) -> None:
        self.gate.release(1000)
        self.demo.close()
        self.jobs.close()
        self.programs.stop()
