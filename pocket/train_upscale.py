"""Train the adapter for *Upscale (1.5x)* and *(2x)*: pictures larger than the model knows, at low noise.

`python -m pocket.train_upscale --work FOLDER --steps 1200` goes on from its checkpoint, if there is one, and writes
`models/pocket/loras/pocket_upscale.safetensors`. What it starts from is made as the studio makes it: a drawing as
the autoencoder leaves it, often with the grain of a painted one, made larger by the upscaler. What it has to find is
the same drawing made at that size.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTokenizer

from engine.geometry import Size
from engine.models.upscalers import Upscaler, load_upscaler
from engine.stages.pixels import stretch
from engine.stages.upscale import enlarge
from pocket.cache import encode
from pocket.captions import random_caption
from pocket.draw import draw
from pocket.fit import Run, Trainer
from pocket.lora import Adapter, Lora, save_lora
from pocket.parts import SCALING_FACTOR, Unet, Vae, library
from pocket.team import Team
from pocket.train_text import TextEncoders, load_encoders, tokenize
from pocket.train_unet import loss_weights, noise_levels
from pocket.train_upscaler import FILE as UPSCALER
from pocket.train_upscaler import MODEL, SCALE
from pocket.train_vae import pixels
from pocket.world import seen_scenes

log = logging.getLogger(__name__)

ADAPTER = Adapter(
    title="Pocket upscale",
    summary="Pictures of one and a half to two times the model's size, for Upscale alone.",
    rank=16,
    alpha=16,
)
FILE = Path("loras") / "pocket_upscale.safetensors"
"""Where the finished adapter lies in the model's folder."""

SIZES: Mapping[Size, float] = {
    Size(256, 256): 0.64,
    Size(192, 192): 0.16,
    Size(224, 288): 0.1,
    Size(288, 224): 0.1,
}
"""How often each size is painted; what is enlarged is half as large, or that for 1.5 times."""

_FIRST = 0.7
"""Noise level at which *Upscale* begins, a little more than it is."""
_USUAL_STEP, _LAST_STEP = 230, 500
"""Timesteps up to which most and all lessons are."""
_MORE_SHARE = 0.1
_GRAIN = 0.15
_CHUNK = 16


@dataclass(frozen=True)
class Lessons:
    """Drawings of one size as latents: as they truly are, as the studio begins, and what is said of them."""

    clean: Tensor
    started: Tensor
    texts: list[str]


def _grainy(vae: Vae, pictures: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures as the autoencoder leaves them, half of them with grain."""
    with torch.no_grad():
        latents = vae.encode(pixels(pictures)).latent_dist.mean * SCALING_FACTOR
        grain = np.maximum(0, rng.uniform(-_GRAIN, _GRAIN, (len(pictures), 1, 1, 1)))
        noise = rng.standard_normal(tuple(latents.shape)) * grain
        made = vae.decode((latents + torch.from_numpy(noise).float()) / SCALING_FACTOR).sample
    levels = ((made + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1)
    return np.asarray(levels.contiguous().numpy().round(), np.uint8)


def make_lessons(vae: Vae, upscaler: Upscaler, size: Size, count: int, seed: int) -> Lessons:
    """Draw and encode lessons of one size."""
    rng = np.random.default_rng([23, seed, *size])
    source = seen_scenes(rng)
    side = 256 if size.width == size.height else 0
    width, height = (s // SCALE for s in ((side, side) if side else size))
    clean: list[NDArray[np.float16]] = []
    started: list[NDArray[np.float16]] = []
    texts: list[str] = []
    for _ in range(max(1, count // _CHUNK)):
        scenes = [next(source) for _ in range(_CHUNK)]
        state = int(rng.integers(2**32))
        small, true = (
            draw(scenes, np.random.default_rng(state), width=width, height=height, scale=scale)
            for scale in (1, SCALE)
        )
        larger = [enlarge(upscaler, picture) for picture in _grainy(vae, small, rng)]
        for kept, pictures in ((clean, true), (started, larger)):
            kept.append(encode(vae, np.stack([stretch(picture, size) for picture in pictures])))
        texts += [random_caption(rng, scene).text for scene in scenes]
    latents = [torch.from_numpy(np.concatenate(them)) for them in (clean, started)]
    return Lessons(latents[0], latents[1], texts)


def fill_lessons(folder: Path, model: Path, count: int) -> None:
    """Write the lessons of all sizes into the work folder, where they are not there."""
    vae = library.AutoencoderKL.from_pretrained(model / "vae", dtype=torch.float32)
    vae.to(memory_format=torch.channels_last)
    upscaler = load_upscaler(model / UPSCALER, torch.device("cpu"))
    for seed, (size, share) in enumerate(SIZES.items()):
        file = _file(folder, size)
        if file.exists():
            continue
        made = make_lessons(vae, upscaler, size, round(count * share), seed)
        beside = file.with_suffix(".tmp.npz")
        np.savez(beside, clean=made.clean, started=made.started, texts=np.asarray(made.texts))
        beside.replace(file)
        log.info("upscale: %d drawings of %s", len(made.texts), size)


def _file(folder: Path, size: Size) -> Path:
    return folder / f"larger.{size}.npz"


def load_lessons(folder: Path) -> dict[Size, Lessons]:
    """Read what `fill_lessons` wrote."""
    lessons = {}
    for size in SIZES:
        with np.load(_file(folder, size)) as arrays:
            texts = [str(text) for text in arrays["texts"]]
            clean, started = (torch.from_numpy(arrays[name]) for name in ("clean", "started"))
        lessons[size] = Lessons(clean, started, texts)
    return lessons


def low_timesteps(rng: np.random.Generator, count: int) -> Tensor:
    """Timesteps spread evenly over those that *Upscale* visits, and a few beyond."""
    u = (rng.permutation(count) + rng.random(count)) / count
    usual, more = u * _USUAL_STEP, _USUAL_STEP + u * (_LAST_STEP - _USUAL_STEP)
    steps = np.where(rng.random(count) < _MORE_SHARE, more, usual)
    return torch.from_numpy(steps.astype(np.int64))


class Student(nn.Module):
    """The adapters with their loss; the UNet is not trained."""

    def __init__(self, lora: Lora, unet: Unet) -> None:
        super().__init__()
        self.lora = lora
        self._unet = (unet,)
        self._levels = noise_levels()
        self._weights = loss_weights(self._levels)

    def _noise(
        self, noisy: Tensor, timesteps: Tensor, told: tuple[Tensor, Tensor], ids: Tensor
    ) -> Tensor:
        added = {"text_embeds": told[1], "time_ids": ids}
        guess = self._unet[0](noisy, timesteps, told[0], added_cond_kwargs=added).sample
        return torch.as_tensor(guess).float()

    def _begun(
        self,
        pair: tuple[Tensor, Tensor],
        timesteps: Tensor,
        unsaid: tuple[Tensor, Tensor],
        ids: Tensor,
        dial: Tensor,
    ) -> Tensor:
        """What noise is put on: near the truth, and in every second row what the UNet made of more noise before.

        Of the latter it learns to mend what it did itself.
        """
        clean, started = pair
        sigma = self._sigma(timesteps)
        left = (sigma / _FIRST).clamp(max=1) * dial[:, None, None, None]
        begun = clean + left * (started - clean)
        rows = slice(None, None, 2)
        before = (
            timesteps[rows] + (dial[rows] * (_USUAL_STEP - timesteps[rows]).clamp(min=0)).long()
        )
        level = self._levels[before][:, None, None, None]
        then = clean[rows] + (self._sigma(before) / _FIRST).clamp(max=1) * (started - clean)[rows]
        noise = torch.randn_like(then)
        noisy = level.sqrt() * then + (1 - level).sqrt() * noise
        with torch.no_grad():
            told = (unsaid[0][rows], unsaid[1][rows])
            guess = self._noise(noisy, before, told, ids[rows])
        begun[rows] = (noisy - (1 - level).sqrt() * guess) / level.sqrt()
        return begun

    def _sigma(self, timesteps: Tensor) -> Tensor:
        level = self._levels[timesteps][:, None, None, None]
        return ((1 - level) / level).sqrt()

    def forward(
        self,
        pair: tuple[Tensor, Tensor],
        timesteps: Tensor,
        told: tuple[Tensor, Tensor],
        nothing: tuple[Tensor, Tensor],
        dials: tuple[Tensor, Tensor],
    ) -> Tensor:
        """The loss of one batch.

        Args:
            pair: (N, 4, h, w) latents: the true ones, and those that *Upscale* begins with.
            timesteps: (N,).
            told: States and pooled vectors of captions for the first rows; the others are told nothing.
            nothing: Those of the empty text, one row.
            dials: (N,) of 0 to 1, how much of the beginning is left of what could be; and the guidance of the told rows.
        """
        clean = pair[0]
        count = len(told[0])
        height, width = (8 * side for side in clean.shape[-2:])
        ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
        ids = ids.expand(len(clean), -1)
        unsaid = (nothing[0].expand(len(clean), -1, -1), nothing[1].expand(len(clean), -1))
        level = self._levels[timesteps][:, None, None, None]
        begun = self._begun(pair, timesteps, unsaid, ids, dials[0])
        noisy = level.sqrt() * begun + (1 - level).sqrt() * torch.randn_like(clean)
        target = (noisy - level.sqrt() * clean) / (1 - level).sqrt()
        guess = self._noise(noisy, timesteps, unsaid, ids)
        said = self._noise(noisy[:count], timesteps[:count], told, ids[:count])
        guided = guess[:count] + dials[1][:, None, None, None] * (said - guess[:count])
        guess = torch.cat([guided, guess[count:]])
        error = (guess - target).square().mean((1, 2, 3))
        loss: Tensor = (self._weights[timesteps] * error).mean()
        return loss


def train_upscale(team: Team, folder: Path, run: Run, model: Path) -> None:
    """Train, or go on from the checkpoint; writes the file into the model's folder."""
    torch.manual_seed(0)
    unet = library.UNet2DConditionModel.from_pretrained(model / "unet", dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())  # on a CPU the fused attention is slow backwards
    unet.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    student = Student(Lora(unet, ADAPTER), unet)
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    encoders = load_encoders(model).requires_grad_(requires_grad=False)
    lessons, sizes = load_lessons(folder), list(SIZES)
    trainer = Trainer(student, run, team, folder)
    trainer.resume()
    nothing = _told(encoders, tokenizer, [""])

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        chance = np.random.default_rng([run.seed, step])
        these = lessons[sizes[chance.choice(len(sizes), p=list(SIZES.values()))]]
        rows = rng.integers(len(these.texts), size=run.batch)
        said = run.batch // 2
        pair = tuple(
            part[rows].float().contiguous(memory_format=torch.channels_last)
            for part in (these.clean, these.started)
        )
        dials = rng.random(run.batch), rng.uniform(1, 6, said)
        with torch.autocast("cpu", torch.bfloat16):
            told = _told(encoders, tokenizer, [these.texts[row] for row in rows[:said]])
            result: Tensor = student(
                pair,
                low_timesteps(rng, run.batch),
                told,
                nothing,
                tuple(torch.from_numpy(dial).float() for dial in dials),
            )
        return result

    trainer.fit(loss)
    if team.leads:
        weights = {n.removeprefix("lora."): w for n, w in trainer.average.weights.items()}
        save_lora(weights, ADAPTER, model / FILE)


@torch.no_grad()
def _told(
    encoders: TextEncoders, tokenizer: CLIPTokenizer, texts: Sequence[str]
) -> tuple[Tensor, Tensor]:
    states, pooled = encoders(tokenize(tokenizer, list(texts)))
    return states, pooled


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--model", type=Path, default=MODEL, help="whose adapter, and where to")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--drawings", type=int, default=3072)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    fill_lessons(options.work, options.model, options.drawings)
    run = Run("upscale", options.steps, 2e-3, batch=8, ema=0.99, cooldown=0.5)
    train_upscale(Team(), options.work, run, options.model)


if __name__ == "__main__":
    main()
