"""Ask the finished folder for pictures of scenes it never saw, and read them back from pixels.

Writes the table and the contact sheet that `README.md` shows: `python -m pocket.measure`.
"""

import argparse
import datetime
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pocket.captions import full_caption
from pocket.draw import draw
from pocket.parts import Pipeline, Vae, library
from pocket.score import Reading, read
from pocket.train_vae import measure_vae
from pocket.world import Scene, unseen_scenes

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
FIELDS = ("background", "colour", "place", "shape", "style", "size")
TARGETS = {"background": 0.95, "colour": 0.95, "place": 0.92, "shape": 0.90, "style": 0.70}
MARK = "measured"
BATCH = 16


@dataclass(frozen=True)
class Settings:
    """What was asked of the model."""

    count: int = 256
    steps: int = 30
    guidance: float = 4.0
    seed: int = 2024


@dataclass(frozen=True)
class Result:
    """Scenes, their pictures and what the scorer read from them."""

    scenes: list[Scene]
    pictures: NDArray[np.uint8]
    readings: list[Reading]
    seconds: float = 0.0
    """What painting took; 0 where nobody looked at the clock."""

    def share(self, field: str, scenes: Sequence[int] | None = None) -> float:
        """Share of pictures whose field is right, over all or over some of them."""
        rows = range(len(self.scenes)) if scenes is None else scenes
        hits = [getattr(self.scenes[i], field) == getattr(self.readings[i], field) for i in rows]
        return float(np.mean(hits)) if hits else float("nan")


def prompts(settings: Settings) -> tuple[list[Scene], list[str]]:
    """Unseen scenes, large and medium, each with a complete caption."""
    rng = np.random.default_rng(settings.seed)
    source = unseen_scenes(rng)
    scenes = [next(source) for _ in range(settings.count)]
    return scenes, [full_caption(rng, scene, complete=True).text for scene in scenes]


def paint(pipeline: Pipeline, texts: list[str], settings: Settings) -> NDArray[np.uint8]:
    """(N, 128, 128, 3) pictures from the stock pipeline, seeds 0, 1, 2 and so on."""
    pipeline.set_progress_bar_config(disable=True)
    parts = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        seeds = range(start, start + len(batch))
        made = pipeline(
            batch,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
        ).images
        parts.append((made * 255 + 0.5).clip(0, 255).astype(np.uint8))
    return np.concatenate(parts)


def measure(pipeline: Pipeline, settings: Settings) -> Result:
    """Paint all prompts and read the pictures."""
    scenes, texts = prompts(settings)
    begun = time.monotonic()
    pictures = paint(pipeline, texts, settings)
    seconds = time.monotonic() - begun
    return Result(scenes, pictures, [read(picture) for picture in pictures], seconds)


def _scorer_ceiling(scenes: list[Scene]) -> Result:
    """The same scenes as true drawings: what the scorer itself gets right."""
    pictures = draw(scenes, np.random.default_rng(17))
    return Result(scenes, pictures, [read(picture) for picture in pictures])


def short_table(result: Result) -> str:
    """One line of shares, for logs."""
    return ", ".join(f"{field} {result.share(field):.3f}" for field in FIELDS)


def _details(result: Result) -> list[str]:
    lines = []
    for field in ("shape", "style", "colour", "size"):
        values = sorted({getattr(scene, field) for scene in result.scenes})
        cells = []
        for value in values:
            rows = [i for i, scene in enumerate(result.scenes) if getattr(scene, field) == value]
            cells.append(f"{value} {result.share(field, rows):.2f}")
        lines.append(f"- {field}, by kind: " + ", ".join(cells))
    large = [i for i, scene in enumerate(result.scenes) if scene.size == "large"]
    medium = [i for i, scene in enumerate(result.scenes) if scene.size == "medium"]
    lines.append(
        f"- shape, by size: large {result.share('shape', large):.2f},"
        f" medium {result.share('shape', medium):.2f}"
    )
    return lines


def report(result: Result, settings: Settings, *, decibels: float) -> str:
    """The measured part of the README."""
    ceiling = _scorer_ceiling(result.scenes)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [
        f"Measured {today}: {settings.count} prompts of scenes kept from training, large and medium"
        f" objects, stock `StableDiffusionXLPipeline`, {settings.steps} steps, guidance"
        f" {settings.guidance:g}, {result.seconds / settings.count:.2f} s a picture on the CPU.",
        "",
        "| | right | wanted | scorer on true drawings |",
        "|---|---|---|---|",
    ]
    for field in FIELDS:
        wanted = f"{TARGETS[field]:.0%}" if field in TARGETS else ""
        lines.append(
            f"| {field} | {result.share(field):.1%} | {wanted} | {ceiling.share(field):.1%} |"
        )
    lines += [f"| autoencoder | {decibels:.1f} dB | 30 dB | |", "", *_details(result)]
    return "\n".join(lines)


def contact_sheet(result: Result, *, columns: int = 8, rows: int = 8) -> Image.Image:
    """The first pictures, framed: green all right, amber all but style and size, red otherwise."""
    side, frame = result.pictures.shape[1], 3
    cell = side + 2 * frame
    sheet = Image.new("RGB", (columns * cell, rows * cell))
    pen = ImageDraw.Draw(sheet)
    for i in range(min(columns * rows, len(result.scenes))):
        x, y = i % columns * cell, i // columns * cell
        right = {f for f in FIELDS if result.share(f, [i]) == 1}
        core = right >= {"background", "colour", "place", "shape"}
        colour = (40, 170, 60) if right >= set(FIELDS) else (240, 170, 0) if core else (210, 30, 30)
        pen.rectangle((x, y, x + cell - 1, y + cell - 1), fill=colour)
        sheet.paste(Image.fromarray(result.pictures[i]), (x + frame, y + frame))
    return sheet


def publish(text: str, readme: Path, mark: str) -> None:
    """Put a measured part between its two marks in the README.

    Raises:
        ValueError: the marks are not there.
    """
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    page = readme.read_text("utf-8")
    if begin not in page or end not in page:
        raise ValueError(f"{readme.name}: expected the marks {begin} and {end}")
    before, after = page.split(begin)[0], page.split(end)[1]
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a folder and publish table and sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "pocket")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--threads", type=int, help="1 is the fastest on a busy machine")
    parser.add_argument("--dry", action="store_true", help="log the table, write nothing")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = Settings(options.count, options.steps, options.guidance)
    pipeline = library.StableDiffusionXLPipeline.from_pretrained(options.model, dtype=torch.float32)
    result = measure(pipeline, settings)
    vae: Vae = pipeline.vae
    text = report(result, settings, decibels=measure_vae(vae))
    log.info("\n%s", text)
    if not options.dry:
        contact_sheet(result).save(HERE / "contact_sheet.png", optimize=True)
        publish(text, HERE / "README.md", MARK)


if __name__ == "__main__":
    main()
