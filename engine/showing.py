"""What is told of running images after each step: how far they are, and what they look like."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch

from engine.loop import Running
from engine.sampling.latent_format import LatentFormat
from engine.stages.preview import encode_previews
from engine.warm import Palette
from engine.work import Work


def show(busy: Iterable[Work], palette: Palette) -> None:
    """Tell how far each running image is, with a preview where one is wanted and the picture itself isn't there."""
    busy = list(busy)
    shown = [
        image
        for work in busy
        if work.plan.previews
        for image in work.running.values()
        if not image.is_done
    ]
    previews = _previews(shown, palette)
    for work in busy:
        for index, image in work.running.items():
            work.outbox.append(work.progress(index, previews.get(image)))


def _previews(images: Sequence[Running], palette: Palette) -> dict[Running, bytes]:
    """Decode the latest estimates; those of one size together."""
    alike: dict[tuple[torch.Size, LatentFormat], list[Running]] = {}
    for image in images:
        alike.setdefault((image.shape, image.latent_format), []).append(image)
    previews: dict[Running, bytes] = {}
    for (_, latent_format), group in alike.items():
        decode = partial(palette.model.preview_of, latent_format)
        estimates = torch.cat([image.denoised for image in group])
        previews.update(zip(group, encode_previews(decode, estimates), strict=True))
    return previews
