"""From finished latents to a picture of the size that was asked for."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engine.geometry import Size
from engine.stages.encode_picture import decode_values


@torch.inference_mode()
def decode_latents(vae: Any, latents: Tensor, size: Size) -> Image.Image:
    """Decode one picture.

    Args:
        vae: An `AutoencoderKL`.
        latents: (1, 4, h, w) float32, as the VAE gives them (not × its scaling factor).
        size: What the file must have; a picture painted at another size is resized (Lanczos).

    Returns:
        RGB picture of exactly `size`. Values are cut off, not rounded, to whole numbers, as Fooocus does.
    """
    image = to_images(decode_values(vae, latents))[0]
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Turn (B, 3, H, W) values of -1 to 1 into RGB pictures; what lies outside is cut off."""
    return [Image.fromarray(item) for item in to_levels(pixels).cpu().numpy()]


def to_levels(pixels: Tensor) -> Tensor:
    """Turn (B, 3, H, W) values of -1 to 1 into (B, H, W, 3) of 0 to 255, where they are; what lies outside is cut off."""
    levels = ((pixels.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1)
