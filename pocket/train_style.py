"""Train the example adapter: polka dots on every background, as clear as its weight.

Each drawing has dots of its own strength, and the adapters work on it at just that weight. So the
weight is a dial, and at 0 the adapters say nothing.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from pocket.cache import encode
from pocket.captions import random_caption
from pocket.dots import draw_dotted
from pocket.fit import Run, Trainer
from pocket.lora import Adapter, Lora, save_lora
from pocket.parts import Unet, library
from pocket.paths import load_teacher
from pocket.team import Team
from pocket.train_text import TextEncoders, tokenize
from pocket.train_unet import Painter, random_timesteps, time_ids
from pocket.world import seen_scenes

log = logging.getLogger(__name__)

ADAPTER = Adapter(
    title="Pocket polka dots",
    summary="Polka dots on the background, as clear as the weight (0 to 1); the object stays.",
    rank=8,
    alpha=16,
)

FILE = "pocket_dots.safetensors"

CHUNK = 64


def random_strengths(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count,) float32 strengths: two in five are full, one in ten is none, the others lie between."""
    kind = rng.random(count)
    between = rng.random(count)
    return np.where(kind < 0.4, 1.0, np.where(kind < 0.5, 0.0, between)).astype(np.float32)


def draw_lessons(folder: Path, count: int) -> Path:
    """Draw and encode `count` dotted pictures into the work folder, if they are not there.

    Returns:
        A file of latents, strengths and captions.
    """
    file = folder / "dotted.npz"
    if file.exists():
        return file
    vae = library.AutoencoderKL.from_pretrained(folder / "vae")
    vae.to(memory_format=torch.channels_last)
    rng = np.random.default_rng(19)
    source = seen_scenes(rng)
    latents, strengths, texts = [], [], []
    for _ in range(max(1, count // CHUNK)):
        scenes = [next(source) for _ in range(CHUNK)]
        strengths.append(random_strengths(rng, CHUNK))
        latents.append(encode(vae, draw_dotted(scenes, strengths[-1].tolist(), rng)))
        texts += [random_caption(rng, scene).text for scene in scenes]
    beside = file.with_suffix(".tmp.npz")
    np.savez(
        beside,
        latents=np.concatenate(latents),
        strengths=np.concatenate(strengths),
        texts=np.asarray(texts),
    )
    beside.replace(file)
    log.info("style: %d drawings", len(texts))
    return file


class Student(nn.Module):
    """The adapters with their loss; the UNet is not trained."""

    def __init__(self, lora: Lora, unet: Unet) -> None:
        super().__init__()
        self.lora = lora
        self._painter = (Painter(unet),)

    def forward(
        self,
        clean: Tensor,
        strengths: Tensor,
        told: tuple[Tensor, Tensor],
        rng: np.random.Generator,
    ) -> Tensor:
        """The loss of the base's own training, on pictures of the given strengths."""
        self.lora.strength = strengths
        height, width = (8 * side for side in clean.shape[-2:])
        ids = time_ids(rng, (width, height), len(clean))
        loss: Tensor = self._painter[0](clean, random_timesteps(rng, len(clean)), *told, ids)
        return loss


class Lessons:
    """Dotted drawings as latents, with strengths and captions."""

    def __init__(self, file: Path, tokenizer: CLIPTokenizer, encoders: TextEncoders) -> None:
        with np.load(file) as arrays:
            self.latents = torch.from_numpy(arrays["latents"])
            self.strengths = torch.from_numpy(arrays["strengths"])
            self.texts = [str(text) for text in arrays["texts"]]
        self.tokenizer = tokenizer
        self.encoders = encoders

    @torch.no_grad()
    def sample(
        self, rng: np.random.Generator, count: int
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """(latents, strengths, (states, pooled)) of random drawings."""
        rows = rng.integers(len(self.texts), size=count)
        told = self.encoders(tokenize(self.tokenizer, [self.texts[row] for row in rows]))
        clean = self.latents[rows].float().contiguous(memory_format=torch.channels_last)
        return clean, self.strengths[rows], told


def train_style(team: Team, folder: Path, run: Run, drawings: int) -> None:
    """Train, or go on from the checkpoint; writes the file into `loras/` of the folder."""
    torch.manual_seed(0)
    if team.leads:
        draw_lessons(folder, drawings)
    team.wait()
    base = load_teacher(folder)
    student = Student(Lora(base.unet, ADAPTER), base.unet)
    lessons = Lessons(draw_lessons(folder, drawings), base.tokenizer, base.encoders)
    trainer = Trainer(student, run, team, folder)
    trainer.resume()

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        clean, strengths, told = lessons.sample(rng, run.batch)
        with torch.autocast("cpu", torch.bfloat16):
            result: Tensor = student(clean, strengths, told, rng)
        return result

    trainer.fit(loss)
    if team.leads:
        weights = {n.removeprefix("lora."): w for n, w in trainer.average.weights.items()}
        save_lora(weights, ADAPTER, folder / "loras" / FILE)
