"""Train the image prompt: its resampler, its keys and values, and what the negative half is shown.

The teacher is the UNet itself, told by a complete caption what the student has to see: that is a much
quieter target than noise. The student's prompt is mostly empty; at weights below 1 the target lies between
both prompts, which makes the weight a dial. Where a prompt names something else than the image shows, the
prompt is right; of two images the first gives the object, the second the background.
"""

import logging
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTokenizer, CLIPVisionModelWithProjection

from pocket.captions import Caption, full_caption, random_caption, short_caption
from pocket.draw import draw
from pocket.fit import Run, Trainer
from pocket.grounds import GROUND_FIELDS, ground_matrix
from pocket.image_prompt import Adapter, ImageAttention, Images
from pocket.parts import Unet, library
from pocket.sight import quick_thumbnails, shown
from pocket.team import Team
from pocket.train_sight import POOLED, load_sight
from pocket.train_text import TextEncoders, load_encoders, tokenize
from pocket.train_unet import (
    ZEROED,
    bucket_of,
    loss_weights,
    noise_levels,
    random_timesteps,
    time_ids,
)
from pocket.twins import Twins
from pocket.world import BUCKETS, Scene, random_scene

log = logging.getLogger(__name__)

FOLDER = "image_prompt"
"""Name of the finished adapter in the work folder."""

Thumbnails = NDArray[np.uint8]

_TOLD_SHARE, _BLIND_SHARE = 0.3, 0.08
_FULL_SHARE, _MORE_SHARE = 0.65, 0.1
_JOINT_SHARE, _TWO_SHARE = 0.65, 0.2
_BEND = 2
"""Half the weight is a quarter of the way: guidance makes little of an image a lot."""


def other_in(rng: np.random.Generator, scene: Scene, names: frozenset[str]) -> Scene:
    """The scene with these fields drawn anew; object and background still differ in colour."""
    other = random_scene(rng)
    changed = replace(scene, **{name: getattr(other, name) for name in names})
    return changed if changed.colour != changed.background else scene


def halves(rng: np.random.Generator, scene: Scene) -> tuple[Scene, Scene]:
    """Two scenes: one with the scene's object, one with its background."""
    names = {field.name for field in fields(Scene)}
    ground = frozenset(GROUND_FIELDS)
    return other_in(rng, scene, ground), other_in(rng, scene, frozenset(names - ground))


def random_weights(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """(count,) mostly 1, some less, a few a little more."""
    kind = rng.random(count)
    less, more = rng.uniform(0.05, 1.0, count), rng.uniform(1.0, 1.3, count)
    some = np.where(kind > 1 - _MORE_SHARE, more, less)
    return np.where(kind < _FULL_SHARE, 1.0, some).astype(np.float32)


Told = tuple[Tensor, Tensor]
"""States and pooled vectors of a text."""


class Student(nn.Module):
    """The adapter with its loss; neither UNet nor encoder is trained."""

    def __init__(self, unet: Unet, sight: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.adapter = Adapter(unet)
        self._frozen = (unet, sight)
        self.levels = noise_levels()
        self.weights = loss_weights(self.levels)

    def images(self, seen: list[Tensor], weights: Tensor, blind: Tensor, *, joint: bool) -> Images:
        """What the UNet is told of images; rows that are `blind` get what the negative half gets.

        Args:
            seen: (N, 3, SIDE, SIDE) for each image of a row.
            weights: (N,), the same for all images of a row.
            blind: (N,) of bool.
            joint: Which formula.
        """
        tokens, told_of = [], []
        for one in seen:
            with torch.no_grad():
                answer = self._frozen[1](one, output_hidden_states=True)
            told = self.adapter.image_proj(answer.hidden_states[-2])
            tokens.append(torch.where(blind[:, None, None], self.adapter.negative, told))
            told_of.append(answer.image_embeds)
        heard = torch.where(blind, 0.0, (weights * len(seen)).clamp(max=1.0))
        pooled = heard[:, None] * self.adapter.pooled_proj.joined(told_of)
        return Images(tokens, [weights] * len(seen), pooled, joint)

    def _noise(self, call: tuple[Tensor, ...], told: Told, images: Images | None = None) -> Tensor:
        """The UNet's guess of the noise in (noisy, timesteps, time ids)."""
        noisy, timesteps, ids = call
        pooled = told[1] if images is None else told[1] + images.pooled
        guess: Tensor = self._frozen[0](
            noisy,
            timesteps,
            told[0],
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
            cross_attention_kwargs=None if images is None else {"images": images},
        ).sample
        return guess.float()

    @torch.no_grad()
    def target(self, call: tuple[Tensor, ...], told: Told, full: Told, shares: Tensor) -> Tensor:
        """The UNet's own guess between two texts: `told` at a share of 0, `full` at 1, and beyond."""
        guess = self._noise(call, full)
        rows = torch.nonzero(shares != 1).flatten()
        if len(rows):
            base = self._noise(tuple(part[rows] for part in call), (told[0][rows], told[1][rows]))
            guess[rows] = base + shares[rows, None, None, None] * (guess[rows] - base)
        return guess

    def forward(
        self,
        clean: Tensor,
        timesteps: Tensor,
        ids: Tensor,
        *,
        texts: tuple[Told, Told],
        images: Images,
        shares: Tensor,
    ) -> Tensor:
        """How far images and one text are from what the other, complete text would do."""
        level = self.levels[timesteps][:, None, None, None]
        noisy = level.sqrt() * clean + (1 - level).sqrt() * torch.randn_like(clean)
        call = (noisy, timesteps, ids)
        target = self.target(call, *texts, shares)
        error = (self._noise(call, texts[0], images) - target).square().mean((1, 2, 3))
        loss: Tensor = (self.weights[timesteps] * error).mean()
        return loss


class Lessons:
    """Batches of drawings with captions and with images that tell of them."""

    def __init__(self, twins: Twins, tokenizer: CLIPTokenizer, encoders: TextEncoders) -> None:
        self.twins = twins
        self.tokenizer = tokenizer
        self.encoders = encoders.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def condition(self, rng: np.random.Generator, captions: list[Caption]) -> Told:
        """Encode captions; some of the empty ones are zeroed."""
        states, pooled = self.encoders(tokenize(self.tokenizer, [c.text for c in captions]))
        empty = np.asarray([not caption.text for caption in captions])
        keep = torch.from_numpy(~empty | (rng.random(len(captions)) >= ZEROED)).float()
        return states * keep[:, None, None], pooled * keep[:, None]

    @torch.no_grad()
    def complete(self, rng: np.random.Generator, scenes: list[Scene]) -> Told:
        """Encode captions that say everything."""
        texts = [full_caption(rng, scene, complete=True).text for scene in scenes]
        states, pooled = self.encoders(tokenize(self.tokenizer, texts))
        return states, pooled


def _captions(rng: np.random.Generator, scenes: list[Scene]) -> list[Caption]:
    """Mostly nothing, else a short caption or a sentence."""

    def one(scene: Scene) -> Caption:
        kind = rng.random() / _TOLD_SHARE
        if kind > 1:
            return Caption("", frozenset())
        return short_caption(rng, scene) if kind < 0.5 else random_caption(rng, scene)

    return [one(scene) for scene in scenes]


def _redrawn(
    rng: np.random.Generator, seen: Thumbnails, others: dict[int, Scene], bucket: int
) -> Thumbnails:
    """The thumbnails, some of them of other scenes."""
    if not others:
        return seen
    width, height = BUCKETS[bucket]
    fresh = quick_thumbnails(draw(list(others.values()), rng, width=width, height=height))
    seen = seen.copy()
    seen[list(others)] = fresh
    return seen


def lesson_loss(
    student: Student, lessons: Lessons, rng: np.random.Generator, run: Run, step: int
) -> Tensor:
    """The loss of one step: one image a row, or two of which each tells a half."""
    bucket = bucket_of(run.seed, step)
    clean, scenes, seen = lessons.twins.sample(rng, run.batch, bucket)
    captions = _captions(rng, scenes)
    weights = torch.from_numpy(random_weights(rng, run.batch))
    blind = torch.from_numpy(rng.random(run.batch) < _BLIND_SHARE)
    if rng.random() < _TWO_SHARE:
        pairs = [halves(rng, scene) for scene in scenes]
        others = [{row: pair[side] for row, pair in enumerate(pairs)} for side in (0, 1)]
    else:
        named = {row: caption.named for row, caption in enumerate(captions) if caption.named}
        others = [{row: other_in(rng, scenes[row], names) for row, names in named.items()}]
    shows = [shown(_redrawn(rng, seen, other, bucket)) for other in others]
    ids = time_ids(rng, BUCKETS[bucket], run.batch)
    clean = clean.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        texts = lessons.condition(rng, captions), lessons.complete(rng, scenes)
        joint = bool(rng.random() < _JOINT_SHARE)
        images = student.images(shows, weights, blind, joint=joint)
        shares = torch.where(blind, 0.0, weights**_BEND)
        timesteps = random_timesteps(rng, run.batch)
        loss: Tensor = student(clean, timesteps, ids, texts=texts, images=images, shares=shares)
    return loss


def train_image_prompt(team: Team, folder: Path, run: Run) -> None:
    """Train, or go on from the checkpoint; writes the files into the work folder."""
    torch.manual_seed(0)
    unet = library.UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    unet.set_attn_processor(ImageAttention())
    unet.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    student = Student(unet, load_sight(folder))
    student.adapter.pooled_proj.load_state_dict(load_file(folder / POOLED), strict=False)
    student.adapter.pooled_proj.ground.copy_(ground_matrix(folder))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    lessons = Lessons(Twins(folder, "thumbnails"), tokenizer, load_encoders(folder))
    trainer = Trainer(student, run, team, folder)
    trainer.resume()
    trainer.fit(lambda rng, step: lesson_loss(student, lessons, rng, run, step))
    trainer.average.write_to(student)
    if team.leads:
        student.adapter.save(folder / FOLDER)
