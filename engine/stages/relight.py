"""From the pictures that IC-Light sees to what its UNet is told of them.

Source: the demos of https://github.com/lllyasviel/IC-Light (Apache-2.0).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.geometry import Size
from engine.models.ic_light import IcLight
from engine.stages.encode_picture import encode_values
from engine.stages.pixels import Pixels, cover, to_rgb

GREY = 127
"""The level that stands for nothing: 0 among the values of -1 to about 1."""


def relight_addition(
    light: IcLight,
    vae: Any,
    size: Size,
    picture: Pixels,
    *,
    background: Pixels | None = None,
    field: str,
) -> Tensor:
    """Work out what is added for all images of a job.

    Args:
        light: IC-Light.
        vae: The base model's `AutoencoderKL`.
        size: What is painted at, in pixels.
        picture: What is lit anew, in any form that `read_picture` gives; what is transparent shows grey.
        background: Where the light comes from; None where only words say so.
        field: The request's field of the background, for the message.

    Returns:
        (1, channels, h, w) float32 on the CPU: see `engine.loop.Setup.addition`.

    Raises:
        InvalidRequest: there is a background that is not seen, or none where one is.
    """
    light.require_background(background, field)
    seen = [over_grey(picture), *([] if background is None else [over_grey(background)])]
    latents = [encode_values(vae, _values(cover(item, size)), None) for item in seen]
    return light.addition(torch.cat(latents, 1) * vae.config.scaling_factor)


def over_grey(image: Pixels) -> Pixels:
    """Bring a picture to three channels, with grey where it is transparent; fractions are cut off."""
    if image.ndim < 3 or image.shape[2] != 4:
        return to_rgb(image)
    colour, alpha = image[..., :3].astype(np.float32), image[..., 3:].astype(np.float32) / 255
    return (GREY + (colour - GREY) * alpha).clip(0, 255).astype(np.uint8)


def _values(image: Pixels) -> Tensor:
    """Turn a picture into (1, 3, H, W), with `GREY` at exactly 0."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / GREY - 1
