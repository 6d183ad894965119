"""What the schedulers of the LoRA studio can be asked for: steps, and lists of one's own."""

import math
from collections.abc import Sequence
from itertools import pairwise

from engine.errors import InvalidRequest
from engine.studio import StudioScheduler

LAST_TIMESTEP = 999
DISTILLED_STEPS = 50
"""How many timesteps LCM and TCD models were distilled at: more steps there cannot be."""
DISTILLED: tuple[StudioScheduler, ...] = ("LCM", "LCM (trailing timesteps)", "TCD")
"""The schedulers that take their steps from those."""


def check_steps(
    scheduler: StudioScheduler,
    steps: int,
    timesteps: Sequence[int] = (),
    sigmas: Sequence[float] = (),
) -> None:
    """Make sure that a scheduler can list its noise levels.

    Args:
        scheduler: By fal's name.
        steps: Number of steps; of no effect beside a list.
        timesteps: A list of one's own; empty is none.
        sigmas: Likewise.

    Raises:
        InvalidRequest: a list breaks its rule, there are two, or a distilled model has fewer steps.
    """
    if timesteps and sigmas:
        raise InvalidRequest("studio.sigmas", "expected nothing beside timesteps, got both")
    _check_falling("studio.timesteps", timesteps)
    _check_falling("studio.sigmas", sigmas)
    if timesteps and not 0 <= timesteps[-1] <= timesteps[0] <= LAST_TIMESTEP:
        problem = f"expected 0 to {LAST_TIMESTEP}, got {timesteps[0]} to {timesteps[-1]}"
        raise InvalidRequest("studio.timesteps", problem)
    if sigmas and not (0 < sigmas[0] < math.inf and sigmas[-1] >= 0):
        problem = f"expected levels above 0, got {sigmas[0]} to {sigmas[-1]}"
        raise InvalidRequest("studio.sigmas", problem)
    has_own_levels = not timesteps and not sigmas
    if has_own_levels and scheduler in DISTILLED and steps > DISTILLED_STEPS:
        problem = f"expected at most {DISTILLED_STEPS} with {scheduler!r}, got {steps}"
        raise InvalidRequest("studio.num_inference_steps", problem)


def _check_falling(field: str, numbers: Sequence[float]) -> None:
    for before, after in pairwise(numbers):
        if not after < before:
            raise InvalidRequest(field, f"expected falling numbers, got {after} after {before}")
