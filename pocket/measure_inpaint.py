"""Ask the studio's own engine to repaint, to paint beyond the sides and to vary, and judge by pixels.

Writes the fourth table of `README.md` and its sheet: `python -m pocket.measure_inpaint`. Drawings are of scenes kept from training.
"""

import argparse
import datetime
import hashlib
import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.image_inputs import Side
from engine.stages.inpaint import Scale
from engine.stages.masks import pad, soften
from pocket.captions import full_caption
from pocket.draw import draw
from pocket.holes import box_of, ground_beyond, object_pixels, random_sides
from pocket.measure import Result, publish
from pocket.measure_modes import Studio, open_studio
from pocket.score import read
from pocket.world import COLOURS, NATIVE_SIZE, SHAPES, STYLES, Scene, unseen_scenes

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
MARK = "inpaint"
FEATHER = Scale.of(NATIVE_SIZE).feather
"""Pixels from a mask at which nothing changes any more."""
FIELDS = ("colour", "shape", "background")

_AROUND = 6
"""Pixels between an object and the edge of the mask around it."""
_LINES: Mapping[str, Mapping[str, Any]] = {
    "v2.6 (default)": {},
    "Modify Content": {"mode": "Modify Content (add objects, change background, etc.)"},
    "None": {"engine": "None"},
}
"""Fields of the inpaint part for each line of the table."""

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Cases:
    """Drawings, masks around their objects, and the objects that are to be there instead."""

    scenes: list[Scene]
    wanted: list[Scene]
    drawings: Pictures
    """(N, 128, 128, 3)."""
    masks: Pictures
    """(N, 128, 128) of 0 or 255."""
    files: Mapping[str, Path]
    """Drawings and masks, by their hashes."""

    def name(self, pixels: NDArray[np.uint8]) -> str:
        """What a request calls a drawing or a mask."""
        return hashlib.sha256(as_png(pixels)).hexdigest()


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture or a mask as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make_cases(count: int, folder: Path, seed: int = 83) -> Cases:
    """Draw unseen scenes, and write them and their masks into a folder."""
    rng = np.random.default_rng(seed)
    source = unseen_scenes(rng)
    scenes = [next(source) for _ in range(count)]
    wanted = [_another_object(rng, scene) for scene in scenes]
    drawings = draw(scenes, rng)
    masks = np.stack([_mask_around(*pair) for pair in zip(drawings, scenes, strict=True)])
    files = {}
    for pixels in (*drawings, *masks):
        data = as_png(pixels)
        name = hashlib.sha256(data).hexdigest()
        files[name] = folder / f"{name}.png"
        files[name].write_bytes(data)
    return Cases(scenes, wanted, drawings, masks, files)


def _another_object(rng: np.random.Generator, scene: Scene) -> Scene:
    """The same place and background with an object of another shape and colour."""
    shapes = [shape for shape in SHAPES if shape != scene.shape]
    colours = [colour for colour in COLOURS if colour not in (scene.colour, scene.background)]
    return replace(
        scene,
        shape=shapes[rng.integers(len(shapes))],
        colour=colours[rng.integers(len(colours))],
        style=STYLES[rng.integers(len(STYLES))],
    )


def _mask_around(drawing: NDArray[np.uint8], scene: Scene) -> NDArray[np.uint8]:
    top, bottom, left, right = box_of(object_pixels(drawing, scene))
    mask = np.zeros(drawing.shape[:2], np.uint8)
    rows = slice(max(0, top - _AROUND), bottom + _AROUND)
    mask[rows, max(0, left - _AROUND) : right + _AROUND] = 255
    return mask


def say(scenes: Sequence[Scene]) -> list[str]:
    """A complete caption of each scene."""
    rng = np.random.default_rng(29)
    return [full_caption(rng, scene, complete=True).text for scene in scenes]


def is_kept(before: NDArray[np.uint8], after: NDArray[np.uint8], mask: NDArray[np.uint8]) -> bool:
    """Whether each pixel beyond the feather of a mask is as it was, to the last bit."""
    far = soften(mask, FEATHER) == 0
    return before.shape == after.shape and bool((before[far] == after[far]).all())


def repaint(studio: Studio, cases: Cases, fields: Mapping[str, Any], **more: Any) -> Pictures:
    """Put the wanted objects in the place of the drawn ones.

    Args:
        studio: Paints.
        cases: What and where.
        fields: Of the requests' inpaint part.
        more: Fields of the requests.
    """
    asks = []
    for text, drawing, mask in zip(say(cases.wanted), cases.drawings, cases.masks, strict=True):
        part = {"image": cases.name(drawing), "mask": cases.name(mask), **fields}
        asks.append((text, {"inpaint": part, **more}))
    return studio.run(asks, cases.files)


def repaint_line(cases: Cases, made: Pictures) -> str:
    """What was repainted as asked, and whether the rest was kept."""
    result = Result(cases.wanted, made, [read(picture) for picture in made])
    both = [result.share("colour", [i]) * result.share("shape", [i]) for i in range(len(made))]
    kept = [is_kept(*it) for it in zip(cases.drawings, made, cases.masks, strict=True)]
    shares = [result.share(field) for field in FIELDS]
    return " | ".join(f"{share:.0%}" for share in (*shares, np.mean(both), np.mean(kept)))


@dataclass(frozen=True)
class Outpainted:
    """A drawing that was painted beyond its sides."""

    is_kept: bool
    """Whether the drawing is as it was, but for the feather along the new parts."""
    difference: float
    """Mean distance of new pixels from the background that goes on, in levels of 255."""


def outpaint(
    studio: Studio, cases: Cases, sides: Sequence[tuple[Side, ...]], **more: Any
) -> list[NDArray[np.uint8]]:
    """Paint each drawing beyond its own sides."""
    texts = say(cases.scenes)
    made: dict[int, NDArray[np.uint8]] = {}
    for some in sorted(set(sides)):  # pictures of one size together
        rows = [i for i, own in enumerate(sides) if own == some]
        parts = [{"image": cases.name(cases.drawings[i]), "outpaint": some} for i in rows]
        asks = [(texts[i], {"inpaint": part, **more}) for i, part in zip(rows, parts, strict=True)]
        made |= zip(rows, studio.run(asks, cases.files), strict=True)
    return [made[i] for i in range(len(sides))]


def judge_outpainted(
    scene: Scene,
    drawing: NDArray[np.uint8],
    made: NDArray[np.uint8],
    sides: Sequence[Side],
) -> Outpainted:
    """Compare with the drawing, and its background drawn out."""
    height, width = drawing.shape[:2]
    before, mask = pad(drawing, np.zeros((height, width), np.uint8), sides)
    wanted = ground_beyond(scene, drawing, sides)
    distance = np.abs(made.astype(int) - wanted)[mask > 0].mean()
    return Outpainted(is_kept(before, made, mask), float(distance))


def distances(
    studio: Studio, cases: Cases, fields: Sequence[Mapping[str, Any]]
) -> NDArray[np.float64]:
    """(N,) mean distances in levels of 255 between the drawings and what is made of each.

    Prompts name colour and shape alone: all else has to come from the drawings.
    """
    texts = [f"a {scene.colour} {scene.shape}" for scene in cases.scenes]
    asks = list(zip(texts, fields, strict=True))
    made = studio.run(asks, cases.files).astype(int)
    return np.asarray(np.abs(made - cases.drawings).mean(axis=(1, 2, 3)))


def varied(cases: Cases, method: str) -> list[Mapping[str, Any]]:
    """Fields of requests that vary the drawings."""
    return [
        {"upscale_or_vary": {"image": cases.name(drawing), "method": method}}
        for drawing in cases.drawings
    ]


def _repaint_table(studio: Studio, cases: Cases) -> list[str]:
    lines = [
        "| repainted with | colour | shape | background | colour and shape | rest kept to the bit |",
        "|---|---|---|---|---|---|",
    ]
    for name, fields in _LINES.items():
        lines.append(f"| {name} | {repaint_line(cases, repaint(studio, cases, fields))} |")
        log.info(lines[-1])
    return lines


def _outpaint_table(studio: Studio, cases: Cases) -> list[str]:
    rng = np.random.default_rng(31)
    sides = [random_sides(rng) for _ in cases.scenes]
    made = outpaint(studio, cases, sides)
    told = zip(cases.scenes, cases.drawings, made, sides, strict=True)
    seen = [judge_outpainted(*each) for each in told]
    away = np.asarray([each.difference for each in seen])
    kept = np.mean([each.is_kept for each in seen])
    lines = [
        "| painted beyond random sides | |",
        "|---|---|",
        f"| drawing kept to the bit | {kept:.0%} |",
        f"| mean distance from the background that goes on, in levels of 255 | {away.mean():.1f} |",
        f"| the same, median and worst picture | {np.median(away):.1f}, {away.max():.1f} |",
    ]
    log.info("\n%s", "\n".join(lines))
    return lines


def _vary_table(studio: Studio, cases: Cases) -> list[str]:
    lines = [
        "| prompts of a colour and a shape: mean distance from the drawing, in levels of 255 | |",
        "|---|---|",
    ]
    asks: Mapping[str, list[Mapping[str, Any]]] = {
        "Vary (Subtle)": varied(cases, "Vary (Subtle)"),
        "Vary (Strong)": varied(cases, "Vary (Strong)"),
        "the same prompt anew": [{} for _ in cases.scenes],
    }
    for name, fields in asks.items():
        lines.append(f"| {name} | {distances(studio, cases, fields).mean():.1f} |")
        log.info(lines[-1])
    return lines


def report(studio: Studio, cases: Cases) -> str:
    """The measured part of the README."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    opening = (
        f"Measured {today} through the engine, {len(cases.scenes)} drawings a line; the mask is a box"
        f" {_AROUND} pixels around the object, and the feather {FEATHER} pixels wide."
    )
    parts = [_repaint_table(studio, cases), _outpaint_table(studio, cases)]
    parts.append(_vary_table(studio, cases))
    return "\n\n".join([opening, *("\n".join(part) for part in parts)])


def sheet(studio: Studio, cases: Cases, *, gap: int = 4) -> Image.Image:
    """Columns of drawings, their holes, and what is there afterwards; 256 colours."""
    rows = [
        cases.drawings,
        np.where(cases.masks[..., None] > 0, np.uint8(128), cases.drawings),
        repaint(studio, cases, {}),
    ]
    step = NATIVE_SIZE + gap
    page = Image.new("RGB", (len(cases.scenes) * step - gap, len(rows) * step - gap), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            page.paste(Image.fromarray(picture), (x * step, y * step))
    return page.quantize(256, dither=Image.Dither.NONE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a models folder and publish the table and the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=HERE.parent / "models")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--threads", type=int, help="1 is the fastest on a busy machine")
    parser.add_argument("--dry", action="store_true", help="log the table, write nothing")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    studio = open_studio(options.models)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        cases = make_cases(options.count, Path(folder))
        text = report(studio, cases)
        log.info("\n%s", text)
        if not options.dry:
            publish(text, HERE / "README.md", MARK)
            few = make_cases(10, Path(folder))
            sheet(studio, few).save(HERE / "inpaint.png", optimize=True)


if __name__ == "__main__":
    main()
