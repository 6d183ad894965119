"""The samplers by name. Each is a coroutine: it yields `Ask`, is sent the denoised estimate, and returns the final latents.

They know nothing of models, guidance or devices; noise comes from a source they are given, and noise levels are
Python floats. One that is closed half-way leaves nothing behind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from engine.sampling.distilled import lcm, tcd
from engine.sampling.euler import (
    dpm_2,
    dpm_2_ancestral,
    euler,
    euler_ancestral,
    heun,
    heunpp2,
    restart,
)
from engine.sampling.levels import NoiseLevels
from engine.sampling.multistep import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde, lms
from engine.sampling.singlestep import dpm_adaptive, dpm_fast, dpmpp_2s_ancestral, dpmpp_sde
from engine.sampling.unipc import uni_pc, uni_pc_bh2
from engine.sampling.walk import NoiseSource, Sampling, Sigmas

Run = Callable[[Tensor, Sigmas, NoiseSource, NoiseLevels], Sampling]


@dataclass(frozen=True, slots=True)
class Sampler:
    """A way down the noise levels, and what it needs on the way."""

    run: Run
    """Starts it: on latents (B, 4, h, w) float32 noised to the first level, levels to walk down, a source of noise, and the
    levels the model was trained on. Fewer than two levels to walk give the latents back at once."""
    noise: Literal["none", "independent", "brownian"] = "none"
    """Which noise its source must give: none (it is never called), new for each step, or of one Brownian path."""
    spare_step: Literal["never", "sampling", "always"] = "never"
    """When its lists are made with one step more and lose the last level but one: never, only those it walks itself,
    or also those that Fooocus makes elsewhere (the path's ends, the second pass of a refiner)."""
    overlooks_masks: bool = False
    """Whether Fooocus leaves the kept part of an inpainted picture unblended with it."""


def _on_any_levels(
    run: Callable[[Tensor, Sigmas, NoiseSource], Sampling],
) -> Run:
    """Let a sampler that needs only the levels it walks be started like one that knows the model's."""
    return lambda x, sigmas, noise, levels: run(x, sigmas, noise)


_EULER = Sampler(_on_any_levels(euler))
_SDE = Sampler(_on_any_levels(dpmpp_sde), "brownian")
_2M_SDE = Sampler(_on_any_levels(dpmpp_2m_sde), "brownian")
_3M_SDE = Sampler(_on_any_levels(dpmpp_3m_sde), "brownian")
_ANCESTRAL = Sampler(_on_any_levels(euler_ancestral), "independent")

SAMPLERS: Mapping[str, Sampler] = {
    "euler": _EULER,
    "euler_ancestral": _ANCESTRAL,
    "heun": Sampler(_on_any_levels(heun)),
    "heunpp2": Sampler(_on_any_levels(heunpp2)),
    "dpm_2": Sampler(_on_any_levels(dpm_2), spare_step="always"),
    "dpm_2_ancestral": Sampler(_on_any_levels(dpm_2_ancestral), "independent", spare_step="always"),
    "lms": Sampler(_on_any_levels(lms)),
    "dpm_fast": Sampler(_on_any_levels(dpm_fast)),
    "dpm_adaptive": Sampler(_on_any_levels(dpm_adaptive)),
    "dpmpp_2s_ancestral": Sampler(_on_any_levels(dpmpp_2s_ancestral), "independent"),
    "dpmpp_sde": _SDE,
    "dpmpp_sde_gpu": _SDE,
    "dpmpp_2m": Sampler(_on_any_levels(dpmpp_2m)),
    "dpmpp_2m_sde": _2M_SDE,
    "dpmpp_2m_sde_gpu": _2M_SDE,
    "dpmpp_3m_sde": _3M_SDE,
    "dpmpp_3m_sde_gpu": _3M_SDE,
    "ddpm": _ANCESTRAL,
    "lcm": Sampler(_on_any_levels(lcm), "independent"),
    "tcd": Sampler(tcd, "independent"),
    "restart": Sampler(_on_any_levels(restart), "independent"),
    "ddim": _EULER,
    "uni_pc": Sampler(_on_any_levels(uni_pc), spare_step="sampling", overlooks_masks=True),
    "uni_pc_bh2": Sampler(_on_any_levels(uni_pc_bh2), spare_step="sampling", overlooks_masks=True),
}
"""Samplers by the names Fooocus gives them, in its order. ``_gpu`` ones are the same: their noise never depended on the
device. ``ddim`` is Euler's step, and ``ddpm`` the ancestral one, in other words."""
