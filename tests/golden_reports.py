"""What Fooocus reports of each step, told from the questions and answers of one of our samplers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.sampling.walk import Ask


def reported(
    sampler: str, asked: Sequence[Ask], told: Sequence[Tensor], final: Tensor
) -> dict[str, Tensor]:
    """Gather what compares to the golden arrays ``x`` (latents) and ``x0`` (estimates), both (steps, 4, h, w).

    uni_pc reports latents of another space, and tcd what it puts noise on instead of the estimate: these are left out.
    dpm_adaptive reports the latents after a step of three questions.
    """
    if sampler == "dpm_adaptive":
        opens = list(range(0, len(asked), 3))
        x = [*(asked[i].x for i in opens[1:]), final]
    else:
        opens = [i for i, ask in enumerate(asked) if ask.step is not None]
        x = [asked[i].x for i in opens]
    reports = {"x": torch.cat(x), "x0": torch.cat([told[i] for i in opens])}
    if sampler.startswith("uni_pc"):
        del reports["x"]
    if sampler == "tcd":
        del reports["x0"]
    return reports


def finite_part(actual: Tensor, expected: Any) -> tuple[Tensor, Any]:
    """Cut both down to the steps before Fooocus first gives NaN."""
    good = [bool(torch.as_tensor(item).isfinite().all()) for item in expected]
    count = good.index(False) if False in good else len(good)
    return actual[:count], expected[:count]
