"""One set of weights, words and a seed, sampled by diffusers' own pipeline and by ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.conditioning.branch import Branch
from engine.conditioning.size_ids import size_ids
from engine.geometry import LATENT_FACTOR, Size
from engine.loop import Denoiser, Setup, step
from engine.passes import Course, begin
from engine.plan import Guidance
from engine.sampling.listings import listing
from tests.stock_schedulers import stock_scheduler

SMALL = Size(64, 64)


@dataclass(frozen=True)
class Words:
    """What both are told: contexts (1, tokens, C) and pooled texts (1, P), the negative side first."""

    contexts: tuple[Tensor, Tensor]
    pooled: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sitting:
    """Everything that decides the latents."""

    unet: Any
    words: Words
    scheduler: str
    steps: int = 6
    size: Size = SMALL
    seed: int = 7
    guidance_scale: float = 5.0
    timesteps: Sequence[int] = ()
    sigmas: Sequence[float] = ()
    eta: float = 0.0
    prediction_type: str = "epsilon"
    is_zero_snr: bool = False

    def by_diffusers(self) -> Tensor:
        """Run `StableDiffusionXLPipeline`; gives latents (1, 4, h, w)."""
        from diffusers import StableDiffusionXLPipeline

        parts = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        scheduler = stock_scheduler(
            self.scheduler, prediction_type=self.prediction_type, is_zero_snr=self.is_zero_snr
        )
        pipeline = StableDiffusionXLPipeline(
            **dict.fromkeys(parts),
            unet=self.unet,
            scheduler=scheduler,
            add_watermarker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        lists: dict[str, Any] = {"timesteps": list(self.timesteps) or None}
        if self.sigmas:
            lists["sigmas"] = [*self.sigmas, 0.0]
        latents: Tensor = pipeline(
            negative_prompt_embeds=self.words.contexts[0],
            prompt_embeds=self.words.contexts[1],
            negative_pooled_prompt_embeds=self.words.pooled[0],
            pooled_prompt_embeds=self.words.pooled[1],
            width=self.size.width,
            height=self.size.height,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            generator=torch.Generator().manual_seed(self.seed),
            eta=self.eta,
            output_type="latent",
            return_dict=False,
            **lists,
        )[0]
        return latents

    def by_us(self) -> Tensor:
        """Run our loop; gives latents (1, 4, h, w)."""
        walk = listing(
            self.scheduler,
            self.steps,
            timesteps=self.timesteps,
            sigmas=self.sigmas,
            eta=self.eta,
            is_zero_snr=self.is_zero_snr,
        )
        denoiser = Denoiser(self.unet, walk.model_sampling(self.prediction_type))
        ids = size_ids(self.size, 1.0, end=0.0, grid=1)
        negative, positive = (
            Branch(context, pooled, ids)
            for context, pooled in zip(self.words.contexts, self.words.pooled, strict=True)
        )
        guidance = Guidance(
            guidance_scale=self.guidance_scale, adaptive_cfg=self.guidance_scale, sharpness=0.0
        )
        course = Course(
            sampler=self.scheduler,
            scheduler="diffusers",
            steps=self.steps,
            strength=1.0,
            seed=self.seed,
            guidance=guidance,
            listing=walk,
        )
        setup = Setup(denoiser, positive, negative if guidance.needs_negative else None)
        width, height = (side // LATENT_FACTOR for side in self.size)
        running = begin(course, setup, torch.zeros(1, 4, height, width))
        while not running.is_done:
            step([running])
        return running.latents


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the standard deviation of what was expected."""
    return float((ours - theirs).abs().max() / theirs.std())
