"""How one image is sampled: in one run, in one that changes hands half-way, or in two.

Draws the image's noise, lists its noise levels, and puts the segments together that `engine.loop` runs. Knows nothing of
prompts, plans or files.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from engine.loop import Ended, HandOver, Running, Segment, Setup
from engine.plan import Guidance
from engine.requests import SwapMethod
from engine.sampling.latent_format import SD15
from engine.sampling.levels import ListedLevels, TrainedLevels
from engine.sampling.listings import Listing
from engine.sampling.noise import brownian_noise, draw_noise, independent_noise, seeded_generator
from engine.sampling.refine import carry_means, rewound
from engine.sampling.samplers import SAMPLERS
from engine.sampling.schedules import (
    initial_latents,
    named_levels,
    path_ends,
    schedule,
    sub_range,
)
from engine.sampling.walk import NoiseSource, Sampling, Sigmas


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The settings of one image's sampling."""

    sampler: str
    """A key of `SAMPLERS`."""
    scheduler: str
    """A key of `SCHEDULES`. The denoisers must have been made for it (`model_sampling`)."""
    steps: int
    strength: float
    """Share of the noise that is taken off, above 0 and at most 1."""
    seed: int
    guidance: Guidance
    as_fooocus: bool = False
    """Keep Fooocus' defects: the levels it really samples, and noise between steps drawn on a CUDA device."""
    alone: bool = False
    """Never share a UNet call."""
    listing: Listing | None = None
    """The walk of one of diffusers' schedulers, in place of sampler, scheduler, steps and strength. The denoiser must have been
    made for it (`Listing.model_sampling`), and nobody refines."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Refining:
    """Who takes over, and how."""

    setup: Setup
    method: SwapMethod
    """``joint``: the sampler goes on, asking another UNet. ``separate``: a sampler begins anew where the base model left
    off. ``vae``: the base model ends clean, and a sampler begins anew a little above, with new noise."""
    switch: int
    """Steps of the base model; with ``joint`` it also makes the first model call of the next step."""
    convert: Callable[[Tensor], Tensor] | None = None
    """With ``vae``: from latents of the base model's VAE to those of the refiner's; None where they are the same."""


def begin(
    course: Course, setup: Setup, latents: Tensor, refining: Refining | None = None
) -> Running:
    """Draw the noise of one image and start its sampler.

    All noise is drawn on the CPU from the image's seed, so a seed means the same picture on every machine; as Fooocus does
    it, the noise between steps is drawn on a CUDA device where there is one.

    Args:
        course: How it is sampled.
        setup: Who answers, at first.
        latents: What it starts from, (1, 4, h, w) float32 as the VAE gives them; zeros where that is noise alone.
        refining: Who takes over.
    """
    start = _Start(course, setup, latents)
    return Running(_segments(start, refining), course.guidance, alone=course.alone)


def _segments(start: "_Start", refining: Refining | None) -> list[Segment]:
    if refining is None:
        return [start.from_noise(start.sigmas)]
    switch = refining.switch
    match refining.method:
        case "joint":
            return [start.from_noise(start.sigmas, HandOver(switch, refining.setup))]
        case "separate":
            head = sub_range(start.sigmas, last=switch, ends_clean=False)
            return [start.from_noise(head), start.go_on(refining)]
        case "vae":
            head = sub_range(start.sigmas, last=switch, ends_clean=True)
            return [start.from_noise(head), start.begin_anew(refining)]


class _Start:
    """What all segments of an image have in common: its levels and its noise."""

    def __init__(self, course: Course, setup: Setup, latents: Tensor) -> None:
        listing = course.listing
        self.sampler = SAMPLERS[course.sampler] if listing is None else listing.sampler
        self.sigmas = self._schedule(course, setup) if listing is None else listing.sigmas
        self._course, self._setup, self._latents = course, setup, latents
        self._shape, self._device = tuple(latents.shape), setup.denoiser.device
        is_fooocus = course.as_fooocus and listing is None
        is_drawn_there = is_fooocus and self._device.type == "cuda"
        self._draw_device = "cuda" if is_drawn_there else "cpu"
        self._path: NoiseSource | None = None
        if self.sampler.noise == "brownian":
            ends = path_ends(
                course.scheduler,
                course.steps,
                strength=course.strength,
                sampled=self.sigmas,
                as_fooocus=course.as_fooocus,
            )
            self._path = brownian_noise(
                course.seed,
                self._shape,
                ends,
                device=self._device,
                draw_device=self._draw_device,
            )
        self._noise, self._source = self._draw(course.seed)

    def from_noise(self, sigmas: Sigmas, hand_over: HandOver | None = None) -> Segment:
        """Start from the image's own noise."""
        latents = self._setup.denoiser.model.latent_format.to_model(self._latents)
        source = self._source
        return self._segment(
            self._setup, sigmas, source, lambda ended: (self._noise, latents), hand_over=hand_over
        )

    def go_on(self, refining: Refining) -> Segment:
        """Start where the base model left off, with no noise but that of the steps, whose stream goes on."""
        sigmas = sub_range(self.sigmas, first=refining.switch)

        def start(ended: Ended | None) -> tuple[None, Tensor]:
            assert ended is not None
            return None, ended.latents

        return self._segment(refining.setup, sigmas, self._source, start)

    def begin_anew(self, refining: Refining) -> Segment:
        """Start from the base model's clean latents, converted, with noise of the next seed."""
        course, model = self._course, refining.setup.denoiser.model
        whole = named_levels(
            course.scheduler,
            _trained_levels(refining.setup),
            course.steps,
            strength=course.strength,
            spare_step=self.sampler.spare_step == "always",
            is_sd15=_is_sd15(refining.setup),
        )
        noise, source = self._draw(course.seed + 1)

        def start(ended: Ended | None) -> tuple[Tensor, Tensor]:
            assert ended is not None
            latents = self._setup.denoiser.model.latent_format.to_vae(ended.latents)
            if refining.convert is not None:
                latents = refining.convert(latents)
            fresh = noise.to(self._device)
            if ended.epsilon is not None:
                fresh = carry_means(fresh, ended.epsilon)
            return fresh, model.latent_format.to_model(latents.to(self._device))

        return self._segment(refining.setup, rewound(whole, refining.switch), source, start)

    def _schedule(self, course: Course, setup: Setup) -> Sigmas:
        return schedule(
            course.scheduler,
            _trained_levels(setup),
            course.steps,
            strength=course.strength,
            spare_step=self.sampler.spare_step != "never",
            is_sd15=_is_sd15(setup),
            as_fooocus=course.as_fooocus,
        )

    def _draw(self, seed: int) -> tuple[Tensor, NoiseSource]:
        """Draw the noise that a run starts from; the noise of its steps goes on from there on the CPU."""
        generator = seeded_generator(seed)
        noise = draw_noise(generator, self._shape)
        if self._path is not None:
            return noise, self._path
        if self._draw_device != "cpu":
            generator = seeded_generator(seed, self._draw_device)
        return noise, independent_noise(generator, self._shape, self._device)

    def _segment(
        self,
        setup: Setup,
        sigmas: Sigmas,
        source: NoiseSource,
        begin_with: Callable[[Ended | None], tuple[Tensor | None, Tensor]],
        *,
        hand_over: HandOver | None = None,
    ) -> Segment:
        """Make a run down `sigmas` from noise and latents; without noise the latents are already noisy enough."""
        levels = setup.denoiser.model.levels

        def start(ended: Ended | None) -> Sampling:
            noise, x = begin_with(ended)
            x = x.to(self._device)
            if noise is not None and sigmas:
                x = self._noisy(noise.to(self._device), x, sigmas[0], setup)
            return self.sampler.run(x, sigmas, source, levels)

        return Segment(setup, start, max(0, len(sigmas) - 1), hand_over)

    def _noisy(self, noise: Tensor, latents: Tensor, sigma: float, setup: Setup) -> Tensor:
        """Put the first noise on latents."""
        listing = self._course.listing
        if listing is not None:
            return noise * listing.start_scale + latents
        return initial_latents(noise, latents, sigma, _trained_levels(setup))


def _trained_levels(setup: Setup) -> TrainedLevels:
    levels = setup.denoiser.model.levels
    assert not isinstance(levels, ListedLevels)
    return levels


def _is_sd15(setup: Setup) -> bool:
    return setup.denoiser.model.latent_format == SD15
