"""What a UNet is fed and what its answer means: one convention, so that samplers only ever see the denoised estimate.

Knows nothing of the UNet itself; every function works on float32 tensors and Python floats.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engine.sampling.schedules import LAST_TIMESTEP


def scale_input(x: Tensor, sigma: float) -> Tensor:
    """Bring noisy latents to variance 1, as the UNet expects them: ``x / sqrt(sigma² + 1)``."""
    return x / math.sqrt(sigma**2 + 1)


def denoised_from_epsilon(x: Tensor, prediction: Tensor, sigma: float) -> Tensor:
    """Take the predicted noise off: ``x - sigma · prediction``, where x is not yet scaled."""
    return x - prediction * sigma


def denoised_from_v(x: Tensor, prediction: Tensor, sigma: float) -> Tensor:
    """Read a velocity (Salimans and Ho 2022): ``x / (sigma² + 1) - prediction · sigma / sqrt(sigma² + 1)``."""
    return x / (sigma**2 + 1) - prediction * (sigma / math.sqrt(sigma**2 + 1))


PREDICTIONS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "epsilon": denoised_from_epsilon,
    "v_prediction": denoised_from_v,
}
"""From (x, prediction, sigma) to the denoised estimate, by diffusers' names of prediction types."""


def progress_at(timestep: int, dtype: torch.dtype = torch.float32) -> float:
    """Tell how far the noise is gone: 0 at timestep 999, 1 at timestep 0.

    Args:
        timestep: 0 to 999.
        dtype: Precision of the arithmetic. Fooocus computes it in that of the UNet, so float16 gives its steps.
    """
    return float(1.0 - torch.tensor(timestep, dtype=dtype) / LAST_TIMESTEP)
