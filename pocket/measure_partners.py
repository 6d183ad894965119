"""Ask the studio's own engine for pictures that follow images, and read from pixels whether they do.

Writes the third table of `README.md` and its sheet: `python -m pocket.measure_partners`. Each line asks for
as many pictures as `--count` says, of drawings and words that training never showed together.
"""

import argparse
import datetime
import hashlib
import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pocket.draw import draw
from pocket.measure import publish
from pocket.measure_modes import Studio, open_studio
from pocket.score import Reading, read
from pocket.twins import recoloured
from pocket.world import Scene, unseen_scenes

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
MARK = "partners"
NEAR = 2
"""Pixels within which two edges count as one."""

CONTROL_LINES = ((1.0, 1.0), (1.0, 0.5), (0.5, 1.0), (0.0, 1.0))
IMAGE_LINES = (
    (1.0, 1.0),
    (0.75, 1.0),
    (0.5, 1.0),
    (0.25, 1.0),
    (0.0, 1.0),
    (1.0, 0.5),
    (1.0, 0.25),
    (0.6, 0.5),
)
"""Weight and stop of each line; the last is Fooocus' default."""

_SETTINGS: Mapping[str, Any] = {"performance": "Speed"}


@dataclass(frozen=True)
class Cases:
    """Drawings to follow, what is on them, and other colours to ask for."""

    scenes: list[Scene]
    wanted: list[Scene]
    """The same objects in the colours that prompts name."""
    drawings: NDArray[np.uint8]
    names: list[str]
    files: Mapping[str, Path]


def make_cases(count: int, folder: Path, seed: int = 77) -> Cases:
    """Draw scenes kept from training into a folder; prompts ask for two other colours."""
    rng = np.random.default_rng(seed)
    source = unseen_scenes(rng)
    scenes = [next(source) for _ in range(count)]
    wanted = [_other_colours(rng, scene) for scene in scenes]
    drawings = draw(scenes, rng)
    files = [write_picture(folder, drawing) for drawing in drawings]
    return Cases(scenes, wanted, drawings, [f.stem for f in files], {f.stem: f for f in files})


def _other_colours(rng: np.random.Generator, scene: Scene) -> Scene:
    while True:
        other = recoloured(rng, scene)
        if other.colour != scene.colour and other.background != scene.background:
            return other


def write_picture(folder: Path, drawing: NDArray[np.uint8]) -> Path:
    """Write a picture as a job's file, named by its hash."""
    buffer = io.BytesIO()
    Image.fromarray(drawing).save(buffer, "PNG")
    file = folder / f"{hashlib.sha256(buffer.getvalue()).hexdigest()}.png"
    file.write_bytes(buffer.getvalue())
    return file


def edges(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W): the edges of any channel, one pixel wide."""
    channels = [cv2.Canny(channel, 64, 128) for channel in cv2.split(picture)]
    return np.asarray(np.stack(channels).max(0) > 0)


def edge_overlap(picture: NDArray[np.uint8], drawing: NDArray[np.uint8]) -> float:
    """F1 of the picture's edges against the drawing's: hits are within `NEAR` pixels."""
    one, other = edges(picture), edges(drawing)
    if not one.any() or not other.any():
        return 0.0
    precision, recall = _near_share(one, other), _near_share(other, one)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near_share(edge: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(~target)
    return float((distance[edge] <= NEAR).mean())


def slot(kind: str, name: str, weight: float, stop: float) -> dict[str, Any]:
    """One image of a request."""
    return {"type": kind, "image": name, "weight": weight, "stop_at": stop}


def follow(
    studio: Studio, cases: Cases, kind: str, *, weight: float, stop: float
) -> NDArray[np.uint8]:
    """One picture a case: for controls with the wanted colours in words, else with no words at all."""
    asks = []
    for name, wanted in zip(cases.names, cases.wanted, strict=True):
        text = f"a {wanted.colour} one on a {wanted.background} background"
        asks.append(
            (
                "" if kind == "ImagePrompt" else text,
                {**_SETTINGS, "image_prompts": [slot(kind, name, weight, stop)]},
            )
        )
    return studio.run(asks, cases.files)


def share(scenes: Sequence[Scene], readings: Sequence[Reading], field: str) -> float:
    """Share of pictures whose field is the scene's."""
    return float(
        np.mean(
            [getattr(s, field) == getattr(r, field) for s, r in zip(scenes, readings, strict=True)]
        )
    )


def control_table(studio: Studio, cases: Cases, kind: str) -> list[str]:
    """A line for each weight and stop of a control."""
    lines = [
        f"| {kind}: weight | stop | edge F1 | shape | place | size | colour asked for | background asked for |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for weight, stop in CONTROL_LINES:
        pictures = follow(studio, cases, kind, weight=weight, stop=stop)
        readings = [read(picture) for picture in pictures]
        overlap = np.mean(
            [edge_overlap(p, d) for p, d in zip(pictures, cases.drawings, strict=True)]
        )
        of_drawing = [share(cases.scenes, readings, field) for field in ("shape", "place", "size")]
        of_words = [share(cases.wanted, readings, field) for field in ("colour", "background")]
        cells = " | ".join(f"{value:.0%}" for value in (*of_drawing, *of_words))
        lines.append(f"| {weight:g} | {stop:g} | {overlap:.2f} | {cells} |")
        log.info(lines[-1])
    return lines


def image_table(studio: Studio, cases: Cases) -> list[str]:
    """A line for each weight and stop of an image prompt, without words."""
    lines = [
        "| ImagePrompt: weight | stop | background | colour | both | shape | place | size | style |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for weight, stop in IMAGE_LINES:
        readings = [
            read(picture)
            for picture in follow(studio, cases, "ImagePrompt", weight=weight, stop=stop)
        ]
        both = np.mean(
            [
                (s.background, s.colour) == (r.background, r.colour)
                for s, r in zip(cases.scenes, readings, strict=True)
            ]
        )
        told = [share(cases.scenes, readings, field) for field in ("background", "colour")]
        more = [share(cases.scenes, readings, f) for f in ("shape", "place", "size", "style")]
        cells = " | ".join(f"{value:.0%}" for value in (*told, both, *more))
        lines.append(f"| {weight:g} | {stop:g} | {cells} |")
        log.info(lines[-1])
    return lines


_TELLING = ("background", "colour", "shape", "place")


def _shows_both(reading: Reading, one: Scene, other: Scene) -> bool:
    """Whether the picture has something that only the one image has, and something only the other has."""

    def shows(scene: Scene, against: Scene) -> bool:
        return any(
            getattr(reading, field) == getattr(scene, field) != getattr(against, field)
            for field in _TELLING
        )

    return shows(one, other) and shows(other, one)


def of_two(studio: Studio, cases: Cases) -> list[Reading]:
    """Read what the studio paints of each image and the one after it, at weight 1 and stop 1."""
    pairs = zip(cases.names, cases.names[1:] + cases.names[:1], strict=True)
    asks = [
        ("", {**_SETTINGS, "image_prompts": [slot("ImagePrompt", n, 1.0, 1.0) for n in pair]})
        for pair in pairs
    ]
    return [read(picture) for picture in studio.run(asks, cases.files)]


def two_images(studio: Studio, cases: Cases) -> str:
    """Tell of pictures that follow two images."""
    readings, following = of_two(studio, cases), cases.scenes[1:] + cases.scenes[:1]
    both = [_shows_both(*row) for row in zip(readings, cases.scenes, following, strict=True)]
    colour, ground = (
        share(cases.scenes, readings, "colour"),
        share(following, readings, "background"),
    )
    return (
        f"Two images at weight 1: {np.mean(both):.0%} show something that only the first has and something that only the"
        f" second has. {colour:.0%} have the colour of the first one's object, {ground:.0%} the second one's background."
    )


def sheet(studio: Studio, cases: Cases, *, columns: int = 12, gap: int = 4) -> Image.Image:
    """Drawings, then what each kind makes of them at weight 1 and stop 1; 256 colours."""
    few = Cases(
        cases.scenes[:columns],
        cases.wanted[:columns],
        cases.drawings[:columns],
        cases.names[:columns],
        cases.files,
    )
    kinds = ("PyraCanny", "CPDS", "ImagePrompt")
    rows = [few.drawings, *(follow(studio, few, kind, weight=1.0, stop=1.0) for kind in kinds)]
    side = few.drawings.shape[1] + gap
    page = Image.new("RGB", (len(few.names) * side - gap, len(rows) * side - gap), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            page.paste(Image.fromarray(picture), (x * side, y * side))
    return page.quantize(256, dither=Image.Dither.NONE)


def report(studio: Studio, cases: Cases, kinds: Sequence[str]) -> str:
    """The measured part of the README."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    count = len(cases.scenes)
    lines = [
        f"Measured {today} through the engine, {count} drawings of unseen scenes a line, Speed (30 steps,"
        " guidance 4). Controls are asked for other colours than the drawing's (\"a red one on a blue"
        ' background"); image prompts come without words.',
    ]
    for kind in kinds:
        table = (
            image_table(studio, cases)
            if kind == "ImagePrompt"
            else control_table(studio, cases, kind)
        )
        lines += ["", *table]
    if "ImagePrompt" in kinds:
        lines += [
            "",
            two_images(studio, cases),
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the partners of a models folder and publish table and sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=HERE.parent / "models")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--threads", type=int, help="1 is the fastest on a busy machine")
    parser.add_argument("--kinds", nargs="+", default=["PyraCanny", "CPDS", "ImagePrompt"])
    parser.add_argument("--dry", action="store_true", help="log the tables, write nothing")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    studio = open_studio(options.models)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        cases = make_cases(options.count, Path(folder))
        text = report(studio, cases, options.kinds)
        log.info("\n%s", text)
        if not options.dry:
            publish(text, HERE / "README.md", MARK)
            sheet(studio, cases).save(HERE / "partners.png", optimize=True)


if __name__ == "__main__":
    main()
