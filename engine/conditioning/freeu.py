"""FreeU, version 2: more of a UNet's backbone, less of the low frequencies of its skips.

Applied by hooks around one call, so that other calls of the same UNet never see it.

Source: Si et al. 2023, https://arxiv.org/abs/2309.11497
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.plan import FreeU


def apply_freeu(hidden: Tensor, skip: Tensor, *, b: float, s: float) -> tuple[Tensor, Tensor]:
    """Change what goes into one block on the way up.

    Args:
        hidden: (B, C, h, w) from the block below. The first half of its channels is multiplied by a map that runs, for
            each picture, from 1 where their mean is lowest to b where it is highest.
        skip: (B, D, h, w) from the way down. Its four lowest frequencies are multiplied by s.
        b: Factor of the backbone.
        s: Factor of the skip.
    """
    mean = hidden.mean(1, keepdim=True)
    low, high = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
    tiny = torch.finfo(mean.dtype).tiny  # where the map is flat
    strength = (b - 1) * (mean - low) / (high - low).clamp_min(tiny) + 1
    half = hidden.shape[1] // 2
    hidden = torch.cat([hidden[:, :half] * strength, hidden[:, half:]], 1)
    return hidden, _scale_low_frequencies(skip, s)


@contextmanager
def freeu_around(unet: Any, freeu: FreeU | None) -> Iterator[None]:
    """Let calls inside the context use FreeU; with None they are plain calls.

    The deepest width of the UNet takes b1 and s1, the next one b2 and s2 (SDXL: 1280 and 640 channels).

    Args:
        unet: A `UNet2DConditionModel`.
        freeu: The factors.
    """
    hooks = [] if freeu is None else list(_hooks(unet, freeu))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hooks(unet: Any, freeu: FreeU) -> Iterator[Any]:
    widths = sorted(set(unet.config.block_out_channels), reverse=True)
    factors = dict(zip(widths, ((freeu.b1, freeu.s1), (freeu.b2, freeu.s2)), strict=False))
    below = unet.config.block_out_channels[-1]
    for block in unet.up_blocks:
        for resnet in block.resnets:
            if below in factors:
                b, s = factors[below]
                hook = partial(_change_input, channels=below, b=b, s=s)
                yield resnet.register_forward_pre_hook(hook)
            below = resnet.out_channels


def _change_input(
    module: Any, args: tuple[Tensor, ...], *, channels: int, b: float, s: float
) -> tuple[Tensor, ...]:
    """Take a block's input, which is backbone and skip side by side, apart and together again."""
    joined, *rest = args
    hidden, skip = apply_freeu(joined[:, :channels], joined[:, channels:], b=b, s=s)
    return (torch.cat([hidden, skip], 1), *rest)


def _scale_low_frequencies(x: Tensor, factor: float) -> Tensor:
    """Multiply the 2 × 2 frequencies around the middle of the shifted spectrum."""
    frequencies = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=(-2, -1)), dim=(-2, -1))
    row, column = x.shape[-2] // 2, x.shape[-1] // 2
    frequencies[..., row - 1 : row + 1, column - 1 : column + 1] *= factor
    back = torch.fft.ifftn(torch.fft.ifftshift(frequencies, dim=(-2, -1)), dim=(-2, -1))
    scaled: Tensor = back.real.to(x.dtype)
    return scaled
