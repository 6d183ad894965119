"""The step loop that all running images share.

Each image asks, through its sampler, for one denoised estimate at a time. `step` gathers what all of them ask for, sends rows
that may share a UNet call through it together, whatever their sampler, step, seed, guidance or owner, and hands each image
its answer. Images enter and leave between steps. Knows nothing of jobs, files or pictures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.conditioning.branch import Branch
from engine.plan import Guidance
from engine.sampling.guidance import Estimates, guide
from engine.sampling.prediction import ModelSampling, progress_at
from engine.sampling.walk import Ask, Sampling


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A UNet, and what its numbers mean."""

    unet: Any
    """diffusers' `UNet2DConditionModel` with ``text_time`` conditioning."""
    model: ModelSampling
    """How it is fed and read."""

    @cached_property
    def dtype(self) -> torch.dtype:
        """Number format of the weights; asked once, since the UNet goes through all its modules for it."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @cached_property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.unet.device
        return device


class StepSeam(Protocol):
    """What happens around one model call of an image (design D4): blending, records, previews."""

    def before(self, x: Tensor, sigma: float) -> Tensor:
        """Change what the model is shown."""

    def after(self, denoised: Tensor, sigma: float) -> Tensor:
        """Change, or look at, the guided estimate."""


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """One line of a UNet call."""

    x: Tensor
    """(1, 4, h, w), scaled for the network."""
    timestep: float
    branch: Branch

    @property
    def key(self) -> tuple[Any, ...]:
        """What rows must have in common to go through the UNet together, besides the UNet."""
        return (*self.x.shape, self.branch.context.shape[1])


@dataclass(eq=False)
class Running:
    """One image on its way: its sampler, its conditioning, what it asks for next."""

    denoiser: Denoiser
    sampling: Sampling
    positive: Branch
    negative: Branch | None
    """None where guidance is off."""
    guidance: Guidance
    seams: Sequence[StepSeam] = ()
    alone: bool = False
    """Never share a UNet call, so that a repeat is equal to the last bit."""
    calls: int = 0
    """Answers this image has had."""
    asked: Ask = field(init=False)
    """The question that waits for an answer."""
    denoised: Tensor = field(init=False)
    """The latest guided estimate, (1, 4, h, w) float32; there from the first answer on."""
    latents: Tensor = field(init=False)
    """The finished latents, (1, 4, h, w) float32; there once `is_done`."""
    is_done: bool = field(default=False, init=False)
    """Whether the sampler has returned."""

    def __post_init__(self) -> None:
        self._advance(None)

    @property
    def shape(self) -> torch.Size:
        """Shape of the latents, (1, 4, h, w)."""
        return self.asked.x.shape

    def rows(self) -> list[Row]:
        """Say what the UNet must be asked: one row, or the negative and the positive."""
        x, sigma, _ = self.asked
        for seam in self.seams:
            x = seam.before(x, sigma)
        self._x = x
        self._timestep = self.denoiser.model.levels.timestep(sigma)
        scaled = self.denoiser.model.scale_input(x, sigma).to(self.denoiser.dtype)
        branches = (self.positive,) if self.negative is None else (self.negative, self.positive)
        return [Row(scaled, self._timestep, branch) for branch in branches]

    def estimates(self, predictions: Sequence[Tensor]) -> Estimates:
        """Read the UNet's answers (in the order of `rows`) as denoised estimates, not yet guided."""
        sigma, read = self.asked.sigma, self.denoiser.model.denoised
        *negative, positive = (read(self._x, answer.float(), sigma) for answer in predictions)
        return Estimates(
            x=self._x,
            positive=positive,
            negative=negative[0] if negative else None,
            progress=progress_at(self._timestep, self.denoiser.dtype),
            guidance=self.guidance,
        )

    def accept(self, denoised: Tensor) -> None:
        """Take the guided estimate, and go on to the next question."""
        for seam in self.seams:
            denoised = seam.after(denoised, self.asked.sigma)
        self.calls += 1
        self.denoised = denoised
        self._advance(denoised)

    def close(self) -> None:
        """End the sampler where it stands."""
        self.sampling.close()

    def _advance(self, answer: Tensor | None) -> None:
        try:
            self.asked = next(self.sampling) if answer is None else self.sampling.send(answer)
        except StopIteration as end:
            self.latents = end.value
            self.is_done = True


@torch.inference_mode()
def step(running: Sequence[Running]) -> int:
    """Advance every running image by one model call; returns how many UNet calls that took."""
    asked = [(image, image.rows()) for image in running]
    answers: dict[Row, Tensor] = {}
    groups = _by_call(asked)
    for denoiser, rows in groups:
        answers.update(zip(rows, torch.split(predict(denoiser, rows), 1), strict=True))
    for images in _by_shape(asked):
        estimates = [image.estimates([answers[row] for row in rows]) for image, rows in images]
        for (image, _), denoised in zip(images, guide(estimates), strict=True):
            image.accept(denoised)
    return len(groups)


def predict(denoiser: Denoiser, rows: Sequence[Row]) -> Tensor:
    """Call the UNet once for rows of one shape; returns (rows, 4, h, w) in its number format."""
    device = denoiser.device
    # float32 whatever the weights are: bfloat16 knows no 921.
    ids = torch.tensor([row.branch.size_ids.at(row.timestep) for row in rows], dtype=torch.float32)
    timesteps = torch.tensor([row.timestep for row in rows], dtype=torch.float32)
    answer: Tensor = denoiser.unet(
        torch.cat([row.x for row in rows]),
        timesteps.to(device, non_blocking=True),
        encoder_hidden_states=torch.cat([row.branch.context for row in rows]),
        added_cond_kwargs={
            "text_embeds": torch.cat([row.branch.pooled for row in rows]),
            "time_ids": ids.to(device, non_blocking=True),
        },
        return_dict=False,
    )[0]
    return answer


def _by_call(asked: Iterable[tuple[Running, list[Row]]]) -> list[tuple[Denoiser, list[Row]]]:
    """Bring together the rows that may share a call: same UNet, latent shape and number of tokens."""
    groups: dict[tuple[Any, ...], tuple[Denoiser, list[Row]]] = {}
    for image, rows in asked:
        for row in rows:
            key = (id(image.denoiser), id(image) if image.alone else None, *row.key)
            groups.setdefault(key, (image.denoiser, []))[1].append(row)
    return list(groups.values())


def _by_shape(asked: Iterable[tuple[Running, list[Row]]]) -> list[list[tuple[Running, list[Row]]]]:
    """Bring together the images whose latents have one shape, so that guidance runs once for them."""
    groups: dict[tuple[Any, ...], list[tuple[Running, list[Row]]]] = {}
    for image, rows in asked:
        key = (image.shape, id(image) if image.alone else None)
        groups.setdefault(key, []).append((image, rows))
    return list(groups.values())
