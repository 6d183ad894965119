"""Train the preview decoder: latents to a picture of half the size, as cheaply as can be."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pocket.draw import draw
from pocket.fit import Run, Trainer
from pocket.parts import SCALING_FACTOR, Vae, library, make_preview
from pocket.team import Team
from pocket.train_vae import pixels, psnr
from pocket.world import seen_scenes

log = logging.getLogger(__name__)

_DRAWINGS = 3072


@torch.no_grad()
def _lessons(vae: Vae, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """(N, 4, 16, 16) scaled latents and (N, 3, 64, 64) pictures in -1..1."""
    rng = np.random.default_rng(seed)
    source = seen_scenes(rng)
    latents, halves = [], []
    for _ in range(count // 64):
        true = pixels(draw([next(source) for _ in range(64)], rng))
        latents.append(vae.encode(true).latent_dist.mean * SCALING_FACTOR)
        halves.append(functional.avg_pool2d(true, 2))
    return torch.cat(latents), torch.cat(halves)


def train_preview(team: Team, folder: Path, steps: int, batch: int) -> None:
    """Train from nothing, or go on; writes `preview/` into the folder."""
    vae = library.AutoencoderKL.from_pretrained(folder / "vae").to(
        memory_format=torch.channels_last
    )
    torch.manual_seed(0)
    preview = make_preview()
    preview.encoder.requires_grad_(requires_grad=False)
    run = Run("preview", steps, 4e-3, batch, ema=0.99)
    trainer = Trainer(preview, run, team, folder)
    trainer.resume()
    latents, pictures = _lessons(vae, 21 + team.rank, _DRAWINGS)

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        rows = torch.from_numpy(rng.integers(len(latents), size=batch))
        noisy = latents[rows] + 0.05 * torch.randn_like(latents[rows])
        made: Tensor = preview.decode(noisy).sample
        return functional.mse_loss(made, pictures[rows]) + 0.1 * functional.l1_loss(
            made, pictures[rows]
        )

    trainer.fit(loss)
    trainer.average.write_to(preview)
    if team.leads:
        preview.save_pretrained(folder / "preview")
        test, true = _lessons(vae, 77, 128)
        with torch.no_grad():
            log.info("preview: %.2f dB", psnr(preview.decode(test).sample, true))
