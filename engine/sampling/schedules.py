"""Noise levels: the model's own table of them, and the lists that samplers walk down.

A list is a tuple of Python floats, falling, usually ending in 0, so that a sampler never waits for a device. The numbers
are those of float32 arithmetic on the CPU, as Fooocus has them. Knows nothing of samplers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

LAST_TIMESTEP = 999
"""The timestep of the most noise in every SDXL model, distilled ones among them."""

LARGEST_SIGMA = 999999999.9
"""Stands for "before any noise level" where a share of the schedule is turned into a sigma."""


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """The noise levels a model was trained on, one for each of its timesteps."""

    sigmas: Tensor
    """(N,) float32 on the CPU, rising."""
    log_sigmas: Tensor
    """(N,) float32, natural logarithms of `sigmas`."""
    first_timestep: int = 0
    """Timestep of the first entry."""
    stride: int = 1
    """Timesteps from one entry to the next."""

    @property
    def sigma_min(self) -> float:
        """Lowest noise level; SDXL: 0.0292."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """Highest noise level; SDXL: 14.6146."""
        return float(self.sigmas[-1])

    @property
    def last_timestep(self) -> int:
        """Timestep of the highest noise level; SDXL: 999."""
        return self.first_timestep + (len(self.sigmas) - 1) * self.stride

    def timestep(self, sigma: float) -> int:
        """Find the timestep whose noise level is nearest to `sigma` (above 0) on a logarithmic scale."""
        log_sigma = torch.tensor(sigma, dtype=torch.float32).log()
        nearest = int((log_sigma - self.log_sigmas).abs().argmin())
        return self.first_timestep + nearest * self.stride

    def sigma(self, timestep: float) -> float:
        """Give the noise level at a timestep, log-linear between entries and held at the ends."""
        place = (torch.tensor(timestep, dtype=torch.float32) - self.first_timestep) / self.stride
        place = place.clamp(0, len(self.sigmas) - 1)
        low, high = int(place.floor()), int(place.ceil())
        weight = place.frac()
        return float(((1 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[high]).exp())

    def percent_to_sigma(self, percent: float) -> float:
        """Give the noise level that is reached when a share of the timesteps is done.

        Args:
            percent: 0 is the start, 1 the end. At 0 and below every sigma counts as done, at 1 and above none.
        """
        if percent <= 0:
            return LARGEST_SIGMA
        if percent >= 1:
            return 0.0
        return self.sigma((1 - percent) * LAST_TIMESTEP)


def sdxl_table() -> NoiseTable:
    """Build the table of SDXL (and SD 1.5): 1000 levels of the scaled-linear schedule, betas 0.00085 to 0.012.

    Products are taken in float64, then stored as float32.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().float()
    return NoiseTable(sigmas=sigmas, log_sigmas=sigmas.log())


def distilled_table(table: NoiseTable, entries: int = 50) -> NoiseTable:
    """Keep every so-manieth entry, the last among them: the levels that LCM and TCD models were distilled at."""
    stride = len(table.sigmas) // entries
    return NoiseTable(
        sigmas=table.sigmas[stride - 1 :: stride],
        log_sigmas=table.log_sigmas[stride - 1 :: stride],
        first_timestep=stride - 1,
        stride=stride,
    )


def karras(table: NoiseTable, n: int) -> tuple[float, ...]:
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


def exponential(table: NoiseTable, n: int) -> tuple[float, ...]:
    """Space the levels evenly in the logarithm."""
    levels = torch.linspace(math.log(table.sigma_max), math.log(table.sigma_min), n).exp()
    return (*levels.tolist(), 0.0)


def normal(table: NoiseTable, n: int) -> tuple[float, ...]:
    """Space the timesteps evenly, from the last to the first."""
    timesteps = torch.linspace(table.last_timestep, table.first_timestep, n)
    return (*map(table.sigma, timesteps.tolist()), 0.0)


def sgm_uniform(table: NoiseTable, n: int) -> tuple[float, ...]:
    """Space the timesteps evenly as if there were one step more, and leave that one out."""
    timesteps = torch.linspace(table.last_timestep, table.first_timestep, n + 1)[:-1]
    return (*map(table.sigma, timesteps.tolist()), 0.0)


def simple(table: NoiseTable, n: int) -> tuple[float, ...]:
    """Take every so-manieth entry of the table, from the top."""
    size = len(table.sigmas)
    return (*(float(table.sigmas[size - 1 - int(i * size / n)]) for i in range(n)), 0.0)


Schedule = Callable[[NoiseTable, int], tuple[float, ...]]

SCHEDULES: Mapping[str, Schedule] = {
    "normal": normal,
    "karras": karras,
    "exponential": exponential,
    "sgm_uniform": sgm_uniform,
    "simple": simple,
}
"""Spacings by name; each gives n levels and the final 0."""


def schedule(name: str, table: NoiseTable, n: int, *, strength: float = 1.0) -> tuple[float, ...]:
    """List the noise levels of n denoising steps.

    Args:
        name: A key of `SCHEDULES`.
        table: The levels the model knows.
        n: Number of steps, at least 1.
        strength: Share of the noise that is taken off, above 0 and at most 1. Below 1 the n steps are the last of
            ``int(n / strength)``.

    Returns:
        n + 1 levels, falling, the last 0.

    Raises:
        ValueError: an unknown name, no step, or a strength outside its range.
    """
    if name not in SCHEDULES:
        raise ValueError(f"scheduler: expected one of {', '.join(SCHEDULES)}, got {name!r}")
    if n < 1:
        raise ValueError(f"num_inference_steps: expected at least 1, got {n}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength: expected above 0 and at most 1, got {strength}")
    if strength > 0.9999:
        return SCHEDULES[name](table, n)
    return SCHEDULES[name](table, int(n / strength))[-(n + 1) :]


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


def starts_from_pure_noise(sigma: float, table: NoiseTable) -> bool:
    """Whether a first noise level is the highest the model knows, or above it."""
    return sigma > table.sigma_max or math.isclose(sigma, table.sigma_max, rel_tol=1e-5)


def initial_latents(noise: Tensor, latents: Tensor, sigma: float, table: NoiseTable) -> Tensor:
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
