"""What noise levels a model was trained on: tables with a timestep for each level, and one without steps.

Numbers are those of float32 arithmetic on the CPU, as Fooocus has them. Knows nothing of lists that samplers walk down.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache, cached_property

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
    trained: Tensor | None = None
    """(1000,) float32, the table that this one is a selection of; None where it is none."""

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

    def timestep_between(self, sigma: float) -> float:
        """Give the timestep of `sigma` (above 0), log-linear between entries and held at the ends."""
        logs, log_sigma = self.log_sigmas.tolist(), math.log(sigma)
        low = min(max(bisect_right(logs, log_sigma) - 1, 0), len(logs) - 2)
        weight = (log_sigma - logs[low]) / (logs[low + 1] - logs[low])
        place: float = low + min(max(weight, 0.0), 1.0)
        return self.first_timestep + place * self.stride

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

    def sigma_below(self, sigma: float, share: float) -> float:
        """Give the trained level at a share of the timestep of `sigma`, rounded down; for 0 the lowest one."""
        trained = self.sigmas if self.trained is None else self.trained
        # In float32, where 0.7 · 90 is 63, and not a little less.
        place = torch.tensor(share, dtype=torch.float32) * self.timestep(sigma) if sigma > 0 else 0
        return float(trained[math.floor(place)])


@dataclass(frozen=True, eq=False)
class ContinuousLevels:
    """Noise levels of the EDM kind: any level is known, and told to the UNet as a quarter of its logarithm."""

    sigmas: Tensor
    """(N,) float32 on the CPU, rising: samples of the range."""

    @property
    def sigma_min(self) -> float:
        """Lowest noise level."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """Highest noise level."""
        return float(self.sigmas[-1])

    @property
    def first_timestep(self) -> float:
        """What the UNet is told of the lowest level."""
        return self.timestep(self.sigma_min)

    @property
    def last_timestep(self) -> float:
        """What the UNet is told of the highest level."""
        return self.timestep(self.sigma_max)

    def timestep(self, sigma: float) -> float:
        """Turn a noise level (above 0) into what the UNet is told, ``log(sigma) / 4``."""
        return float(0.25 * torch.tensor(sigma, dtype=torch.float32).log())

    def sigma(self, timestep: float) -> float:
        """Turn what the UNet is told back into a noise level."""
        return float((torch.tensor(timestep, dtype=torch.float32) / 0.25).exp())

    def percent_to_sigma(self, percent: float) -> float:
        """Give the noise level that is reached when a share of the way is done, evenly in the logarithm.

        Args:
            percent: 0 is the start, 1 the end. At 0 and below every sigma counts as done, at 1 and above none.
        """
        if percent <= 0:
            return LARGEST_SIGMA
        if percent >= 1:
            return 0.0
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return math.exp((1 - percent) * (high - low) + low)

    def sigma_below(self, sigma: float, share: float) -> float:
        """Give the level of SDXL's table at a share of the timestep of `sigma`; for 0 the lowest one."""
        return sdxl_table().sigma_below(sigma, share)


@dataclass(frozen=True, eq=False)
class ListedLevels:
    """The levels of one walk, and what the UNet is told at each, as diffusers' schedulers list them."""

    sigmas: tuple[float, ...]
    """The levels that are walked down, falling to 0."""
    timesteps: tuple[float, ...]
    """What the UNet is told at each but the last."""
    trained: NoiseTable
    """The levels that the model was trained on."""

    @cached_property
    def _told(self) -> dict[float, float]:
        return dict(zip(self.sigmas, (*self.timesteps, 0.0), strict=True))

    def timestep(self, sigma: float) -> float:
        """Look up what the UNet is told at a level of the list; at 0 it is 0."""
        return self._told[sigma]

    def percent_to_sigma(self, percent: float) -> float:
        """Give the noise level of the step at a share of the steps.

        Args:
            percent: 0 is the first step. Below 0 every sigma counts as done, at 1 and above none.
        """
        if percent < 0:
            return LARGEST_SIGMA
        if percent >= 1:
            return 0.0
        return self.sigmas[round(percent * len(self.timesteps))]

    def sigma_below(self, sigma: float, share: float) -> float:
        """Give the trained level at a share of the timestep of `sigma`, rounded down; for 0 the lowest one."""
        if share == 1 and sigma > 0:
            return sigma
        # In float32, as `NoiseTable` has it.
        place = torch.tensor(share, dtype=torch.float32) * self.timestep(sigma)
        return float(self.trained.sigmas[math.floor(place)])


TrainedLevels = NoiseTable | ContinuousLevels
"""What a model was trained on: what lists are made of."""
NoiseLevels = TrainedLevels | ListedLevels
"""What a model is sampled at."""

ZERO_SNR_ALPHA = 2.0**-24
"""Share of the signal's variance at the first of levels that begin with noise alone, where 0 would be no level."""


@cache
def sdxl_table() -> NoiseTable:
    """Build the table of SDXL (and SD 1.5): 1000 levels of the scaled-linear schedule, betas 0.00085 to 0.012.

    Products are taken in float64, then stored as float32.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().float()
    return NoiseTable(sigmas=sigmas, log_sigmas=sigmas.log())


@cache
def diffusers_table(*, is_zero_snr: bool = False) -> NoiseTable:
    """Build the same table in float32 throughout, as diffusers does: it differs from `sdxl_table` in the fifth digit.

    Args:
        is_zero_snr: Whether the signal is shifted and scaled so that the last level is noise alone, and the first stays.

    Source: Lin et al. 2023, https://arxiv.org/abs/2305.08891, algorithm 1.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    if is_zero_snr:
        signal = torch.cumprod(1 - betas, 0).sqrt()
        first, last = signal[0].clone(), signal[-1].clone()
        kept = ((signal - last) * (first / (first - last))) ** 2
        betas = 1 - torch.cat([kept[:1], kept[1:] / kept[:-1]])
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    if is_zero_snr:
        alphas_cumprod[-1] = ZERO_SNR_ALPHA
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
    return NoiseTable(sigmas=sigmas, log_sigmas=sigmas.log())


def distilled_table(table: NoiseTable, entries: int = 50) -> NoiseTable:
    """Keep every so-manieth entry, the last among them: the levels that LCM and TCD models were distilled at."""
    stride = len(table.sigmas) // entries
    return NoiseTable(
        sigmas=table.sigmas[stride - 1 :: stride],
        log_sigmas=table.log_sigmas[stride - 1 :: stride],
        first_timestep=stride - 1,
        stride=stride,
        trained=table.sigmas,
    )


@cache
def edm_levels() -> ContinuousLevels:
    """Give the levels of Playground v2.5: 0.002 to 120."""
    logs = torch.linspace(math.log(0.002), math.log(120), 1000, dtype=torch.float32)
    return ContinuousLevels(logs.exp())
