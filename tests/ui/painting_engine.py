"""The scripted engine, with real pictures: blots of colour drawn from the seed, blurred while they are in the making."""

import io
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFilter, PngImagePlugin

from engine import Event, ImageReady, Progress, Size
from tests.jobs.scripted_engine import ScriptedEngine

PREVIEW = Size(288, 224)
METADATA = "parameters"
"""The text chunk that stands for the metadata of a picture."""


class PaintingEngine(ScriptedEngine):
    """Does what each prompt says, and shows pictures."""

    def step(self) -> Sequence[tuple[str, Event]]:
        return [(job_id, _painted(event)) for job_id, event in super().step()]


def blots(seed: int, size: Size) -> Image.Image:
    """Draw the picture of a seed."""
    dice = random.Random(seed)
    picture = Image.new("RGB", size, tuple(dice.randint(190, 250) for _ in range(3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(7):
        x, y, radius = (
            dice.random() * size.width,
            dice.random() * size.height,
            size.width * dice.uniform(0.06, 0.25),
        )
        color = tuple(dice.randint(20, 235) for _ in range(3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return picture


def _painted(event: Event) -> Event:
    match event:
        case Progress(image=image, step=step, steps=steps):
            blurred = blots(image, PREVIEW).filter(ImageFilter.GaussianBlur(2 * (steps - step) + 1))
            return Progress(
                stage=event.stage,
                image=image,
                step=step,
                steps=steps,
                fraction=event.fraction,
                preview=_file(blurred, "JPEG"),
            )
        case ImageReady(index=index, seed=seed, size=size):
            facts = PngImagePlugin.PngInfo()
            facts.add_text(METADATA, f"seed {seed}")
            data = _file(blots(seed, size), "PNG", pnginfo=facts, compress_level=1)
            return ImageReady(
                index=index, seed=seed, size=size, content_type="image/png", data=data
            )
        case _:
            return event


def _file(picture: Image.Image, kind: str, **how) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()
