"""What a UNet is fed and what its answer means: one convention, so that samplers only ever see the denoised estimate.

Knows nothing of the UNet itself; every function works on float32 tensors and Python floats.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.sampling.latent_format import PLAYGROUND, SDXL, LatentFormat
from engine.sampling.levels import (
    LAST_TIMESTEP,
    NoiseLevels,
    distilled_table,
    edm_levels,
    sdxl_table,
)

EDM_SPREAD = 0.5
"""Standard deviation of clean latents that EDM and LCM models reckon with."""
LCM_TIME_SCALE = 10.0

Reading = Callable[[Tensor, Tensor, float], Tensor]
"""From (x, prediction, sigma) to the denoised estimate; x is not yet scaled."""


def scale_input(x: Tensor, sigma: float) -> Tensor:
    """Bring noisy latents to variance 1, as the UNet expects them: ``x / sqrt(sigma² + 1)``."""
    return x / math.sqrt(sigma**2 + 1)


def denoised_from_epsilon(x: Tensor, prediction: Tensor, sigma: float) -> Tensor:
    """Take the predicted noise off: ``x - sigma · prediction``, where x is not yet scaled."""
    return x - prediction * sigma


def denoised_from_v(x: Tensor, prediction: Tensor, sigma: float) -> Tensor:
    """Read a velocity (Salimans and Ho 2022): ``x / (sigma² + 1) - prediction · sigma / sqrt(sigma² + 1)``."""
    return x / (sigma**2 + 1) - prediction * (sigma / math.sqrt(sigma**2 + 1))


def scale_edm_input(x: Tensor, sigma: float) -> Tensor:
    """The same for latents of standard deviation 1/2: ``x / sqrt(sigma² + 1/4)``."""
    return x / math.sqrt(sigma**2 + EDM_SPREAD**2)


def denoised_from_edm(x: Tensor, prediction: Tensor, sigma: float) -> Tensor:
    """Mix latents and answer (Karras et al. 2022, table 1): ``c_skip · x + c_out · prediction``, spread 1/2."""
    variance = sigma**2 + EDM_SPREAD**2
    skip, out = EDM_SPREAD**2 / variance, sigma * EDM_SPREAD / math.sqrt(variance)
    return x * skip + prediction * out


def consistency(
    read: Reading, levels: NoiseLevels, kept: Callable[[Tensor, float], Tensor] = lambda x, _: x
) -> Reading:
    """Wrap a reading as LCM models do, so that it is x itself where there is no noise (Luo et al. 2023, eq. 9).

    Args:
        read: The reading.
        levels: What is told of noise.
        kept: From (x, sigma) to what is kept of x: x as the sampler has it in Fooocus, at variance 1 in diffusers.
    """

    def denoised(x: Tensor, prediction: Tensor, sigma: float) -> Tensor:
        time = levels.timestep(sigma) * LCM_TIME_SCALE
        variance = time**2 + EDM_SPREAD**2
        skip, out = EDM_SPREAD**2 / variance, time / math.sqrt(variance)
        return read(x, prediction, sigma) * out + kept(x, sigma) * skip

    return denoised


PREDICTIONS: Mapping[str, Reading] = {
    "epsilon": denoised_from_epsilon,
    "v_prediction": denoised_from_v,
}
"""Readings by diffusers' names of prediction types."""


@dataclass(frozen=True, eq=False)
class ModelSampling:
    """How a model is sampled: its noise levels, what it is fed, what its answer means, what its latents are."""

    levels: NoiseLevels
    scale_input: Callable[[Tensor, float], Tensor]
    """From (x, sigma) to what the UNet is fed."""
    denoised: Reading
    latent_format: LatentFormat


def model_sampling(
    scheduler: str, prediction_type: str = "epsilon", latent_format: LatentFormat = SDXL
) -> ModelSampling:
    """Settle how a model is sampled on a scheduler: those of distilled and EDM models change more than the spacing.

    Args:
        scheduler: A key of `engine.sampling.schedules.SCHEDULES`.
        prediction_type: The checkpoint's own, a key of `PREDICTIONS`; an EDM scheduler overrules it.
        latent_format: The checkpoint's own; an EDM scheduler overrules it.
    """
    if scheduler == "edm_playground_v2.5":
        return ModelSampling(edm_levels(), scale_edm_input, denoised_from_edm, PLAYGROUND)
    read, levels = PREDICTIONS[prediction_type], sdxl_table()
    if scheduler in ("lcm", "tcd"):
        levels = distilled_table(levels)
    if scheduler == "lcm":
        read = consistency(read, levels)
    return ModelSampling(levels, scale_input, read, latent_format)


def progress_at(timestep: float, dtype: torch.dtype = torch.float32) -> float:
    """Tell how far the noise is gone: 0 at timestep 999, 1 at timestep 0.

    Args:
        timestep: 0 to 999; of EDM models -1.6 to 1.2, so that nearly all counts as gone from the start.
        dtype: Precision of the arithmetic. Fooocus computes it in that of the UNet, so float16 gives its steps.
    """
    return float(1.0 - torch.tensor(timestep, dtype=dtype) / LAST_TIMESTEP)
