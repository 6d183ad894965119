"""Ask the studio's own engine for pictures in every performance mode and with the example adapter.

Writes the second table of `README.md` and its two sheets: `python -m pocket.measure_modes`. Everything
goes through the front door, from requests to decoded files, so what is measured is what people get.
"""

import argparse
import datetime
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine import Failed, ImageReady, Library, Plan, Shelves, TextRequest, plan, read_library
from engine.engine import Engine, create
from pocket.captions import short_caption
from pocket.dots import dottedness
from pocket.measure import Result, Settings, prompts, publish
from pocket.score import read
from pocket.train_style import FILE as DOTS
from pocket.world import Scene, unseen_scenes

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
MARK = "modes"
FIELDS = ("background", "colour", "place", "shape")
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)

_PLAIN = {"performance": "Speed", "guidance_scale": 1.0}
"""The same steps at guidance 1 without adapters, to see what these are good for."""

MODES: Mapping[str, Mapping[str, Any]] = {
    "Speed": {"performance": "Speed"},
    "Extreme Speed": {"performance": "Extreme Speed"},
    "8 steps, no adapter": _PLAIN
    | {"advanced": {"num_inference_steps": 8, "sampler": "lcm", "scheduler": "lcm"}},
    "Lightning": {"performance": "Lightning"},
    "4 steps, no adapter": _PLAIN
    | {"advanced": {"num_inference_steps": 4, "sampler": "euler", "scheduler": "sgm_uniform"}},
    "Hyper-SD": {"performance": "Hyper-SD"},
}
"""Lines of the table: fields of a request."""

SHEET_PROMPTS = (
    "a large red star on a blue background",
    "a large striped green cross at the top on a white background",
    "a large shaded orange circle on a purple background",
    "a medium yellow heart on the left on a black background, outlined",
    "a large white triangle at the bottom on a red gradient background",
    "a large blue square on a yellow background",
    "a star",
    "blue background",
)
"""Columns of both sheets; the last two leave most to chance."""


@dataclass(frozen=True)
class Studio:
    """The engine and what it may be asked for."""

    engine: Engine
    library: Library

    def paint(self, texts: Sequence[str], fields: Mapping[str, Any]) -> NDArray[np.uint8]:
        """(N, 128, 128, 3) pictures of the prompts, seeds 0, 1, 2 and so on.

        Raises:
            RuntimeError: the engine could not paint one.
        """
        return self.run([(text, fields) for text in texts], {})

    def run(
        self, asks: Sequence[tuple[str, Mapping[str, Any]]], pictures: Mapping[str, Path]
    ) -> NDArray[np.uint8]:
        """The same for prompts with fields of their own.

        Args:
            asks: Prompt and further fields of each picture.
            pictures: Files that the fields name.

        Raises:
            RuntimeError: the engine could not paint one.
        """
        jobs = [
            plan(_request(text, fields), self.library, seed=seed)
            for seed, (text, fields) in enumerate(asks)
        ]
        return self.run_plans(jobs, pictures)

    def run_plans(self, jobs: Sequence[Plan], pictures: Mapping[str, Path]) -> NDArray[np.uint8]:
        """The same for plans of one picture each, all of one size.

        Raises:
            RuntimeError: the engine could not paint one.
        """
        for place, job in enumerate(jobs):
            self.engine.admit(str(place), job, pictures)
        made: dict[str, NDArray[np.uint8]] = {}
        while not self.engine.idle():
            for job_id, event in self.engine.step():
                if isinstance(event, ImageReady):
                    made[job_id] = np.asarray(Image.open(io.BytesIO(event.data)))
                elif isinstance(event, Failed):
                    raise RuntimeError(event.message)
        return np.stack([made[str(place)] for place in range(len(jobs))])


def open_studio(models: Path) -> Studio:
    """Load the pocket model of a models folder, on the CPU."""
    return Studio(
        create(str(models), model="pocket", device="cpu"),
        read_library(Shelves(models_dir=models), "pocket"),
    )


def _request(text: str, fields: Mapping[str, Any]) -> TextRequest:
    fixed = {"prompt": text, "styles": (), "aspect_ratio": "128x128", "num_images": 1}
    return TextRequest.parse({**fixed, **fields})


def short_prompts(count: int, seed: int = 5) -> tuple[list[Scene], list[str], list[frozenset[str]]]:
    """Captions of a word or two, their scenes, and what each of them names."""
    rng = np.random.default_rng(seed)
    source = unseen_scenes(rng)
    scenes: list[Scene] = []
    texts: list[str] = []
    named: list[frozenset[str]] = []
    while len(texts) < count:
        scene = next(source)
        caption = short_caption(rng, scene)
        if caption.named <= {"background", "colour", "shape"}:
            scenes.append(scene)
            texts.append(caption.text)
            named.append(caption.named)
    return scenes, texts, named


def heard(result: Result, named: Sequence[frozenset[str]]) -> float:
    """Share of the named things that the pictures show."""
    hits = [result.share(field, [i]) for i, fields in enumerate(named) for field in sorted(fields)]
    return float(np.mean(hits))


def _ask(
    studio: Studio, scenes: list[Scene], texts: list[str], fields: Mapping[str, Any]
) -> Result:
    pictures = studio.paint(texts, fields)
    return Result(scenes, pictures, [read(picture) for picture in pictures])


def _shares(result: Result) -> str:
    return " | ".join(f"{result.share(field):.0%}" for field in FIELDS)


def modes_table(studio: Studio, count: int) -> list[str]:
    """One line for each mode: full captions of unseen scenes, then short ones."""
    scenes, texts = prompts(Settings(count))
    few_scenes, few_texts, named = short_prompts(count)
    lines = [
        "| mode | background | colour | place | shape | short prompts heard |",
        "|---|---|---|---|---|---|",
    ]
    for mode, fields in MODES.items():
        full = _ask(studio, scenes, texts, fields)
        short = _ask(studio, few_scenes, few_texts, fields)
        lines.append(f"| {mode} | {_shares(full)} | {heard(short, named):.0%} |")
        log.info(lines[-1])
    return lines


def dotted(weight: float, performance: str = "Lightning") -> dict[str, Any]:
    """A request's fields for the example adapter at a weight."""
    return {"performance": performance, "loras": [{"path": DOTS, "scale": weight}]}


def dots_table(studio: Studio, count: int) -> list[str]:
    """One line for each weight of the example adapter in Lightning, and one in Speed."""
    scenes, texts = prompts(Settings(count))
    lines = [
        f"| weight of {DOTS} | dots (mean) | least | background | colour | place | shape |",
        "|---|---|---|---|---|---|---|",
    ]
    asks = {f"{weight:g}": dotted(weight) for weight in WEIGHTS}
    for name, fields in {**asks, "1, Speed": dotted(1, "Speed")}.items():
        result = _ask(studio, scenes, texts, fields)
        dots = [dottedness(picture) for picture in result.pictures]
        lines.append(f"| {name} | {np.mean(dots):.3f} | {min(dots):.3f} | {_shares(result)} |")
        log.info(lines[-1])
    return lines


def sheet(studio: Studio, rows: Sequence[Mapping[str, Any]], *, gap: int = 4) -> Image.Image:
    """The sheet's prompts as columns, requests as rows; 256 colours."""
    strips = [studio.paint(SHEET_PROMPTS, fields) for fields in rows]
    side = strips[0].shape[1] + gap
    page = Image.new("RGB", (len(SHEET_PROMPTS) * side - gap, len(rows) * side - gap), "white")
    for y, strip in enumerate(strips):
        for x, picture in enumerate(strip):
            page.paste(Image.fromarray(picture), (x * side, y * side))
    return page.quantize(256, dither=Image.Dither.NONE)  # a third of the bytes, no visible loss


def report(studio: Studio, count: int) -> str:
    """The measured part of the README."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    opening = (
        f"Measured {today} through the engine, {count} prompts of unseen scenes a line, and as many of"
        " a word or two, of which the share of named things that were drawn is counted."
    )
    return "\n".join([opening, "", *modes_table(studio, count), "", *dots_table(studio, count)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the modes of a models folder and publish table and sheets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=HERE.parent / "models")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--threads", type=int, help="1 is the fastest on a busy machine")
    parser.add_argument("--dry", action="store_true", help="log the tables, write nothing")
    parser.add_argument("--sheets-only", action="store_true", help="paint the sheets, no table")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    studio = open_studio(options.models)
    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.sheets_only:
        text = report(studio, options.count)
        log.info("\n%s", text)
        if not options.dry:
            publish(text, HERE / "README.md", MARK)
    if not options.dry:
        shown = ("Speed", "Extreme Speed", "Lightning", "Hyper-SD")
        sheet(studio, [MODES[mode] for mode in shown]).save(HERE / "modes.png", optimize=True)
        sheet(studio, [dotted(w) for w in WEIGHTS]).save(HERE / "dots.png", optimize=True)


if __name__ == "__main__":
    main()
