"""Train the autoencoder: both halves first, then the decoder alone on frozen, whitened latents."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pocket.draw import draw
from pocket.fit import Run, Trainer
from pocket.parts import SCALING_FACTOR, Vae, make_vae
from pocket.starts import start_vae, whiten
from pocket.team import Team
from pocket.world import BUCKETS, Scene, seen_scenes

log = logging.getLogger(__name__)

POSTERIOR_NOISE = 0.02
"""Standard deviation of a latent around its mean, where latents have deviation 1."""


def pixels(pictures: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in -1..1, channels last."""
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return (batch.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def random_pixels(rng: np.random.Generator, count: int) -> Tensor:
    """Fresh drawings of seen scenes, all of one bucket, mostly square."""
    source = seen_scenes(rng)
    scenes: list[Scene] = [next(source) for _ in range(count)]
    width, height = BUCKETS[rng.choice(len(BUCKETS), p=(0.9, 0.05, 0.05))]
    return pixels(draw(scenes, rng, width=width, height=height))


def _loss(made: Tensor, true: Tensor) -> Tensor:
    """Squared error with a little of its root, so that flat grounds come out clean."""
    square = (made.float() - true).square()
    return square.mean() + 0.05 * (square + 1e-4).sqrt().mean()


def psnr(made: Tensor, true: Tensor) -> float:
    """Mean over pictures of the peak signal to noise ratio in dB, of values in -1..1."""
    error = (made.float().clamp(-1, 1) - true).square().mean((1, 2, 3))
    return float((-10 * torch.log10(error / 4)).mean())


@torch.no_grad()
def measure_vae(vae: Vae, *, count: int = 128) -> float:
    """PSNR on fresh drawings."""
    rng = np.random.default_rng(123456)
    ratios = []
    for _ in range(count // 32):
        true = random_pixels(rng, 32)
        ratios.append(psnr(vae.decode(vae.encode(true).latent_dist.mean).sample, true))
    return float(np.mean(ratios))


def _train_whole(team: Team, vae: Vae, run: Run, folder: Path) -> None:
    trainer = Trainer(vae, run, team, folder)
    trainer.resume()

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        true = random_pixels(rng, run.batch)
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.encode(true).latent_dist.mean
            made = vae.decode(mean).sample
        return _loss(made, true)

    trainer.fit(loss)
    trainer.average.write_to(vae)


def _train_decoder(team: Team, vae: Vae, run: Run, folder: Path) -> None:
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(requires_grad=False)
    trainer = Trainer(vae, run, team, folder)
    trainer.resume()

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        true = random_pixels(rng, run.batch)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                mean = vae.encode(true).latent_dist.mean
            made = vae.decode(
                mean + torch.randn_like(mean) * (POSTERIOR_NOISE / SCALING_FACTOR)
            ).sample
        return _loss(made, true)

    trainer.fit(loss)
    trainer.average.write_to(vae)


def train_vae(team: Team, folder: Path, steps: tuple[int, int], batch: int) -> None:
    """Train from the thumbnail start, or go on; writes `vae/` into the folder."""
    torch.manual_seed(0)
    vae = make_vae()
    start_vae(vae)
    vae.to(memory_format=torch.channels_last)
    whole = Run("vae", steps[0], 2e-3, batch, ema=0.99, save_seconds=120)
    _train_whole(team, vae, whole, folder)
    with torch.no_grad():
        latents = vae.encode(random_pixels(np.random.default_rng(7), 512)).latent_dist.mean
    whiten(vae, latents, spread=1 / SCALING_FACTOR, noise=POSTERIOR_NOISE / SCALING_FACTOR)
    if team.leads:
        log.info("vae: %.2f dB with both halves trained", measure_vae(vae))
        vae.save_pretrained(folder / "vae")
    alone = Run("decoder", steps[1], 1.5e-3, batch, ema=0.995, save_seconds=120)
    _train_decoder(team, vae, alone, folder)
    if team.leads:
        log.info("vae: %.2f dB at the end", measure_vae(vae))
        vae.save_pretrained(folder / "vae")
