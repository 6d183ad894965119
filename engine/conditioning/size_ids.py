"""The sizes a model is told: at first ones that are too large or too small on purpose, later the true one.

Told of a larger original the positive branch draws more detail, told of a smaller one the negative branch less. Knows
nothing of how the UNet embeds the six numbers.
"""

from dataclasses import dataclass

import torch

from engine.geometry import Size
from engine.sampling.levels import LAST_TIMESTEP

Ids = tuple[float, ...]
"""Original height and width, crop top and left, target height and width: diffusers' ``add_time_ids`` of one row. SDXL's
refiner is told five: an aesthetic score in the target size's place."""

POSITIVE_SCORE, NEGATIVE_SCORE = 6.0, 2.5
"""Aesthetic scores that SDXL's refiner is told."""


@dataclass(frozen=True, slots=True)
class SizeIds:
    """What one branch is told about sizes, and until when."""

    emphasised: Ids
    """Told while there is much noise."""
    consistent: Ids
    """Told from then on."""
    end: float
    """Share of the timesteps that the emphasised ids last, 0 (never) to 1."""

    def at(self, timestep: float) -> Ids:
        """Choose the ids for a timestep; compared in float32, a timestep exactly on the border gets the true size."""
        border = torch.tensor(LAST_TIMESTEP * (1 - self.end), dtype=torch.float32)
        return self.emphasised if timestep > float(border) else self.consistent

    def of_part(self, part: Size, whole: Size) -> "SizeIds":
        """Say of a part of the latents what is said of them whole, as if it were a picture of its own.

        Args:
            part: Its size.
            whole: Size of the latents, in the same unit.
        """
        shares = (part.height / whole.height, part.width / whole.width)

        def told(ids: Ids) -> Ids:
            original, crop, rest = ids[:2], ids[2:4], ids[4:]
            return (*_times(original, shares), *crop, *_times(rest, shares))

        return SizeIds(told(self.emphasised), told(self.consistent), self.end)


def _times(ids: Ids, shares: tuple[float, float]) -> Ids:
    """Shrink a height and a width; a score, which stands alone, stays."""
    if len(ids) == 1:
        return ids
    return tuple(round(side * share) for side, share in zip(ids, shares, strict=True))


def size_ids(size: Size, scale: float, *, end: float, grid: int = 64) -> SizeIds:
    """Settle what one branch is told.

    Args:
        size: Of the latents that are sampled, in pixels.
        scale: What the emphasised original size is multiplied by; 1.5 for the positive branch, 0.8 for the negative.
        end: Share of the timesteps that the emphasised ids last, 0 to 1.
        grid: Pixels that the target size is rounded to, to the even multiple where it lies half-way.
    """
    width, height = (grid * round(side / grid) for side in size)
    return SizeIds(
        emphasised=(int(size.height * scale), int(size.width * scale), 0, 0, height, width),
        consistent=(height, width, 0, 0, height, width),
        end=end,
    )


def refiner_ids(size: Size, score: float) -> SizeIds:
    """Settle what one branch of SDXL's refiner is told: the true size and an aesthetic score, at every timestep."""
    ids = (size.height, size.width, 0, 0, score)
    return SizeIds(emphasised=ids, consistent=ids, end=0.0)
