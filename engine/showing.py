"""What is told of running images after each step: how far they are, and what they look like."""

from collections.abc import Iterable, Mapping
from functools import partial

import torch

from engine.loop import Running
from engine.palette import Palette
from engine.sampling.latent_format import LatentFormat
from engine.stages.preview import PreviewPrinter, Wanted
from engine.work import Work

Place = tuple[str, int]
"""A job, and the index of one of its images."""


def show(busy: Iterable[Work], palette: Palette, printer: PreviewPrinter[Place]) -> None:
    """Tell how far each running image is, with a preview where one is wanted and there, and the picture itself isn't."""
    busy = list(busy)
    shown = {
        (work.job_id, index): image
        for work in busy
        if work.plan.previews
        for index, image in work.running.items()
        if not image.is_done
    }
    previews = printer.print(_wanted(shown, palette))
    for work in busy:
        for index in work.running:
            work.outbox.append(work.progress(index, previews.get((work.job_id, index))))


def _wanted(images: Mapping[Place, Running], palette: Palette) -> list[Wanted[Place]]:
    """Bring the latest estimates of one size together."""
    alike: dict[tuple[torch.Size, LatentFormat], list[Place]] = {}
    for place, image in images.items():
        alike.setdefault((image.shape, image.latent_format), []).append(place)
    return [
        Wanted(
            places,
            partial(palette.model.preview_of, latent_format),
            torch.cat([images[place].denoised for place in places]),
        )
        for (_, latent_format), places in alike.items()
    ]
