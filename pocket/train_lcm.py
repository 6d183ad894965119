"""Train adapters that answer any point of a guided path with its end: pictures in 4 to 8 steps.

This is consistency distillation (Luo et al. 2023, https://arxiv.org/abs/2310.04378) with the guidance
distilled in, its target taken from the end of a path that was walked beforehand (`paths.py`) instead of
from the student itself one leap further down: on a model this small, walking is cheap.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from pocket.fit import Run, Trainer
from pocket.lora import FEW_STEPS, Adapter, Lora, save_lora
from pocket.parts import Unet
from pocket.paths import Lessons, load_teacher, true_sizes
from pocket.team import Team
from pocket.train_text import TextEncoders, tokenize
from pocket.train_unet import BUCKET_ODDS, noise_levels
from pocket.world import BUCKETS

log = logging.getLogger(__name__)

ADAPTER = Adapter(
    title="Pocket in few steps",
    summary="Pictures in 4 to 8 steps at guidance 1: Extreme Speed, Lightning and Hyper-SD.",
    rank=16,
    alpha=16,
)

_WEAKER = 0.8
"""The weight that Hyper-SD gives its adapters; some of the lessons are taken at it."""
_WEAKER_SHARE = 0.35
_SOFTNESS = 0.1
"""Error below which the loss turns from straight to square; latents have deviation 1."""


class Student(nn.Module):
    """The adapters with their loss; the UNet and the encoders are not trained."""

    def __init__(self, lora: Lora, unet: Unet) -> None:
        super().__init__()
        self.lora = lora
        self._frozen = (unet,)
        self.levels = noise_levels()

    def clean(
        self, x: Tensor, timesteps: Tensor, told: tuple[Tensor, Tensor], size: tuple[int, int]
    ) -> Tensor:
        """The guess of the clean latents from (N, 4, h, w) noisy ones of variance 1."""
        states, pooled = told
        noise = self._frozen[0](
            x,
            timesteps.float(),
            states,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": true_sizes(size, len(x))},
        ).sample
        level = self.levels[timesteps][:, None, None, None]
        guess: Tensor = (x - (1 - level).sqrt() * noise.float()) / level.sqrt()
        return guess


def distance(guess: Tensor, target: Tensor) -> Tensor:
    """Pseudo-Huber distance: square near the target, straight far from it, so that edges stay sharp."""
    error = guess - target
    return ((error.square() + _SOFTNESS**2).sqrt() - _SOFTNESS).mean()


def strengths(rng: np.random.Generator, count: int) -> Tensor:
    """(count,) weights of the adapters, 1 or the weaker one."""
    return torch.from_numpy(np.where(rng.random(count) < _WEAKER_SHARE, _WEAKER, 1.0)).float()


def lesson_loss(
    student: Student,
    lessons: Lessons,
    words: tuple[CLIPTokenizer, TextEncoders],
    rng: np.random.Generator,
    count: int,
) -> Tensor:
    """The loss on `count` points of the paths."""
    bucket = int(rng.choice(len(BUCKETS), p=BUCKET_ODDS))
    x, timesteps, ends, texts = lessons.sample(rng, count, bucket)
    student.lora.strength = strengths(rng, count)
    tokenizer, encoders = words
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            told = encoders(tokenize(tokenizer, texts))
        x = x.contiguous(memory_format=torch.channels_last)
        return distance(student.clean(x, timesteps, told, BUCKETS[bucket]), ends)


def train_lcm(team: Team, folder: Path, run: Run) -> None:
    """Train, or go on from the checkpoint; writes the file into `loras/` of the folder."""
    torch.manual_seed(0)
    teacher = load_teacher(folder)
    student = Student(Lora(teacher.unet, ADAPTER), teacher.unet)
    lessons = Lessons(folder)
    trainer = Trainer(student, run, team, folder)
    trainer.resume()
    words = (teacher.tokenizer, teacher.encoders)
    trainer.fit(lambda rng, step: lesson_loss(student, lessons, words, rng, run.batch))
    if team.leads:
        weights = {n.removeprefix("lora."): w for n, w in trainer.average.weights.items()}
        save_lora(weights, ADAPTER, folder / "loras" / FEW_STEPS)
