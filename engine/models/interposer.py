"""The network that turns SDXL's latents into those of SD 1.5, so that a picture needn't be decoded and encoded between.

Its layout is that of the file ``xl-to-v1_interposer-v4.0.safetensors``.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.errors import ModelIncompatible
from engine.models.tensors import read_tensors

CHANNELS = 4


class _Body(nn.Sequential):
    """Three convolutions with SiLU between them."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )


class _Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.short = nn.Conv2d(CHANNELS, channels, 3, padding=1)
        self.long = _Body(CHANNELS, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.long(x) + self.short(x))


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.long = _Body(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return torch.relu(self.long(x) + x)


class Interposer(nn.Module):
    """A small residual network on latents that are not scaled: (B, 4, h, w) to the same shape."""

    def __init__(self, channels: int = 64, blocks: int = 12) -> None:
        super().__init__()
        self.head = _Head(channels)
        self.core = nn.Sequential(
            nn.Identity(),  # where versions for other resolutions resize
            *(_Block(channels) for _ in range(blocks)),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
        )
        self.tail = nn.Conv2d(channels, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn latents of SDXL's VAE into those of SD 1.5's."""
        out: Tensor = self.tail(self.core(self.head(x)))
        return out


def build_interposer(weights: Mapping[str, Tensor]) -> Interposer:
    """Build the network from its weights, in evaluation mode.

    Raises:
        ModelIncompatible: they are not an interposer's.
    """
    first = weights.get("head.short.weight")
    if first is None or first.ndim == 0:
        raise ModelIncompatible("expected the weights of a latent interposer, without head.short")
    blocks = sum(key.endswith(".long.0.weight") for key in weights) - 1
    network = Interposer(first.shape[0], blocks)
    own = network.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    needed = set(own) - counters
    if not needed <= set(weights) <= needed | counters:
        raise ModelIncompatible("expected the weights of a latent interposer, with other layers")
    for key in sorted(needed):
        found, wanted = tuple(weights[key].shape), tuple(own[key].shape)
        if found != wanted:
            problem = f"expected the weights of a latent interposer, with {key} of shape {wanted}"
            raise ModelIncompatible(f"{problem}, got {found}")
    network.load_state_dict({key: weights[key] for key in needed}, strict=False)
    return network.eval().requires_grad_(requires_grad=False)


def load_interposer(path: Path) -> Interposer:
    """Read the network from a safetensors file, in float32 on the CPU.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: the file is not an interposer.
    """
    tensors = read_tensors(path)
    try:  # copies, since a mapped file may change
        return build_interposer(
            {key: value.to(torch.float32, copy=True) for key, value in tensors.items()}
        )
    except ModelIncompatible as error:
        raise ModelIncompatible(f"{path.name}: {error}") from error
