"""What lies between a VAE's latents and those a UNet works on."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LatentFormat:
    """A shift and a scale: ``(latents - mean) · scale / deviation``, with mean and deviation for each channel."""

    scale: float
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    def to_model(self, latents: Tensor) -> Tensor:
        """Turn the VAE's latents (B, 4, h, w) into the UNet's."""
        mean, deviation = self._channels(latents)
        return (latents - mean) * self.scale / deviation

    def to_vae(self, latents: Tensor) -> Tensor:
        """Turn the UNet's latents (B, 4, h, w) into the VAE's."""
        mean, deviation = self._channels(latents)
        return latents * deviation / self.scale + mean

    def _channels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = (
            torch.tensor(values, dtype=torch.float32)
            .to(like.device, non_blocking=True)
            .view(-1, 1, 1)
            for values in (self.mean, self.deviation)
        )
        return mean, deviation


SDXL = LatentFormat(0.13025)
SD15 = LatentFormat(0.18215)
PLAYGROUND = LatentFormat(
    0.5, mean=(-1.6574, 1.886, -1.383, 2.5155), deviation=(8.4927, 5.9022, 6.5498, 5.2299)
)
"""Playground v2.5."""
