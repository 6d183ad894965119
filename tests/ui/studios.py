"""What the tests of the page are made of: a queue whose engine does what each prompt says, and a library to choose from."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from engine import Catalog, Checkpoint, Library, Size
from engine.catalog import Weights
from engine.library import ROOT
from engine.partners import COMMON, partner_offers
from engine.presets import Preset, read_presets
from jobs import Jobs, JobSettings, ThreadWorker
from tests.libraries import shipped_styles
from tests.ui.painting_engine import PaintingEngine

SUMMARY = "It paints simple shapes in plain colours, some places and drawing styles."
EXAMPLES = ("a red star on a blue background", "a yellow circle left of a green square")
PARTNERS = {
    "ImagePrompt": "toy_look",
    "PyraCanny": "toy_edges",
    "CPDS": "toy_layout",
    "image encoder": "toy_sight",
    "image negative": "toy_nothing",
    "upscaler": "toy_upscaler",
    "inpaint head": "toy_head",
    "inpaint v2.6": "toy_patch",
}
"""What the toy pocket model has beside itself; it knows no faces."""
POCKET = Checkpoint(
    name="pocket",
    path=Path("pocket"),
    native_size=256,
    buckets=(Size(256, 256), Size(288, 224), Size(224, 288)),
    sizes=(Size(1024, 1024), Size(1152, 896), Size(896, 1152)),
    summary=SUMMARY,
    examples=EXAMPLES,
    partners=tuple(PARTNERS.items()),
)
OWN = Checkpoint(name="own.safetensors", path=Path("own.safetensors"))
LORAS = tuple(
    Weights(name=name, path=Path(name), kind="lora")
    for name in ("ink.safetensors", "people/portrait.safetensors", "watercolor.safetensors")
)
VAE = Weights(name="soft.safetensors", path=Path("soft.safetensors"), kind="vae")
MAX_WAITING = 4
OWNER_HEADER = "x-owner"
"""Names the visitor in tests of ownership."""


T = TypeVar("T")


def in_event_loop(build: Callable[[], T]) -> T:
    """Call `build` inside an event loop; outside of one, Gradio makes its own for each page and leaves it open."""

    async def inside() -> T:
        return build()

    return asyncio.run(inside())


def open_jobs(
    folder: Path,
    *,
    step_s: float = 0.0,
    gate: threading.Semaphore | None = None,
    engine: Callable[[], Any] | None = None,
) -> Jobs:
    """Start a queue on a folder; `engine` makes another one than the painting engine."""
    usual = partial(PaintingEngine, slots=1, step_s=step_s, gate=gate)
    settings = JobSettings(
        data_dir=folder / "data",
        output_dir=folder / "outputs",
        max_waiting=MAX_WAITING,
        drain_s=1.0,
    )
    jobs = Jobs(settings, lambda: ThreadWorker(engine or usual))
    jobs.start()
    return jobs


def full_library() -> Library:
    """Two base models, some LoRAs, a VAE, what pictures take, the presets and styles that ship."""
    there = [*LORAS, VAE, *partner_files()]
    return Library(
        catalog=Catalog([POCKET, OWN], there, offers_of(read_presets(ROOT / "presets"))),
        presets=read_presets(ROOT / "presets"),
        styles=shipped_styles(),
    )


def partner_files() -> list[Weights]:
    """The files of `PARTNERS`."""
    return [
        Weights(name=name, path=Path(name), kind=COMMON[role].kind)
        for role, name in PARTNERS.items()
    ]


def offers_of(presets: Mapping[str, Preset]) -> list[Checkpoint | Weights]:
    """What presets need and pictures take, and can be fetched."""
    needed = (it for preset in presets.values() for it in preset.weights)
    return [
        Checkpoint(name=it.file, path=Path(it.file), source=it.source)
        if it.kind == "checkpoint"
        else Weights(name=it.file, path=Path(it.file), kind=it.kind, source=it.source)
        for it in (*needed, *partner_offers())
    ]
