"""The schedulers of diffusers that fal's names stand for, made of SDXL's own configuration: what ours is measured against."""

from typing import Any

import diffusers

SDXL_CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "interpolation_type": "linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "use_karras_sigmas": False,
}
"""What the scheduler of the SDXL base model is configured with."""

_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", _KARRAS),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", _SDE),
    "DPM++ 2M SDE Karras": ("DPMSolverMultistepScheduler", {**_SDE, **_KARRAS}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler A": ("EulerAncestralDiscreteScheduler", {}),
    "Euler (trailing timesteps)": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "LCM": ("LCMScheduler", {}),
    "LCM (trailing timesteps)": ("LCMScheduler", {"timestep_spacing": "trailing"}),
    "DDIM": ("DDIMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
}
"""Class and settings by fal's name."""


def stock_scheduler(
    name: str, *, prediction_type: str = "epsilon", is_zero_snr: bool = False
) -> Any:
    """Make one.

    DDIM, LCM and TCD leave no signal at all at the first of zero-SNR levels, and divide by it; they are given as much as
    the others have.
    """
    class_name, settings = STOCK[name]
    config = {
        **SDXL_CONFIG,
        "prediction_type": prediction_type,
        "rescale_betas_zero_snr": is_zero_snr,
        **settings,
    }
    scheduler = getattr(diffusers, class_name).from_config(config)
    if is_zero_snr:
        scheduler.alphas_cumprod[-1] = 2**-24
    return scheduler
