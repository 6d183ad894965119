"""Where the guided model takes noise: its paths down to pictures, on disk, for few-step students.

A path is a list of noisy latents at falling timesteps and the clean latents it ends in. Every point of
a path is a lesson: a student that answers any of them with the end needs no path of its own.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTokenizer

from pocket.cache import Cache
from pocket.captions import random_caption, short_caption
from pocket.parts import Unet, library
from pocket.team import Team
from pocket.train_text import TextEncoders, load_encoders, tokenize
from pocket.train_unet import BUCKET_ODDS, noise_levels
from pocket.world import BUCKETS, Scene

log = logging.getLogger(__name__)

GUIDANCE = 4.0
"""Scale towards the caption and away from the empty text, which students learn to do without."""

BATCH = 16
STEPS = 14
"""Points of a path that starts at the last timestep."""

_WHOLE = 0.6
"""Share of the paths that start from noise alone; the others start from a noisy drawing."""

_SHORT = 0.4
"""Share of captions of a word or two: what guidance does, a student learns from these above all."""

_LAST = 999


@dataclass(frozen=True)
class Paths:
    """Paths of one batch."""

    texts: list[str]
    timesteps: Tensor
    """(P,) falling, the same for the batch."""
    points: Tensor
    """(N, P, 4, h, w) noisy latents of variance 1."""
    ends: Tensor
    """(N, 4, h, w) clean latents."""

    def save(self, file: Path) -> None:
        """Write them in float16, whole: to a file beside it, then renamed."""
        beside = file.with_suffix(".tmp.npz")
        np.savez(
            beside,
            texts=np.asarray(self.texts),
            timesteps=self.timesteps.numpy(),
            points=self.points.half().numpy(),
            ends=self.ends.half().numpy(),
        )
        beside.replace(file)

    @staticmethod
    def load(file: Path) -> "Paths":
        """Read what `save` wrote."""
        with np.load(file) as arrays:
            return Paths(
                [str(text) for text in arrays["texts"]],
                torch.from_numpy(arrays["timesteps"]),
                torch.from_numpy(arrays["points"]),
                torch.from_numpy(arrays["ends"]),
            )


def spaced(rng: np.random.Generator, start: int) -> list[int]:
    """Timesteps from `start` down, about evenly spaced, elsewhere on each path."""
    count = max(2, round(STEPS * start / _LAST))
    shift = rng.uniform(-0.5, 0.5)
    return [start, *(round(start * (1 - (i + shift) / count)) for i in range(1, count))]


def true_sizes(size: tuple[int, int], count: int) -> Tensor:
    """(count, 6) size conditioning that says what is so: height, width, no crop, height, width."""
    width, height = size
    return torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32).expand(count, 6)


class Teacher:
    """The finished model with guidance, solved along its probability-flow ODE."""

    def __init__(self, unet: Unet, tokenizer: CLIPTokenizer, encoders: TextEncoders) -> None:
        self.unet = unet.requires_grad_(requires_grad=False)
        self.tokenizer = tokenizer
        self.encoders = encoders.requires_grad_(requires_grad=False)
        self.levels = noise_levels().double()

    def clean(
        self, x: Tensor, timestep: int, told: tuple[Tensor, Tensor], size: tuple[int, int]
    ) -> Tensor:
        """The guided guess of the clean latents; `told` has the empty text's rows before the caption's."""
        states, pooled = told
        noise = self.unet(
            torch.cat([x, x]),
            torch.full((2 * len(x),), float(timestep)),
            states,
            added_cond_kwargs={
                "text_embeds": pooled,
                "time_ids": true_sizes(size, 2 * len(x)),
            },
        ).sample
        empty, caption = noise.chunk(2)
        guided = empty + GUIDANCE * (caption - empty)
        level = float(self.levels[timestep])
        guess: Tensor = (x - (1 - level) ** 0.5 * guided) / level**0.5
        return guess

    @torch.no_grad()
    def walk(
        self, x: Tensor, timesteps: list[int], texts: list[str], size: tuple[int, int]
    ) -> Paths:
        """Follow the ODE from `x` (N, 4, h, w) at the first timestep to clean latents.

        Source: DPM-Solver++(2M), Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2.
        """
        told = self.encoders(tokenize(self.tokenizer, [*[""] * len(texts), *texts]))
        points, old, last = [], None, 0.0
        level = self.levels[timesteps[0]]
        for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
            points.append(x)
            guess = self.clean(x, timestep, told, size)
            if following is None:
                x = guess
                break
            next_level = self.levels[following]
            h = float((next_level / (1 - next_level)).log() - (level / (1 - level)).log()) / 2
            leap = guess if old is None else guess + (guess - old) * (h / (2 * last))
            noise_share = float(((1 - next_level) / (1 - level)).sqrt())
            x = noise_share * x - float(next_level.sqrt()) * float(np.expm1(-h)) * leap
            old, last, level = guess, h, next_level
        return Paths(texts, torch.tensor(timesteps), torch.stack(points, 1), x)


def load_teacher(folder: Path) -> Teacher:
    """The model in a work folder."""
    unet = library.UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return Teacher(unet.to(memory_format=torch.channels_last), tokenizer, load_encoders(folder))


def _caption(rng: np.random.Generator, scene: Scene) -> str:
    short = rng.random() < _SHORT
    return (short_caption(rng, scene) if short else random_caption(rng, scene)).text


def _start(
    teacher: Teacher, cache: Cache, rng: np.random.Generator, bucket: int
) -> tuple[Tensor, int, list[str]]:
    clean, scenes = cache.sample(rng, BATCH, bucket)
    texts = [_caption(rng, scene) for scene in scenes]
    noise = torch.from_numpy(rng.standard_normal(clean.shape).astype(np.float32))
    if rng.random() < _WHOLE:
        return noise, _LAST, texts
    start = int(rng.integers(150, 950))
    level = float(teacher.levels[start])
    return level**0.5 * clean + (1 - level) ** 0.5 * noise, start, texts


def fill_paths(team: Team, folder: Path, count: int) -> None:
    """Walk until the folder holds `count` paths; what is there is kept."""
    teacher, cache = load_teacher(folder), Cache(folder)
    target = folder / "paths"
    target.mkdir(exist_ok=True)
    for index in range(team.rank, -(-count // BATCH), team.size):
        rng = np.random.default_rng([13, index])
        bucket = int(rng.choice(len(BUCKETS), p=BUCKET_ODDS))
        file = target / f"{BUCKETS[bucket][0]}x{BUCKETS[bucket][1]}.{index:05}.npz"
        if file.exists():
            continue
        x, start, texts = _start(teacher, cache, rng, bucket)
        teacher.walk(x, spaced(rng, start), texts, BUCKETS[bucket]).save(file)
        if team.leads:
            log.info("paths: batch %d of %d", index + 1, -(-count // BATCH))


class Lessons:
    """Points of all paths, by bucket, with what they end in."""

    def __init__(self, folder: Path) -> None:
        self.paths: list[list[Paths]] = []
        for width, height in BUCKETS:
            files = sorted((folder / "paths").glob(f"{width}x{height}.?????.npz"))
            self.paths.append([Paths.load(file) for file in files])
        if not self.paths[0]:
            raise FileNotFoundError(f"{folder / 'paths'}: no paths of {BUCKETS[0]}")

    def buckets(self) -> Iterator[int]:
        """The buckets that have paths."""
        return (index for index, paths in enumerate(self.paths) if paths)

    def sample(
        self, rng: np.random.Generator, count: int, bucket: int
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """(count, 4, h, w) points, (count,) timesteps, the ends, and the texts.

        A third of the points are starts: they are the hardest, and every picture goes through one.
        """
        rows = []
        for _ in range(count):
            paths = self.paths[bucket][rng.integers(len(self.paths[bucket]))]
            point = 0 if rng.random() < 0.2 else int(rng.integers(len(paths.timesteps)))
            rows.append((paths, int(rng.integers(len(paths.texts))), point))
        return (
            torch.stack([paths.points[i, p] for paths, i, p in rows]).float(),
            torch.stack([paths.timesteps[p] for paths, _, p in rows]),
            torch.stack([paths.ends[i] for paths, i, _ in rows]).float(),
            [paths.texts[i] for paths, i, _ in rows],
        )
