"""Control drawings at the size of the picture that they steer."""

import torch
from torch import Tensor

from engine.geometry import Size


def resize_hint(hint: Tensor, size: Size) -> Tensor:
    """Cut the middle of a drawing to the proportions of `size`, and resize it to that by its nearest pixels.

    Args:
        hint: (B, C, H, W) of any values.
        size: Of the picture: its latent's, times 8.

    Returns:
        (B, C, height, width), on the same device.
    """
    own = Size(hint.shape[3], hint.shape[2])
    left = top = 0
    if own.ratio > size.ratio:
        left = _margin(own.width, size.ratio / own.ratio)
    elif own.ratio < size.ratio:
        top = _margin(own.height, own.ratio / size.ratio)
    middle = hint[:, :, top : own.height - top, left : own.width - left]
    return torch.nn.functional.interpolate(middle, (size.height, size.width), mode="nearest-exact")


def _margin(side: int, kept: float) -> int:
    """Pixels to leave out at each end of a side, of which a share is kept and at least one pixel stays."""
    return min(round((side - side * kept) / 2), (side - 1) // 2)
