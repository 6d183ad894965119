"""The scripted engine, with real pictures and their records: blots of colour drawn from the seed, blurred at first."""

import io
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFilter

from engine import Event, ImageReady, Plan, Progress, Size
from engine.stages.metadata import content_type, encode_image
from tests.jobs.scripted_engine import ScriptedEngine

PREVIEW = Size(288, 224)


class PaintingEngine(ScriptedEngine):
    """Does what each prompt says, and shows pictures."""

    def step(self) -> Sequence[tuple[str, Event]]:
        plans = {job_id: script.plan for job_id, script in self._jobs.items()}
        return [(job_id, _painted(event, plans[job_id])) for job_id, event in super().step()]


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


def _painted(event: Event, plan: Plan) -> Event:
    match event:
        case Progress(image=image, step=step, steps=steps):
            blurred = blots(image, PREVIEW).filter(ImageFilter.GaussianBlur(2 * (steps - step) + 1))
            return Progress(
                stage=event.stage,
                image=image,
                step=step,
                steps=steps,
                fraction=event.fraction,
                preview=_jpeg(blurred),
            )
        case ImageReady(index=index, seed=seed, size=size):
            kind, data = (
                content_type(plan.output_format),
                encode_image(blots(seed, size), plan, index),
            )
            return ImageReady(index=index, seed=seed, size=size, content_type=kind, data=data)
        case _:
            return event


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return file.getvalue()
