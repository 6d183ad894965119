"""Pictures that an IP-Adapter shows the model all at once, as diffusers has it, and what it shows the negative side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from engine.conditioning.image_attention import said_between
from engine.models.image_encoders import EncodedImage, ImageEncoder
from engine.models.ip_adapters import IPAdapter
from engine.sampling.noise import draw_noise, seeded_generator


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Shown:
    """What one adapter makes of its pictures."""

    positive: Tensor
    """Tokens, (1, n, token width) float32: those of the first picture, then those of the next."""
    negative: Tensor
    """Of the same shape, for the negative side."""
    pooled: Tensor | None
    """What they add to the pooled text; None but with the pocket model's adapter."""


def show(
    adapter: IPAdapter,
    pictures: Sequence[EncodedImage],
    nothing: EncodedImage,
    *,
    shortcut: bool = False,
) -> Shown:
    """Make tokens of pictures; they share one softmax.

    Args:
        adapter: Makes them.
        pictures: At least one.
        nothing: What the negative side is shown in place of each.
        shortcut: Of FaceID Plus, as `Projection` has it.

    Raises:
        ModelIncompatible: the adapter was made for another encoder.
    """
    negative = adapter.project(nothing, shortcut=shortcut)
    tokens = [adapter.project(picture, shortcut=shortcut) for picture in pictures]
    return Shown(
        positive=torch.cat(tokens, 1),
        negative=torch.cat([negative] * len(pictures), 1),
        pooled=_said_together(adapter, pictures),
    )


def show_nothing(
    adapter: IPAdapter, encoder: ImageEncoder, noising: float, seed: int
) -> EncodedImage:
    """Say what the negative side is shown: what the encoder says of an even grey, with noise in it.

    With N the noise of the seed and f the factor: hidden states of grey + f · N, and of the picture as a whole f times
    what the encoder says of grey + N. The face is f times further noise, of variance 1 or brought to length 1 as the adapter
    has faces. At 0 that is diffusers' own: the states of grey, and zeros.

    Args:
        adapter: Whose negative side it is.
        encoder: The adapter's.
        noising: f, 0 to 1.
        seed: Of the noise.
    """
    generator = seeded_generator(seed)
    nothing = encoder.encode_nothing()
    if noising:
        noise = draw_noise(generator, (1, 3, encoder.side, encoder.side))
        nothing = encoder.encode_noise(noise, noising)
    if not adapter.reads_faces:
        return nothing
    face = draw_noise(generator, (adapter.projection.width,))
    return with_face(nothing, face, adapter, noising)


def with_face(
    picture: EncodedImage, face: Tensor, adapter: IPAdapter, share: float = 1.0
) -> EncodedImage:
    """Put the vector of a face (512,) beside an encoded picture, of the length that the adapter knows, times `share`."""
    if adapter.projection.is_unit:
        face = normalize(face, dim=0)
    return replace(picture, face=(face * share)[None, None].to(picture.image_embeds.device))


def square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Make a picture as CLIP's own preparation does: the shorter side is resized (bicubic), the middle is cut out.

    Args:
        image: (H, W, 3).
        side: Of the square.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    wide, high = side * width // short, side * height // short
    left, top = (wide - side) // 2, (high - side) // 2
    resized = Image.fromarray(image).resize((wide, high), Image.Resampling.BICUBIC)
    return np.array(resized.crop((left, top, left + side, top + side)))


def _said_together(adapter: IPAdapter, pictures: Sequence[EncodedImage]) -> Tensor | None:
    """Say what pictures of one weight add to the pooled text, side by side (`image_attention.add_pooled`)."""
    count, said = len(pictures), []
    for place, picture in enumerate(pictures):
        pooled = adapter.pooled(picture)
        if pooled is None:
            return None
        ground = adapter.ground(pooled)
        said.append(said_between(place / count, (place + 1) / count, pooled, ground))
    return torch.stack(said).sum(0)
