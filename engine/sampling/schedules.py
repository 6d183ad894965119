"""The lists of noise levels that samplers walk down.

A list is a tuple of Python floats, falling, usually ending in 0, so that a sampler never waits for a device. The numbers
are those of float32 arithmetic on the CPU, as Fooocus has them. Knows nothing of samplers.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engine.sampling.levels import TrainedLevels, sdxl_table

AYS_SDXL: tuple[float, ...] = (
    *(14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141),
    *(0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
)
"""Align your steps for SDXL (Sabour et al. 2024, https://arxiv.org/abs/2404.14507): ten steps, found by search."""
AYS_SD15: tuple[float, ...] = (
    *(14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092),
    *(0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
)
"""The same for SD 1.5."""


def karras(table: TrainedLevels, n: int) -> tuple[float, ...]:
    """Gather the levels at low noise: evenly spaced in the 7th root (Karras et al. 2022, eq. 5)."""
    return (*karras_ramp(n, sigma_min=table.sigma_min, sigma_max=table.sigma_max), 0.0)


def karras_ramp(
    n: int, *, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> tuple[float, ...]:
    """Space noise levels so that steps gather where they matter, at low noise.

    Args:
        n: Number of levels, at least 1; a single one is `sigma_max`.
        sigma_min: Lowest noise level, above 0.
        sigma_max: Highest noise level, above `sigma_min`.
        rho: How strongly the levels gather; the paper uses 7.

    Returns:
        n levels from `sigma_max` down to `sigma_min`, computed in float32.

    Source: Karras et al. 2022, eq. 5, https://arxiv.org/abs/2206.00364
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    levels = (high + torch.linspace(0, 1, n) * (low - high)) ** rho
    return tuple(levels.tolist())


def exponential(table: TrainedLevels, n: int) -> tuple[float, ...]:
    """Space the levels evenly in the logarithm."""
    levels = torch.linspace(math.log(table.sigma_max), math.log(table.sigma_min), n).exp()
    return (*levels.tolist(), 0.0)


def normal(table: TrainedLevels, n: int) -> tuple[float, ...]:
    """Space the timesteps evenly, from the last to the first."""
    timesteps = torch.linspace(table.last_timestep, table.first_timestep, n)
    return (*map(table.sigma, timesteps.tolist()), 0.0)


def sgm_uniform(table: TrainedLevels, n: int) -> tuple[float, ...]:
    """Space the timesteps evenly as if there were one step more, and leave that one out."""
    timesteps = torch.linspace(table.last_timestep, table.first_timestep, n + 1)[:-1]
    return (*map(table.sigma, timesteps.tolist()), 0.0)


def simple(table: TrainedLevels, n: int) -> tuple[float, ...]:
    """Take every so-manieth entry of the table, from the top."""
    size = len(table.sigmas)
    return (*(float(table.sigmas[size - 1 - int(i * size / n)]) for i in range(n)), 0.0)


def ddim_uniform(table: TrainedLevels, n: int) -> tuple[float, ...]:
    """Take entries of the table at a whole stride from the second on: n of them, or some more."""
    size = len(table.sigmas)
    return (*reversed(table.sigmas[1 :: max(1, size // n)].tolist()), 0.0)


def turbo(table: TrainedLevels, n: int) -> tuple[float, ...]:
    """Take the timesteps 999, 899, ... that SDXL Turbo was distilled at; there are ten."""
    return (*(table.sigma(999 - 100 * i) for i in range(min(n, 10))), 0.0)


def align_your_steps(table: TrainedLevels, n: int) -> tuple[float, ...]:
    """Take the levels found for SDXL, log-linear between them where there are not ten steps."""
    return _interpolated(AYS_SDXL, n)


def align_your_steps_sd15(table: TrainedLevels, n: int) -> tuple[float, ...]:
    """Take the levels found for SD 1.5, log-linear between them where there are not ten steps."""
    return _interpolated(AYS_SD15, n)


def _interpolated(levels: tuple[float, ...], n: int) -> tuple[float, ...]:
    """Spread levels over n steps; the last becomes 0."""
    import numpy as np

    if n + 1 != len(levels):
        places = np.linspace(0, 1, len(levels)), np.linspace(0, 1, n + 1)
        levels = tuple(np.exp(np.interp(places[1], places[0], np.log(levels))).tolist())
    return (*torch.tensor(levels[:-1], dtype=torch.float32).tolist(), 0.0)


Schedule = Callable[[TrainedLevels, int], tuple[float, ...]]

SCHEDULES: Mapping[str, Schedule] = {
    "normal": normal,
    "karras": karras,
    "exponential": exponential,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
    "ddim_uniform": ddim_uniform,
    "lcm": sgm_uniform,
    "turbo": turbo,
    "align_your_steps": align_your_steps,
    "tcd": sgm_uniform,
    "edm_playground_v2.5": karras,
}
"""Spacings by the names Fooocus gives them, in its order; each gives n levels and the final 0. Those of distilled and EDM
models are common spacings of other levels (`engine.sampling.prediction.model_sampling`)."""

UNSAMPLED = ("turbo", "align_your_steps")
"""Spacings that Fooocus offers, but samples as ``normal``."""


def schedule(
    name: str,
    levels: TrainedLevels,
    n: int,
    *,
    strength: float = 1.0,
    spare_step: bool = False,
    is_sd15: bool = False,
    as_fooocus: bool = False,
) -> tuple[float, ...]:
    """List the noise levels of n denoising steps.

    Args:
        name: A key of `SCHEDULES`.
        levels: The levels the model knows.
        n: Number of steps, at least 1.
        strength: Share of the noise that is taken off, above 0 and at most 1. Below 1 the n steps are the last of
            ``int(n / strength)``.
        spare_step: Whether the list is made with one step more and loses its last level but one, as samplers want it
            that look between levels.
        is_sd15: Whether the model is an SD 1.5 one: ``align_your_steps`` has other levels for it.
        as_fooocus: Keep its defects: ``turbo`` and ``align_your_steps`` are ``normal``, and what ``ddim_uniform`` has
            beyond n steps is cut off.

    Returns:
        n + 1 levels, falling, the last 0; of ``ddim_uniform`` some more, of ``turbo`` 11 at most.

    Raises:
        ValueError: an unknown name, no step, or a strength outside its range.
    """
    sampled = "normal" if as_fooocus and name in UNSAMPLED else name
    sigmas = named_levels(
        sampled, levels, n, strength=strength, spare_step=spare_step, is_sd15=is_sd15
    )
    return sub_range(sigmas, last=n) if as_fooocus else sigmas


def named_levels(
    name: str,
    levels: TrainedLevels,
    n: int,
    *,
    strength: float = 1.0,
    spare_step: bool = False,
    is_sd15: bool = False,
) -> tuple[float, ...]:
    """List the noise levels as the name says, uncut; arguments and errors are those of `schedule`."""
    if name not in SCHEDULES:
        raise ValueError(f"scheduler: expected one of {', '.join(SCHEDULES)}, got {name!r}")
    if n < 1:
        raise ValueError(f"num_inference_steps: expected at least 1, got {n}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength: expected above 0 and at most 1, got {strength}")
    is_whole = strength > 0.9999
    spacing = align_your_steps_sd15 if is_sd15 and name == "align_your_steps" else SCHEDULES[name]
    sigmas = spacing(levels, (n if is_whole else int(n / strength)) + spare_step)
    if spare_step:
        sigmas = (*sigmas[:-2], sigmas[-1])
    return sigmas if is_whole else sigmas[-(n + 1) :]


def path_ends(
    name: str, n: int, *, strength: float, sampled: tuple[float, ...], as_fooocus: bool = False
) -> tuple[float, float]:
    """Give the lowest and highest level of the Brownian path of an image.

    They are those of the named list on SDXL's own levels, also for distilled models, so that a seed keeps its picture.

    Args:
        name: A key of `SCHEDULES`.
        n: Number of steps.
        strength: As in `schedule`.
        sampled: The levels that are walked down. The path is made to cover them,
        as_fooocus: but not by Fooocus: its noise is 0 beyond the named list.
    """
    named = named_levels(name, sdxl_table(), n, strength=strength)
    covered = [sigma for sigma in (*named, *(() if as_fooocus else sampled)) if sigma > 0]
    return min(covered), max(covered)


def sub_range(
    sigmas: tuple[float, ...], *, first: int = 0, last: int | None = None, ends_clean: bool = True
) -> tuple[float, ...]:
    """Cut out the levels of steps `first` up to `last`.

    Args:
        sigmas: Levels, one more than there are steps.
        first: Steps that are left out at the start.
        last: Step to stop before, counted from the start of `sigmas`; None and numbers past the end mean the end.
        ends_clean: Whether levels that are cut short take off all noise in their last step (end in 0).

    Returns:
        The levels; empty where no step is left, so that the latents stay as they are.
    """
    if last is not None and last < len(sigmas) - 1:
        sigmas = (*sigmas[:last], 0.0 if ends_clean else sigmas[last])
    return sigmas[first:] if first < len(sigmas) - 1 else ()


def starts_from_pure_noise(sigma: float, table: TrainedLevels) -> bool:
    """Whether a first noise level is the highest the model knows, or above it."""
    return sigma > table.sigma_max or math.isclose(sigma, table.sigma_max, rel_tol=1e-5)


def initial_latents(noise: Tensor, latents: Tensor, sigma: float, table: TrainedLevels) -> Tensor:
    """Put noise on latents so that sampling can start.

    Args:
        noise: (B, 4, h, w) float32 with variance 1.
        latents: Same shape, × VAE `scaling_factor`; zeros where no picture is the start. Added even at full strength.
        sigma: First noise level.
        table: The levels the model knows.

    Returns:
        The noisy latents, same shape.
    """
    scale = math.sqrt(1 + sigma**2) if starts_from_pure_noise(sigma, table) else sigma
    return noise * scale + latents
