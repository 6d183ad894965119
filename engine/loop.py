"""The step loop that all running images share.

Each image asks, through its sampler, for one denoised estimate at a time. `step` gathers what all of them ask for, sends rows
that may share a UNet call through it together, whatever their sampler, step, seed, guidance or owner, and hands each image
its answer. Images enter and leave between steps. Knows nothing of jobs, files or pictures.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.conditioning import controls as steering
from engine.conditioning import image_attention
from engine.conditioning.branch import Branch
from engine.conditioning.controls import Control
from engine.conditioning.cut import cut_branch, cut_control, cut_image_prompt
from engine.conditioning.freeu import freeu_around
from engine.conditioning.image_attention import ImagePrompt, attend_images
from engine.conditioning.text_keys import TextKeys
from engine.models.inpaint_head import widen_input, with_additions
from engine.models.levers import Kernel, attending
from engine.models.transfers import send
from engine.plan import FreeU, Guidance
from engine.sampling.guidance import Estimates, guide
from engine.sampling.latent_format import LatentFormat
from engine.sampling.prediction import ModelSampling, progress_at
from engine.sampling.tiling import Tiles
from engine.sampling.walk import Ask, Sampling


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A UNet, and what its numbers mean. Several may share one UNet."""

    unet: Any
    """diffusers' `UNet2DConditionModel`, with ``text_time`` conditioning or (SD 1.5) without."""
    model: ModelSampling
    """How it is fed and read."""
    texts: TextKeys | None = None
    """Remembers the keys and values of texts; None projects them at every step."""
    attention: Kernel = "auto"
    """The attention kernel that goes first."""

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


@dataclass(frozen=True, eq=False)
class Setup:
    """Who answers an image's questions for a while: a UNet, and all it is told.

    Where the picture is painted in tiles, each tile is asked for with its own size and the parts of drawings, masks and additions
    that lie in it.
    """

    denoiser: Denoiser
    positive: Branch
    negative: Branch | None
    """None where guidance is off."""
    freeu: FreeU | None = None
    seams: Sequence[StepSeam] = ()
    image_prompts: Sequence[ImagePrompt] = ()
    """Images that it attends to."""
    controls: Sequence[Control] = ()
    """Drawings that steer it."""
    addition: Tensor | None = None
    """(1, C, h, w): what an inpaint head adds to the output of the UNet's first convolution."""
    tiles: Tiles | None = None
    """How the latents are cut up for the UNet; None asks about them whole."""

    def rows(self, x: Tensor, sigma: float) -> list["Row"]:
        """Write the question at a noise level: first the negative side where there is one, each side tile by tile.

        Args:
            x: (1, 4, h, w) as the sampler has it.
            sigma: The noise level.
        """
        parts = [(self, x)]
        if self.tiles is not None:
            parts = list(zip(self._parts, self.tiles.cut(x), strict=True))
        sides = (True, False) if self.negative else (False,)
        return [
            setup._row(part, sigma, is_negative=side) for side in sides for setup, part in parts
        ]

    def sides(self, answers: Sequence[Tensor]) -> list[Tensor]:
        """Put the UNet's answers (in the order of `rows`) together: (1, 4, h, w) of each side."""
        if self.tiles is None:
            return list(answers)
        count = self.tiles.count
        return [
            self.tiles.joined(answers[first : first + count], self._shares)
            for first in range(0, len(answers), count)
        ]

    @cached_property
    def _parts(self) -> list["Setup"]:
        """What is told for each tile."""
        assert self.tiles is not None
        positive = cut_branch(self.positive, self.tiles)
        negative = None if self.negative is None else cut_branch(self.negative, self.tiles)
        prompts = [cut_image_prompt(prompt, self.tiles) for prompt in self.image_prompts]
        controls = [cut_control(control, self.tiles) for control in self.controls]
        additions = None if self.addition is None else self.tiles.cut(self.addition)
        return [
            replace(
                self,
                positive=positive,
                negative=negative,
                image_prompts=[parts[place] for parts in prompts],
                controls=[parts[place] for parts in controls],
                addition=None if additions is None else additions[place],
                tiles=None,
            )
            for place in range(self.tiles.count)
        ]

    @cached_property
    def _shares(self) -> Tensor:
        """How much each tile counts, on the UNet's device."""
        assert self.tiles is not None
        return send(self.tiles.shares(), self.denoiser.device)

    def _row(self, x: Tensor, sigma: float, *, is_negative: bool) -> "Row":
        """Write one row."""
        model = self.denoiser.model
        timestep = model.levels.timestep(sigma)
        progress = progress_at(timestep, self.denoiser.dtype)
        branch = self.negative if is_negative else self.positive
        assert branch is not None
        return Row(
            x=model.scale_input(x, sigma).to(self.denoiser.dtype),
            timestep=timestep,
            branch=branch,
            freeu=self.freeu,
            images=tuple(
                (prompt, is_negative) for prompt in self.image_prompts if prompt.is_active(progress)
            ),
            controls=steering.active_controls(
                self.controls, sigma, model.levels, is_negative=is_negative
            ),
            addition=self.addition,
        )


@dataclass(frozen=True, eq=False, slots=True)
class HandOver:
    """A change of setup while the sampler goes on, with all it remembers."""

    step: int
    """It happens after the answer that this step (from 0) is reported for; further questions go to the new setup."""
    setup: Setup


@dataclass(frozen=True, eq=False, slots=True)
class Ended:
    """What a segment leaves to the next one."""

    latents: Tensor
    """(1, 4, h, w) float32 as the UNet knows them."""
    epsilon: Tensor | None
    """The noise of the last guided answer, in units of variance 1; None where nothing was asked."""


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """One run of a sampler; an image has one, or a second one that refines the first."""

    setup: Setup
    start: Callable[[Ended | None], Sampling]
    """Starts the sampler, from what the segment before left."""
    steps: int
    """How many steps there are for progress bars; some samplers report fewer or more."""
    hand_over: HandOver | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """One line of a UNet call."""

    x: Tensor
    """(1, 4, h, w), scaled for the network."""
    timestep: float
    branch: Branch
    freeu: FreeU | None = None
    images: tuple[tuple[ImagePrompt, bool], ...] = ()
    """The images that count now, and whether the row is the negative side."""
    controls: tuple[Control, ...] = ()
    """The drawings that steer now."""
    addition: Tensor | None = None
    """As `Setup` has it; rows with one and rows without share a call."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What rows must have in common to go through the UNet together, besides the UNet."""
        return (
            *self.x.shape,
            self.branch.context.shape[1],
            self.freeu,
            image_attention.call_key(self.images),
            steering.call_key(self.controls),
        )


@dataclass(eq=False)
class Running:
    """One image on its way: its sampler, its setup, what it asks for next."""

    segments: Sequence[Segment]
    """At least one; run one after the other."""
    guidance: Guidance
    alone: bool = False
    """Never share a UNet call, so that a repeat is equal to the last bit."""
    calls: int = 0
    """Answers this image has had."""
    step: int = 0
    """Steps begun so far, over all segments."""
    setup: Setup = field(init=False)
    """Who answers now."""
    asked: Ask = field(init=False)
    """The question that waits for an answer."""
    denoised: Tensor = field(init=False)
    """The latest guided estimate, (1, 4, h, w) float32; there from the first answer on."""
    latents: Tensor = field(init=False)
    """The finished latents, (1, 4, h, w) float32, as the last UNet knows them; there once `is_done`."""
    is_done: bool = field(default=False, init=False)
    """Whether the last sampler has returned."""

    def __post_init__(self) -> None:
        self._index = 0
        self._guided: Tensor | None = None
        self._enter(None)

    @property
    def steps(self) -> int:
        """How many steps there are, over all segments."""
        return sum(segment.steps for segment in self.segments)

    @property
    def shape(self) -> torch.Size:
        """Shape of the latents, (1, 4, h, w)."""
        shape: torch.Size = self.asked.x.shape
        return shape

    @property
    def denoiser(self) -> Denoiser:
        """The UNet that answers now."""
        return self.setup.denoiser

    @property
    def latent_format(self) -> LatentFormat:
        """What `denoised` and `latents` are to a VAE."""
        return self.denoiser.model.latent_format

    def rows(self) -> list[Row]:
        """Say what the UNet must be asked, in the order of `Setup.rows`."""
        x, sigma, _ = self.asked
        for seam in self.setup.seams:
            x = seam.before(x, sigma)
        self._x = x
        self._timestep = self.denoiser.model.levels.timestep(sigma)
        return self.setup.rows(x, sigma)

    def estimates(self, predictions: Sequence[Tensor]) -> Estimates:
        """Read the UNet's answers (in the order of `rows`) as denoised estimates, not yet guided."""
        sigma, read = self.asked.sigma, self.denoiser.model.denoised
        sides = self.setup.sides(predictions)
        *negative, positive = (read(self._x, answer.float(), sigma) for answer in sides)
        return Estimates(
            x=self._x,
            positive=positive,
            negative=negative[0] if negative else None,
            progress=progress_at(self._timestep, self.denoiser.dtype),
            guidance=self.guidance,
        )

    def accept(self, denoised: Tensor) -> None:
        """Take the guided estimate, and go on to the next question."""
        self._guided, self._sigma = denoised, self.asked.sigma
        for seam in self.setup.seams:
            denoised = seam.after(denoised, self.asked.sigma)
        self.calls += 1
        self.denoised = denoised
        if self.asked.step is not None:
            self._count(self.asked.step)
        self._advance(lambda: self._sampling.send(denoised))

    def close(self) -> None:
        """End the sampler where it stands."""
        self._sampling.close()

    def _count(self, step: int) -> None:
        """Note that a step is reported, and hand over where it is time."""
        segment = self.segments[self._index]
        before = sum(earlier.steps for earlier in self.segments[: self._index])
        self.step = before + min(step + 1, segment.steps)
        hand_over = segment.hand_over
        if hand_over is not None and hand_over.step == step:
            self.setup = hand_over.setup

    def _enter(self, ended: Ended | None) -> None:
        """Begin the segment at the index."""
        segment = self.segments[self._index]
        self.setup = segment.setup
        self._sampling = segment.start(ended)
        self._advance(lambda: next(self._sampling))

    def _advance(self, go_on: Callable[[], Ask]) -> None:
        try:
            self.asked = go_on()
        except StopIteration as end:
            self._index += 1
            if self._index < len(self.segments):
                self._enter(Ended(end.value, self._epsilon()))
            else:
                self.latents = end.value
                self.is_done = True

    def _epsilon(self) -> Tensor | None:
        return None if self._guided is None else (self._x - self._guided) / self._sigma


@torch.inference_mode()
def step(running: Sequence[Running], *, apart: bool = False, max_rows: int | None = None) -> int:
    """Advance every running image by one model call.

    Args:
        running: The images.
        apart: Whether each image gets a UNet call of its own, as if it ran alone, to the last bit.
        max_rows: Most rows of one UNet call, at least 1; more are asked for in several calls. None is as many as there are.

    Returns:
        How many UNet calls that took.
    """
    asked = [(image, image.rows()) for image in running]
    answers: dict[Row, Tensor] = {}
    groups = _by_call(asked, apart=apart, max_rows=max_rows)
    for denoiser, rows in groups:
        answers.update(zip(rows, torch.split(predict(denoiser, rows), 1), strict=True))
    for images in _by_shape(asked, apart=apart):
        estimates = [image.estimates([answers[row] for row in rows]) for image, rows in images]
        for (image, _), denoised in zip(images, guide(estimates), strict=True):
            image.accept(denoised)
    return len(groups)


def predict(denoiser: Denoiser, rows: Sequence[Row]) -> Tensor:
    """Call the UNet once for rows of one `Row.key`; returns (rows, 4, h, w) in its number format."""
    x, device = torch.cat([row.x for row in rows]), denoiser.device
    timesteps = send(torch.tensor([row.timestep for row in rows], dtype=torch.float32), device)
    context = torch.cat([row.branch.context for row in rows])
    added = _added_conditioning(device, rows)
    down = middle = None
    if any(row.controls for row in rows):
        followed = [row.controls for row in rows]
        down, middle = steering.residuals(followed, x, timesteps, context, added)
    texts = denoiser.texts
    text = None if texts is None else texts.of([row.branch.context for row in rows])
    if text is not None or any(row.images for row in rows):
        attend_images(denoiser.unet)
    if any(row.addition is not None for row in rows):
        widen_input(denoiser.unet)
    with freeu_around(denoiser.unet, rows[0].freeu), attending(denoiser.attention, device):
        answer: Tensor = denoiser.unet(
            with_additions(x, [row.addition for row in rows]),
            timesteps,
            encoder_hidden_states=context,
            cross_attention_kwargs=image_attention.attention_kwargs(
                [row.images for row in rows], text
            ),
            added_cond_kwargs=added,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
    return answer


def _added_conditioning(device: torch.device, rows: Sequence[Row]) -> dict[str, Tensor] | None:
    """Gather the pooled texts and the sizes that SDXL is told; SD 1.5 is told none."""
    pooled = [
        image_attention.add_pooled(row.branch.pooled, row.images)
        for row in rows
        if row.branch.pooled is not None
    ]
    sizes = [row.branch.size_ids for row in rows if row.branch.size_ids is not None]
    if not pooled:
        return None
    # float32 whatever the weights are: bfloat16 knows no 921.
    ids = [size.at(row.timestep) for size, row in zip(sizes, rows, strict=True)]
    return {
        "text_embeds": torch.cat(pooled),
        "time_ids": send(torch.tensor(ids, dtype=torch.float32), device),
    }


def _by_call(
    asked: Iterable[tuple[Running, list[Row]]], *, apart: bool, max_rows: int | None
) -> list[tuple[Denoiser, Sequence[Row]]]:
    """Bring together the rows that may share a call: same UNet, latent shape, number of tokens and tricks."""
    groups: dict[tuple[Any, ...], tuple[Denoiser, list[Row]]] = {}
    for image, rows in asked:
        for row in rows:
            key = (id(image.denoiser.unet), id(image) if apart or image.alone else None, *row.key)
            groups.setdefault(key, (image.denoiser, []))[1].append(row)
    return [
        (denoiser, part)
        for denoiser, rows in groups.values()
        for part in _portions(rows, max_rows or len(rows))
    ]


def _portions(rows: Sequence[Row], most: int) -> list[Sequence[Row]]:
    """Cut rows into as few portions as there have to be, about equally long, so that none is larger than it must be."""
    calls = math.ceil(len(rows) / most)
    size = math.ceil(len(rows) / calls)
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _by_shape(
    asked: Iterable[tuple[Running, list[Row]]], *, apart: bool
) -> list[list[tuple[Running, list[Row]]]]:
    """Bring together the images whose latents have one shape, so that guidance runs once for them."""
    groups: dict[tuple[Any, ...], list[tuple[Running, list[Row]]]] = {}
    for image, rows in asked:
        key = (image.shape, id(image) if apart or image.alone else None)
        groups.setdefault(key, []).append((image, rows))
    return list(groups.values())
