"""Guidance: from a prediction with the prompt and one against it to the estimate that the sampler sees.

Pure functions of tensors. Many images may be guided at once; each gets the numbers it would get alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.plan import Guidance

SHARPNESS_UNIT = 0.001
"""How much of the smoothed prediction one unit of sharpness mixes in when all noise is gone."""

FILTER_RADIUS = 6
"""Latent cells the filter looks to each side; the latents must be larger than this."""

FILTER_SIGMA = 3.0
"""Standard deviation of both Gaussians of the filter: in cells, and in normalised latent values."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What is known of one image at one step before guidance; tensors are (B, 4, h, w) float32."""

    x: Tensor
    """Noisy latents that the model was asked about, before input scaling."""
    positive: Tensor
    """Denoised estimate with the prompt."""
    negative: Tensor | None
    """Denoised estimate with the negative prompt; None where `guidance` needs none."""
    progress: float
    """Share of the timesteps done, 0 to 1."""
    guidance: Guidance

    @property
    def smoothing(self) -> float:
        """Share of the smoothed prediction in the positive one; 0 leaves the filter out."""
        return (
            0.0
            if self.negative is None
            else SHARPNESS_UNIT * self.guidance.sharpness * self.progress
        )


def guide(images: Sequence[Estimates]) -> list[Tensor]:
    """Combine both branches of each image (classifier-free guidance with adaptive scale and sharpness).

    With ``e = x - denoised`` of each branch, ``e+`` smoothed by the share ``0.001 · sharpness · progress``:
    ``e = e- + w (e+ - e-)``, and above the adaptive scale a, ``w`` rises with progress from a to the guidance scale.

    Args:
        images: Of any count, all with latents of one shape.

    Returns:
        The guided denoised estimate of each image, in order; the positive one itself where there is no negative.

    Source: Ho and Salimans 2022, https://arxiv.org/abs/2207.12598, eq. 6.
    """
    smoothed = _smooth([image for image in images if image.smoothing])
    return [_combine(image, smoothed.pop(0) if image.smoothing else None) for image in images]


def joint_bilateral_filter(x: Tensor, guide: Tensor) -> Tensor:
    """Smooth x where the guide is smooth, and keep the edges of the guide.

    A window of 13 × 13 cells with reflected borders; weights fall with the distance and with the difference (summed
    over the channels) of the guide, which is first normalised to mean 0 and standard deviation 1 for each sample.

    Args:
        x: (B, C, h, w) float32, h and w above 6.
        guide: Same shape.

    Returns:
        (B, C, h, w) float32; the weights are the same for all channels and sum to 1.

    Raises:
        ValueError: the latents are too small.

    Source: Petschnigg et al. 2004 (joint bilateral filter), https://doi.org/10.1145/1015706.1015777
    """
    height, width = x.shape[-2:]
    if min(height, width) <= FILTER_RADIUS:
        raise ValueError(
            f"latents: expected sides above {FILTER_RADIUS} cells, got {width}x{height}"
        )
    guide = torch.stack([(g - g.mean()) / (g.std() + 1e-5) for g in guide])
    # A channel of ones sums the weights in the same pass.
    values = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    pad = (FILTER_RADIUS,) * 4
    padded_values = torch.nn.functional.pad(values, pad, mode="reflect")
    padded_guide = torch.nn.functional.pad(guide, pad, mode="reflect")
    total = torch.zeros_like(values)
    for row, row_weight in enumerate(_gaussian()):
        windows = [
            (..., slice(row, row + height), slice(column, column + width))
            for column in range(2 * FILTER_RADIUS + 1)
        ]
        # A row of offsets at once: on a GPU the calls cost more than the numbers.
        neighbours = torch.stack([padded_guide[window] for window in windows])  # (13, B, C, h, w)
        difference = neighbours.sub_(guide).abs_().sum(2, keepdim=True)
        weights = difference.square_().mul_(-0.5 / FILTER_SIGMA**2).exp_()
        for window, weight, column_weight in zip(windows, weights, _gaussian(), strict=True):
            total.addcmul_(padded_values[window], weight, value=row_weight * column_weight)
    return total[:, :-1] / total[:, -1:]


def _smooth(images: Sequence[Estimates]) -> list[Tensor]:
    """Filter the positive branch of several images in one pass."""
    if not images:
        return []
    noise = torch.cat([image.x - image.positive for image in images])
    smoothed = joint_bilateral_filter(noise, torch.cat([image.positive for image in images]))
    return list(torch.split(smoothed, [len(image.x) for image in images]))


def _combine(image: Estimates, smoothed: Tensor | None) -> Tensor:
    if image.negative is None:
        return image.positive
    w, adaptive = image.guidance.guidance_scale, image.guidance.adaptive_cfg
    if smoothed is None and w <= adaptive:
        # x cancels out, and at the noise levels of zero-SNR models would take digits with it.
        return image.negative + w * (image.positive - image.negative)
    positive, negative = image.x - image.positive, image.x - image.negative
    if smoothed is not None:
        positive = image.smoothing * smoothed + (1 - image.smoothing) * positive
    guided = negative + w * (positive - negative)
    if w > adaptive:
        mimicked = negative + adaptive * (positive - negative)
        guided = image.progress * guided + (1 - image.progress) * mimicked
    return image.x - guided


def _gaussian() -> list[float]:
    """Weights of the window along one side, not normalised: the filter divides by their sum."""
    offsets = range(-FILTER_RADIUS, FILTER_RADIUS + 1)
    return [math.exp(-0.5 * (offset / FILTER_SIGMA) ** 2) for offset in offsets]
