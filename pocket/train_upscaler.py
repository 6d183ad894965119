"""Train the upscaler of the pocket model: drawings to the same drawings at twice the size.

`python -m pocket.train_upscaler --work FOLDER` goes on from its checkpoint, if there is one, and writes
`models/pocket/upscale_models`. The layout is that of Real-ESRGAN's compact files.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from engine.models.upscale_nets import Compact
from pocket.draw import draw
from pocket.fit import Run, Trainer
from pocket.parts import Vae, library
from pocket.team import Team
from pocket.train_vae import pixels
from pocket.world import NATIVE_SIZE, Scene, seen_scenes

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "models" / "pocket"
FILE = Path("upscale_models") / "pocket_2x.safetensors"
"""Where the finished network lies in the model's folder."""
SCALE = 2
FILTERS = 32
LAYERS = 8

_CHUNK = 32
_CROP = 48
"""Side in pixels of what one lesson shows, before it is enlarged."""
_BORDER = 1
"""Pixels of an enlarged crop that don't count: beyond them the network cannot see."""


def make_upscaler() -> Compact:
    """A network that repeats pixels until it has learnt something."""
    torch.manual_seed(0)
    network = Compact(filters=FILTERS, layers=LAYERS, scale=SCALE)
    for parameter in network.body[-1].parameters():
        nn.init.zeros_(parameter)
    return network


def true_pair(scenes: Sequence[Scene], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The same drawings at their own size and at `SCALE` times that."""
    small = draw(scenes, np.random.default_rng(seed))
    return small, draw(scenes, np.random.default_rng(seed), scale=SCALE)


@torch.no_grad()
def through_vae(vae: Vae, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is left of pictures after the autoencoder: how the model's own pictures look."""
    made = vae.decode(vae.encode(pixels(pictures)).latent_dist.mean).sample
    levels = ((made + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1)
    return np.asarray(levels.contiguous().numpy().round(), np.uint8)


def _reduced(pictures: NDArray[np.uint8], how: Image.Resampling) -> NDArray[np.uint8]:
    size = (NATIVE_SIZE, NATIVE_SIZE)
    return np.stack([np.asarray(Image.fromarray(p).resize(size, how)) for p in pictures])


def _lessons(vae: Vae, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """(N, 3, 128, 128) and (N, 3, 256, 256) uint8: drawn small, reduced in two ways, or through the autoencoder."""
    source = seen_scenes(np.random.default_rng(seed))
    small, large = [], []
    for start in range(0, count, _CHUNK):
        own, true = true_pair([next(source) for _ in range(_CHUNK)], seed + start)
        quarter = _CHUNK // 4
        own[:quarter] = _reduced(true[:quarter], Image.Resampling.BOX)
        own[quarter : 2 * quarter] = _reduced(true[quarter : 2 * quarter], Image.Resampling.LANCZOS)
        own[-quarter:] = through_vae(vae, own[-quarter:])
        small.append(own)
        large.append(true)
    ins, outs = (torch.from_numpy(np.concatenate(them)) for them in (small, large))
    return ins.permute(0, 3, 1, 2), outs.permute(0, 3, 1, 2)


def _crops(
    small: Tensor, large: Tensor, rng: np.random.Generator, count: int
) -> tuple[Tensor, Tensor]:
    """Cut `count` random crops out of pairs, as values of 0 to 1."""
    ins, outs = [], []
    for row in rng.integers(len(small), size=count):
        top, left = rng.integers(NATIVE_SIZE - _CROP + 1, size=2)
        ins.append(small[row, :, top : top + _CROP, left : left + _CROP])
        y, x, side = top * SCALE, left * SCALE, _CROP * SCALE
        outs.append(large[row, :, y : y + side, x : x + side])
    return _shares(torch.stack(ins)), _shares(torch.stack(outs))


def _shares(levels: Tensor) -> Tensor:
    return (levels.float() / 255).contiguous(memory_format=torch.channels_last)


def _loss(made: Tensor, true: Tensor) -> Tensor:
    """Squared error with a little of its root, so that flat grounds come out clean."""
    inner = slice(_BORDER, -_BORDER)
    square = (made.float() - true)[..., inner, inner].square()
    return 100 * square.mean() + (square + 1e-6).sqrt().mean()


def train_upscaler(team: Team, folder: Path, run: Run, vae: Vae, drawings: int) -> Compact:
    """Train from nothing, or go on; returns the average over the last steps.

    Args:
        team: Who trains.
        folder: Holds the checkpoint.
        run: How long and how fast.
        vae: The model's autoencoder.
        drawings: How many pairs there are.
    """
    network = make_upscaler()
    trainer = Trainer(network, run, team, folder)
    trainer.resume()
    small, large = _lessons(vae, 31 + 1000 * team.rank, drawings)

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        given, wanted = _crops(small, large, rng, run.batch)
        with torch.autocast("cpu", torch.bfloat16):
            detail = network.body(given)
        made = functional.pixel_shuffle(detail.float(), SCALE)
        return _loss(made + functional.interpolate(given, scale_factor=SCALE), wanted)

    trainer.fit(loss)
    trainer.average.write_to(network)
    return network


def write_upscaler(network: Compact, target: Path) -> None:
    """Write the network in half precision, by the names that its kind of file has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(weights, target, metadata={"format": "pt"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--model", type=Path, default=MODEL, help="whose autoencoder, and where to")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--drawings", type=int, default=1024)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    run = Run("upscaler", options.steps, 2e-3, batch=16, ema=0.995, cooldown=0.6)
    vae = library.AutoencoderKL.from_pretrained(options.model / "vae", dtype=torch.float32)
    network = train_upscaler(Team(), options.work, run, vae, options.drawings)
    write_upscaler(network, options.model / FILE)


if __name__ == "__main__":
    main()
