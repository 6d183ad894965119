"""Latents as files, for people who look into how a picture came about (safetensors, float32).

``latents``: (n, 4, h, w) for n pictures, as the model knows them, × VAE `scaling_factor`. ``passes``: (n, steps, 4, h, w), what
stood before each step, where noise of level ``sigmas[step]`` is x = latents + sigma · noise; and ``sigmas``, (steps,).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from safetensors.torch import save
from torch import Tensor


@dataclass(eq=False)
class Recorder:
    """Looks on while an image is painted; a seam of the step loop."""

    passes: list[Tensor] = field(default_factory=list)
    """(1, 4, h, w) each, where they were painted: nobody waits for them before the file is written."""
    sigmas: list[float] = field(default_factory=list)

    def before(self, x: Tensor, sigma: float) -> Tensor:
        """Note what the model is asked about."""
        self.passes.append(x.detach().float().clone())
        self.sigmas.append(sigma)
        return x

    def after(self, denoised: Tensor, sigma: float) -> Tensor:
        """Change nothing."""
        return denoised


@dataclass(frozen=True, eq=False, slots=True)
class Kept:
    """What is kept of one picture."""

    latents: Tensor
    recorder: Recorder | None


def recorder_of(seams: Iterable[object]) -> Recorder | None:
    """Find the recorder among an image's seams; None where there is none."""
    return next((seam for seam in seams if isinstance(seam, Recorder)), None)


def latents_file(kept: Sequence[Kept]) -> bytes:
    """Write the finished latents of pictures of one job."""
    return save({"latents": torch.cat([item.latents.float().cpu() for item in kept])})


def passes_file(kept: Sequence[Kept]) -> bytes:
    """Write what stood before each step of pictures of one job, all of which were recorded."""
    recorders = [item.recorder for item in kept if item.recorder is not None]
    passes = torch.stack([torch.cat(recorder.passes).cpu() for recorder in recorders])
    return save({"latents": passes, "sigmas": torch.tensor(recorders[0].sigmas)})
