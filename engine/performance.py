"""The performance modes: named bundles of steps, sampler and a step-distilled LoRA.

`engine.settle.plan` settles them; no stage ever asks which mode is on. Knows nothing of what else a plan holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.requests import Performance, SamplerName, SchedulerName


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """What a mode of few steps sets besides their number; guidance, sharpness and size scales go off with it."""

    lora: str
    """File name of the LoRA that makes few steps enough, for SDXL."""
    scale: float
    sampler: SamplerName
    scheduler: SchedulerName


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One performance mode (reference: Fooocus 2.5.5)."""

    steps: int
    upscale_steps: int
    """Steps when a picture is made larger."""
    distilled: Distilled | None = None
    """None leaves sampler, guidance and the rest as they are asked for."""


MODES: Mapping[Performance, Mode] = {
    "Quality": Mode(steps=60, upscale_steps=36),
    "Speed": Mode(steps=30, upscale_steps=18),
    "Extreme Speed": Mode(
        steps=8,
        upscale_steps=8,
        distilled=Distilled(
            lora="sdxl_lcm_lora.safetensors", scale=1.0, sampler="lcm", scheduler="lcm"
        ),
    ),
    "Lightning": Mode(
        steps=4,
        upscale_steps=4,
        distilled=Distilled(
            lora="sdxl_lightning_4step_lora.safetensors",
            scale=1.0,
            sampler="euler",
            scheduler="sgm_uniform",
        ),
    ),
    "Hyper-SD": Mode(
        steps=4,
        upscale_steps=4,
        distilled=Distilled(
            lora="sdxl_hyper_sd_4step_lora.safetensors",
            scale=0.8,
            sampler="dpmpp_sde_gpu",
            scheduler="karras",
        ),
    ),
}
"""The modes, slowest first."""
