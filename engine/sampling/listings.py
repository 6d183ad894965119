"""The schedulers of diffusers, by the names fal gives them: their noise levels, what the UNet is told, and who walks them.

They are those that diffusers makes of SDXL's own configuration: leading spacing with an offset of 1, final level 0. Numbers are
those of diffusers to the last bits; noise levels are ours, latents divided by the signal's share. Knows nothing of UNets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from engine.sampling.distilled import tcd
from engine.sampling.euler import ddim
from engine.sampling.latent_format import SDXL, LatentFormat
from engine.sampling.levels import LAST_TIMESTEP, ListedLevels, NoiseTable, diffusers_table
from engine.sampling.prediction import PREDICTIONS, ModelSampling, consistency, scale_input
from engine.sampling.samplers import SAMPLERS, Sampler
from engine.sampling.walk import Sigmas, to_float32
from engine.schedulers import DISTILLED_STEPS, check_steps
from engine.studio import StudioScheduler

TRAINED_STEPS = LAST_TIMESTEP + 1
RHO = 7.0
"""How strongly Karras' levels gather at low noise."""


def _leading(n: int) -> list[int]:
    """Space timesteps at a whole stride, from 1 up."""
    stride = TRAINED_STEPS // n
    return [1 + stride * i for i in reversed(range(n))]


def _leading_solver(n: int) -> list[int]:
    """Space them as if there were one step more, and leave the last one out."""
    return _leading(n + 1)[:-1]


def _trailing(n: int) -> list[int]:
    """Space them evenly, from 999 down; at 61, 103, 121 and 122 steps diffusers adds one at -1.

    The stride is rounded as numpy rounds it, which decides where a timestep lies half-way.
    """
    stride = TRAINED_STEPS - (TRAINED_STEPS - TRAINED_STEPS / n)
    return [round(TRAINED_STEPS - i * stride) - 1 for i in range(n)]


def _distilled(n: int) -> list[int]:
    """Take n of the timesteps that LCM and TCD models were distilled at, from 999 down."""
    stride = TRAINED_STEPS // DISTILLED_STEPS
    places = (math.floor(i * (DISTILLED_STEPS / n)) for i in range(n))
    return [LAST_TIMESTEP - stride * place for place in places]


def _karras(n: int, table: NoiseTable) -> list[float]:
    """Space levels over all that the model knows, evenly in the 7th root (Karras et al. 2022, eq. 5)."""
    low, high = table.sigma_min ** (1 / RHO), table.sigma_max ** (1 / RHO)
    return [(high + i / max(1, n - 1) * (low - high)) ** RHO for i in range(n)]


@dataclass(frozen=True, slots=True)
class _Scheduler:
    """One of diffusers' classes, and its settings."""

    sampler: Callable[[float], Sampler]
    """Makes the sampler for an eta."""
    spacing: Callable[[int], list[int]] | None
    """Lists n timesteps; None is Karras' spacing of levels."""
    tells_whole: bool = True
    """Whether timesteps are rounded where they lie between those of the training."""
    starts_at_variance_1: bool = True
    """Whether noise starts out with the variance of noisy latents; else with that of the noise in them."""
    is_consistent: bool = False
    """Whether answers are read as those of LCM models."""


def _always(sampler: Sampler) -> Callable[[float], Sampler]:
    return lambda eta: sampler


_2M = _always(SAMPLERS["dpmpp_2m"])
_2M_SDE = _always(replace(SAMPLERS["dpmpp_2m_sde"], noise="independent"))
_EULER = _always(SAMPLERS["euler"])
_LCM = _Scheduler(_always(SAMPLERS["lcm"]), _distilled, is_consistent=True)

_SCHEDULERS: Mapping[StudioScheduler, _Scheduler] = {
    "DPM++ 2M": _Scheduler(_2M, _leading_solver),
    "DPM++ 2M Karras": _Scheduler(_2M, None),
    "DPM++ 2M SDE": _Scheduler(_2M_SDE, _leading_solver),
    "DPM++ 2M SDE Karras": _Scheduler(_2M_SDE, None),
    "Euler": _Scheduler(_EULER, _leading, tells_whole=False),
    "Euler A": _Scheduler(_always(SAMPLERS["euler_ancestral"]), _leading, tells_whole=False),
    "Euler (trailing timesteps)": _Scheduler(
        _EULER, _trailing, tells_whole=False, starts_at_variance_1=False
    ),
    "LCM": _LCM,
    "LCM (trailing timesteps)": _LCM,  # diffusers' LCM has one spacing
    "DDIM": _Scheduler(lambda eta: Sampler(partial(ddim, eta=eta), "independent"), _leading),
    "TCD": _Scheduler(lambda eta: Sampler(partial(tcd, share=1 - eta), "independent"), _distilled),
}


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Listing:
    """One walk down the noise as diffusers makes it."""

    levels: ListedLevels
    """The levels, and what the UNet is told at each."""
    sampler: Sampler
    """Who walks them down."""
    start_scale: float
    """What noise of variance 1 is multiplied by at the start."""
    is_consistent: bool
    """Whether answers are read as those of LCM models."""

    @property
    def sigmas(self) -> Sigmas:
        """The levels that are walked down, falling to 0."""
        return self.levels.sigmas

    def model_sampling(
        self, prediction_type: str = "epsilon", latent_format: LatentFormat = SDXL
    ) -> ModelSampling:
        """Settle how a model is sampled on it.

        Args:
            prediction_type: A key of `PREDICTIONS`.
            latent_format: The checkpoint's own.
        """
        read = PREDICTIONS[prediction_type]
        if self.is_consistent:
            read = consistency(read, self.levels, kept=scale_input)
        return ModelSampling(self.levels, scale_input, read, latent_format)


def listing(
    scheduler: StudioScheduler,
    n: int,
    *,
    timesteps: Sequence[int] = (),
    sigmas: Sequence[float] = (),
    eta: float = 0.0,
    is_zero_snr: bool = False,
) -> Listing:
    """List the noise levels of one image as a scheduler of diffusers does, and choose who walks them.

    Args:
        scheduler: By fal's name.
        n: Number of steps, at least 1; of no effect beside a list.
        timesteps: Falling, 999 to 0: taken in place of the scheduler's own, with any of them.
        sigmas: Falling, above 0 but for a last 0, which is added where it is not: taken likewise. One list at most.
        eta: Of DDIM and TCD: how much of a step is new noise, 0 to 1; others do not look at it.
        is_zero_snr: Whether the levels are rescaled so that the highest one is noise alone.

    Raises:
        InvalidRequest: more steps than a distilled model has, or lists that are none.
    """
    check_steps(scheduler, n, timesteps, sigmas)
    settings, table = _SCHEDULERS[scheduler], diffusers_table(is_zero_snr=is_zero_snr)
    if not sigmas and not timesteps and settings.spacing is not None:
        timesteps = settings.spacing(n)
    if timesteps:
        told: list[float] = [float(timestep) for timestep in timesteps]
        walked = [float(table.sigmas[timestep]) for timestep in timesteps]
    else:
        exact = [sigma for sigma in sigmas if sigma > 0] or _karras(n, table)
        told = [table.timestep_between(sigma) for sigma in exact]
        told = [float(round(timestep)) if settings.tells_whole else timestep for timestep in told]
        walked = [to_float32(sigma) for sigma in exact]
    first = walked[0]
    return Listing(
        levels=ListedLevels((*walked, 0.0), tuple(told), table),
        sampler=settings.sampler(eta),
        start_scale=math.sqrt(1 + first**2) if settings.starts_at_variance_1 else first,
        is_consistent=settings.is_consistent,
    )
