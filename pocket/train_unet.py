"""Train the UNet on cached latents, with the text encoders frozen."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTokenizer

from pocket.cache import Cache
from pocket.captions import random_caption
from pocket.fit import Run, Trainer
from pocket.parts import Unet, library, make_scheduler, make_unet
from pocket.starts import start_unet
from pocket.team import Team
from pocket.train_text import TextEncoders, load_encoders, tokenize
from pocket.world import BUCKETS, Scene

log = logging.getLogger(__name__)

BUCKET_ODDS = (0.9, 0.05, 0.05)
ZEROED = 0.08
"""Share of pictures whose conditioning is all zero, as SDXL's is for an empty negative prompt."""

_SKEW = 0.7
_SNR_FLOOR, _SNR_CEILING = 0.6, 5.0


def time_ids(rng: np.random.Generator, size: tuple[int, int], count: int) -> Tensor:
    """(count, 6): original height and width, crop, target height and width, as SDXL orders them.

    Half of the pictures claim their true size, the others one of 0.6 to 2 times that, because tools
    around SDXL use that number as a dial.
    """
    width, height = size
    scale = np.where(rng.random(count) < 0.5, 1.0, rng.uniform(0.6, 2.05, count))
    crop = rng.integers(0, 17, (count, 2)) * (rng.random((count, 1)) < 0.15)
    ids = np.stack(
        [
            np.round(height * scale),
            np.round(width * scale),
            crop[:, 0],
            crop[:, 1],
            np.full(count, height),
            np.full(count, width),
        ],
        axis=1,
    )
    return torch.from_numpy(ids.astype(np.float32))


def bucket_of(seed: int, step: int) -> int:
    """The bucket of a step, the same for the whole team, so that nobody waits long."""
    return int(np.random.default_rng([seed, step]).choice(len(BUCKETS), p=BUCKET_ODDS))


def noise_levels() -> Tensor:
    """(1000,) cumulative products of SDXL's alphas."""
    levels: Tensor = make_scheduler().alphas_cumprod
    return levels


def loss_weights(levels: Tensor) -> Tensor:
    """Weight of the squared error in the noise at each timestep.

    Seen from the clean picture the weight is the signal to noise ratio, held between a floor, so
    that the noisiest steps are learnt too, and a ceiling.
    """
    ratio = levels / (1 - levels)
    return ratio.clamp(_SNR_FLOOR, _SNR_CEILING) / ratio


def random_timesteps(rng: np.random.Generator, count: int) -> Tensor:
    """Timesteps spread evenly over the batch, skewed towards noise."""
    u = (rng.permutation(count) + rng.random(count)) / count
    return torch.from_numpy((u**_SKEW * 1000).astype(np.int64)).clamp_(0, 999)


class Painter(nn.Module):
    """The UNet with its loss."""

    levels: Tensor
    weights: Tensor

    def __init__(self, unet: Unet) -> None:
        super().__init__()
        self.unet = unet
        levels = noise_levels()
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("weights", loss_weights(levels), persistent=False)

    def forward(
        self,
        clean: Tensor,
        timesteps: Tensor,
        states: Tensor,
        pooled: Tensor,
        ids: Tensor,
        **more: Any,
    ) -> Tensor:
        """The weighted loss of a batch; what partners add goes to the UNet as it is."""
        noise = torch.randn_like(clean)
        level = self.levels[timesteps][:, None, None, None]
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        told = {"text_embeds": pooled, "time_ids": ids}
        guess = self.unet(noisy, timesteps, states, added_cond_kwargs=told, **more).sample
        error = (guess.float() - noise).square().mean((1, 2, 3))
        loss: Tensor = (self.weights[timesteps] * error).mean()
        return loss


class Lessons:
    """Batches of latents, timesteps and conditioning from cache and captions."""

    def __init__(self, cache: Cache, tokenizer: CLIPTokenizer, encoders: TextEncoders) -> None:
        self.cache = cache
        self.tokenizer = tokenizer
        self.encoders = encoders.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def condition(self, rng: np.random.Generator, scenes: list[Scene]) -> tuple[Tensor, Tensor]:
        """Encode a random caption of each scene; some are zeroed."""
        texts = [random_caption(rng, scene).text for scene in scenes]
        states, pooled = self.encoders(tokenize(self.tokenizer, texts))
        keep = torch.from_numpy(rng.random(len(texts)) >= ZEROED).float()
        return states * keep[:, None, None], pooled * keep[:, None]

    def batch(self, rng: np.random.Generator, count: int, bucket: int) -> tuple[Tensor, ...]:
        """(latents, timesteps, states, pooled, time ids) of one bucket."""
        clean, scenes = self.cache.sample(rng, count, bucket)
        clean = clean.contiguous(memory_format=torch.channels_last)
        states, pooled = self.condition(rng, scenes)
        ids = time_ids(rng, BUCKETS[bucket], count)
        return clean, random_timesteps(rng, count), states, pooled, ids


def load_lessons(folder: Path) -> Lessons:
    """Everything that batches are made of, from the work folder."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return Lessons(Cache(folder), tokenizer, load_encoders(folder))


def train_unet(team: Team, folder: Path, run: Run, start: Path | None, *, compiled: bool) -> None:
    """Train, or go on from the checkpoint; `start` holds a UNet to begin from instead of nothing."""
    torch.manual_seed(0)
    if start is None:
        unet = make_unet()
        start_unet(unet)
    else:
        unet = library.UNet2DConditionModel.from_pretrained(start / "unet", dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())  # on a CPU the fused attention is slow backwards
    painter = Painter(unet.to(memory_format=torch.channels_last))
    lessons = load_lessons(folder)
    trainer = Trainer(painter, run, team, folder)
    trainer.resume()
    square = torch.compile(painter, dynamic=False) if compiled else painter

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        bucket = bucket_of(run.seed, step)
        batch = lessons.batch(rng, run.batch, bucket)
        with torch.autocast("cpu", torch.bfloat16):
            result: Tensor = square(*batch) if bucket == 0 else painter(*batch)
        return result

    trainer.fit(loss)
