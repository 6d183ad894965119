"""What a picture looks like while it is being painted, at a small part of a step's cost.

A model that comes with an `AutoencoderTiny` uses it. For any other model a linear map from latents to colours is fitted to
its own VAE once, when it is loaded: it needs no file and shows colours and composition at one pixel per latent cell.
"""

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.stages.decode import to_images

PreviewDecoder = Callable[[Tensor], Tensor]
"""(B, 4, h, w) latents in the model's space to (B, 3, H, W) values of -1 to 1."""

LONG_SIDE = 512
"""Longest side of a preview in pixels."""
_QUALITY = 80
_FIT_SIDE = 16
_FIT_SEED = 0


def preview_decoder(tiny: Any | None, vae: Any) -> PreviewDecoder:
    """Choose how previews are made: by `tiny`, or by a linear map fitted to `vae`."""
    if tiny is None:
        return linear_decoder(vae)

    # Asked once: each of these goes through all modules, or through diffusers' configuration.
    device, dtype, scale = tiny.device, tiny.dtype, 1 / tiny.config.scaling_factor

    def decode(latents: Tensor) -> Tensor:
        scaled = (latents * scale).to(device=device, dtype=dtype)
        result: Tensor = tiny.decode(scaled, return_dict=False)[0]
        return result

    return decode


@torch.inference_mode()
def linear_decoder(vae: Any) -> PreviewDecoder:
    """Fit colour = latents · weight + bias by least squares to the 8x8 block means of decoded random latents."""
    generator = torch.Generator().manual_seed(_FIT_SEED)
    coarse = torch.randn(8, 4, 4, 4, generator=generator)
    latents = functional.interpolate(coarse, size=(_FIT_SIDE, _FIT_SIDE), mode="bilinear")
    scaled = (latents / vae.config.scaling_factor).to(device=vae.device, dtype=vae.dtype)
    pixels = vae.decode(scaled).sample.float().cpu()
    colours = functional.adaptive_avg_pool2d(pixels, (_FIT_SIDE, _FIT_SIDE))
    inputs = torch.cat([_cells(latents), torch.ones(len(_cells(latents)), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, _cells(colours)).solution.to(vae.device)  # (5, 3)
    weight, bias = solution[:4].T.reshape(3, 4, 1, 1), solution[4]
    return lambda values: functional.conv2d(values.float(), weight, bias)


@torch.inference_mode()
def encode_previews(decode: PreviewDecoder, denoised: Tensor) -> list[bytes]:
    """Make one JPEG of each of (B, 4, h, w) denoised estimates; the longest side stays within `LONG_SIDE`."""
    previews = []
    for image in to_images(decode(denoised)):
        image.thumbnail((LONG_SIDE, LONG_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_QUALITY)
        previews.append(buffer.getvalue())
    return previews


def _cells(values: Tensor) -> Tensor:
    """Flatten (B, C, h, w) to one line a cell, (B·h·w, C)."""
    return values.permute(0, 2, 3, 1).flatten(0, 2)
