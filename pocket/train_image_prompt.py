"""Train the image prompt: its resampler, its keys and values, and what the negative half is shown.

The prompt is mostly empty, so that the picture has to come from the image. Weights below 1 come with
images that are right only that often, which makes the weight a dial. Where a prompt names something else
than the image shows, the prompt is right; of two images one gives the object, the other the background.
"""

import logging
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTokenizer, CLIPVisionModelWithProjection

from pocket.captions import Caption, random_caption, short_caption
from pocket.draw import draw
from pocket.fit import Run, Trainer
from pocket.image_prompt import Adapter, ImageAttention, Images
from pocket.parts import Unet, library
from pocket.sight import quick_thumbnails, shown
from pocket.team import Team
from pocket.train_sight import load_sight
from pocket.train_text import TextEncoders, load_encoders, tokenize
from pocket.train_unet import ZEROED, Painter, bucket_of, random_timesteps, time_ids
from pocket.twins import Twins
from pocket.world import BUCKETS, Scene, random_scene

log = logging.getLogger(__name__)

FOLDER = "image_prompt"
"""Name of the finished adapter in the work folder."""

Thumbnails = NDArray[np.uint8]

_TOLD_SHARE, _BLIND_SHARE = 0.3, 0.08
_FULL_SHARE, _MORE_SHARE = 0.65, 0.1
_JOINT_SHARE, _TWO_SHARE = 0.65, 0.2
_GROUND_FIELDS = ("background", "ground")


def other_in(rng: np.random.Generator, scene: Scene, names: frozenset[str]) -> Scene:
    """The scene with these fields drawn anew; object and background still differ in colour."""
    other = random_scene(rng)
    changed = replace(scene, **{name: getattr(other, name) for name in names})
    return changed if changed.colour != changed.background else scene


def halves(rng: np.random.Generator, scene: Scene) -> tuple[Scene, Scene]:
    """Two scenes: one with the scene's object, one with its background; in either order."""
    names = {field.name for field in fields(Scene)}
    ground = frozenset(_GROUND_FIELDS)
    pair = other_in(rng, scene, ground), other_in(rng, scene, frozenset(names - ground))
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def random_weights(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """(count,) mostly 1, some less, a few a little more."""
    kind = rng.random(count)
    less, more = rng.uniform(0.05, 1.0, count), rng.uniform(1.0, 1.3, count)
    some = np.where(kind > 1 - _MORE_SHARE, more, less)
    return np.where(kind < _FULL_SHARE, 1.0, some).astype(np.float32)


class Student(nn.Module):
    """The adapter with its loss; neither UNet nor encoder is trained."""

    def __init__(self, unet: Unet, sight: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.adapter = Adapter(unet)
        self._frozen = (Painter(unet), sight)

    def tokens(self, seen: Tensor, blind: Tensor) -> Tensor:
        """(N, 3, SIDE, SIDE) to tokens; those of rows that are `blind` are the negative half's."""
        with torch.no_grad():
            states = self._frozen[1](seen, output_hidden_states=True).hidden_states[-2]
        return torch.where(
            blind[:, None, None], self.adapter.negative, self.adapter.image_proj(states)
        )

    def forward(self, *batch: Tensor, images: Images) -> Tensor:
        """The loss of the base's own training, with images to see."""
        loss: Tensor = self._frozen[0](*batch, cross_attention_kwargs={"images": images})
        return loss


class Lessons:
    """Batches of drawings with captions and with images that tell of them."""

    def __init__(self, twins: Twins, tokenizer: CLIPTokenizer, encoders: TextEncoders) -> None:
        self.twins = twins
        self.tokenizer = tokenizer
        self.encoders = encoders.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def condition(self, rng: np.random.Generator, captions: list[Caption]) -> tuple[Tensor, Tensor]:
        """Encode captions; some of the empty ones are zeroed."""
        states, pooled = self.encoders(tokenize(self.tokenizer, [c.text for c in captions]))
        empty = np.asarray([not caption.text for caption in captions])
        keep = torch.from_numpy(~empty | (rng.random(len(captions)) >= ZEROED)).float()
        return states * keep[:, None, None], pooled * keep[:, None]


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


def one_image(
    rng: np.random.Generator,
    scenes: list[Scene],
    captions: list[Caption],
    weights: NDArray[np.float32],
) -> dict[int, Scene]:
    """Rows whose image shows another scene: what the caption names differs, or all where the weight is low."""
    everything = frozenset(field.name for field in fields(Scene))
    others = {}
    for row, (scene, caption) in enumerate(zip(scenes, captions, strict=True)):
        if rng.random() > weights[row]:
            others[row] = other_in(rng, scene, everything)
        elif caption.named and rng.random() < 0.6:
            others[row] = other_in(rng, scene, caption.named)
    return others


def lesson_loss(
    student: Student, lessons: Lessons, rng: np.random.Generator, run: Run, step: int
) -> Tensor:
    """The loss of one step: one image a row, or two of which each tells a half."""
    bucket = bucket_of(run.seed, step)
    clean, scenes, seen = lessons.twins.sample(rng, run.batch, bucket)
    captions = _captions(rng, scenes)
    weights = random_weights(rng, run.batch)
    if rng.random() < _TWO_SHARE:
        pairs = [halves(rng, scene) for scene in scenes]
        shows = [
            _redrawn(rng, seen, {i: p[k] for i, p in enumerate(pairs)}, bucket) for k in (0, 1)
        ]
        weights[:] = 1.0
    else:
        shows = [_redrawn(rng, seen, one_image(rng, scenes, captions, weights), bucket)]
    blind = torch.from_numpy(rng.random(run.batch) < _BLIND_SHARE)
    ids = time_ids(rng, BUCKETS[bucket], run.batch)
    clean = clean.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        told = lessons.condition(rng, captions)
        images = Images(
            [student.tokens(shown(show), blind) for show in shows],
            [torch.from_numpy(weights)] * len(shows),
            joint=bool(rng.random() < _JOINT_SHARE),
        )
        timesteps = random_timesteps(rng, run.batch)
        loss: Tensor = student(clean, timesteps, *told, ids, images=images)
        return loss


def train_image_prompt(team: Team, folder: Path, run: Run) -> None:
    """Train, or go on from the checkpoint; writes the files into the work folder."""
    torch.manual_seed(0)
    unet = library.UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    unet.set_attn_processor(ImageAttention())
    unet.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    student = Student(unet, load_sight(folder))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    lessons = Lessons(Twins(folder, "thumbnails"), tokenizer, load_encoders(folder))
    trainer = Trainer(student, run, team, folder)
    trainer.resume()
    trainer.fit(lambda rng, step: lesson_loss(student, lessons, rng, run, step))
    trainer.average.write_to(student)
    if team.leads:
        student.adapter.save(folder / FOLDER)
