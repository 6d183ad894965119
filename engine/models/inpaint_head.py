"""The inpaint head: one convolution that tells a UNet where the hole is and what lies around it.

What it gives is added to the output of the UNet's first convolution, for those rows of a call that have it. It depends on neither
the noise nor the step, so it is worked out once for an image and travels with its rows: `WideInput` takes it in as further channels.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ModelIncompatible
from engine.models.tensors import read_tensors

_CHANNELS_IN = 5
"""The mask, and the four channels of a picture with its hole grey."""
_KERNEL = (3, 3)


class WideInput(nn.Conv2d):
    """A UNet's first convolution that takes, as further channels, what is to be added to its output.

    (B, in, h, w) is an ordinary call. In (B, in + out, h, w) the last channels are added to the output, so that rows with an
    addition and rows without share a call. It holds nothing between calls.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As the class says; (B, out, h, w)."""
        answer = super().forward(x[:, : self.in_channels])
        return answer if x.shape[1] == self.in_channels else answer + x[:, self.in_channels :]


def widen_input(unet: Any) -> None:
    """Let a `UNet2DConditionModel` take additions; its weights stay the same tensors, under the same names."""
    plain = unet.conv_in
    if isinstance(plain, WideInput):
        return
    with torch.device("meta"):
        wide = WideInput(
            plain.in_channels, plain.out_channels, plain.kernel_size, plain.stride, plain.padding
        )
    wide.weight, wide.bias = plain.weight, plain.bias
    unet.conv_in = wide.train(plain.training)


def with_additions(x: Tensor, additions: Sequence[Tensor | None]) -> Tensor:
    """Put additions beside the rows of a UNet call; a call without any stays as it is.

    Args:
        x: (rows, 4, h, w).
        additions: For each row (1, channels, h, w), or None.

    Returns:
        What a UNet with `WideInput` is given.
    """
    known = next((addition for addition in additions if addition is not None), None)
    if known is None:
        return x
    nothing = torch.zeros_like(known)
    rows = [nothing if addition is None else addition for addition in additions]
    return torch.cat([x, torch.cat(rows).to(x)], 1)


def head_addition(head: Tensor, mask: Tensor, masked: Tensor) -> Tensor:
    """Work out what is added for one image.

    Args:
        head: (channels, 5, 3, 3) float32.
        mask: (1, 1, h, w): 1 where something is painted.
        masked: (1, 4, h, w): latents of the picture with its hole grey, as the UNet knows them.

    Returns:
        (1, channels, h, w) float32 on the CPU.
    """
    told = torch.cat([mask, masked], 1).float().cpu()
    return functional.conv2d(functional.pad(told, (1, 1, 1, 1), mode="replicate"), head)


def load_inpaint_head(
    path: Path,
    channels: int,
    *,
    allow_pickle: bool = False,
    known_sha256: Collection[str] = (),
) -> Tensor:
    """Read a head from a file that holds one tensor, by the name ``head`` or without a name.

    Args:
        path: A safetensors file, or a pickled one.
        channels: Width of the UNet's first block; SDXL: 320.
        allow_pickle: Whether any pickled file may be read.
        known_sha256: Pickled files that may be read in any case.

    Returns:
        (channels, 5, 3, 3) float32 on the CPU.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it is no head, one for another model, broken, or pickled and not allowed.
    """
    tensors = read_tensors(path, allow_pickle=allow_pickle, known_sha256=known_sha256)
    wanted = (channels, _CHANNELS_IN, *_KERNEL)
    if len(tensors) != 1:
        problem = f"expected an inpaint head, one tensor, got {len(tensors)} tensors"
        raise ModelIncompatible(f"{path.name}: {problem}")
    (head,) = tensors.values()
    if tuple(head.shape) != wanted:
        problem = f"expected an inpaint head of shape {wanted}, got {tuple(head.shape)}"
        raise ModelIncompatible(f"{path.name}: {problem}")
    return head.float().clone()
