"""Measure how the pocket model enlarges: `python -m pocket.measure_upscaler`.

Drawings of unseen scenes are made larger as *Upscale (Fast 2x)* does and, with `--painted`, as *Upscale (2x)* does through the
engine, and compared with the same drawings made at twice the size. *Upscale (2x)* sends a picture through the
autoencoder, which alone costs a clean drawing more than the 3 dB that fast and painted may differ by; pictures made in the studio
have been through it already. So both are measured.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.geometry import Size
from engine.models.upscalers import load_upscaler
from engine.stages.pixels import stretch
from engine.stages.upscale import enlarge, upscale_size
from pocket.captions import full_caption
from pocket.measure_modes import Studio, open_studio
from pocket.measure_partners import write_picture
from pocket.parts import library
from pocket.train_upscaler import FILE, MODEL, through_vae, true_pair
from pocket.world import NATIVE_SIZE, unseen_scenes

log = logging.getLogger(__name__)

Pictures = NDArray[np.uint8]
_SEED = 64


def psnr(made: Pictures, true: Pictures) -> NDArray[np.float64]:
    """(N,) peak signal to noise ratios in dB."""
    error = np.square(made.astype(np.float64) - true).mean(axis=(1, 2, 3))
    return np.asarray(10 * np.log10(255**2 / np.maximum(error, 1e-9)), np.float64)


def lanczos(picture: Pictures) -> Pictures:
    """A picture at twice its size, by the usual filter."""
    height, width = picture.shape[:2]
    return stretch(picture, Size(2 * width, 2 * height))


def fast(model: Path) -> Callable[[Pictures], Pictures]:
    """The way of *Upscale (Fast 2x)* with the upscaler of a model's folder."""
    upscaler = load_upscaler(model / FILE, torch.device("cpu"))
    size = Size(NATIVE_SIZE, NATIVE_SIZE)
    scale = upscaler.scale
    wanted = upscale_size(size, "Upscale (Fast 2x)", scale=scale, native=NATIVE_SIZE).size
    return lambda picture: stretch(enlarge(upscaler, picture), wanted)


def painted(
    studio: Studio, given: Pictures, texts: Sequence[str], method: str = "Upscale (2x)"
) -> Pictures:
    """(N, 256, 256, 3): pictures painted larger by the engine, told these texts."""
    with tempfile.TemporaryDirectory() as folder:
        files = [write_picture(Path(folder), picture) for picture in given]
        asks = [
            (text, {"upscale_or_vary": {"image": file.stem, "method": method}})
            for text, file in zip(texts, files, strict=True)
        ]
        return studio.run(asks, {file.stem: file for file in files})


def painted_table(model: Path, count: int) -> str:
    """Fast and painted with a caption and without, over `count` drawings in the same two states."""
    source = unseen_scenes(np.random.default_rng(_SEED))
    scenes = [next(source) for _ in range(count)]
    small, true = true_pair(scenes, _SEED)
    vae = library.AutoencoderKL.from_pretrained(model / "vae", dtype=torch.float32)
    captions = [
        full_caption(np.random.default_rng(row), scene, complete=True).text
        for row, scene in enumerate(scenes)
    ]
    studio = open_studio(model.parent)
    torch.set_num_threads(1)
    lines = [
        "| input | Fast 2x | the same through the autoencoder | Upscale (2x), told | told nothing |",
        "|---|---|---|---|---|",
    ]
    for name, given in (("through the autoencoder", through_vae(vae, small)), ("drawn", small)):
        enlarged = np.stack([fast(model)(picture) for picture in given])
        made = (
            enlarged,
            through_vae(vae, enlarged),
            painted(studio, given, captions),
            painted(studio, given, [""] * count),
        )
        cells = " | ".join(f"{psnr(pictures, true).mean():.1f} dB" for pictures in made)
        lines.append(f"| {name} | {cells} |")
        log.info(lines[-1])
    return "\n".join(lines)


def table(model: Path, count: int) -> str:
    """Both ways over `count` drawings, clean and as the model's autoencoder leaves them."""
    source = unseen_scenes(np.random.default_rng(_SEED))
    small, true = true_pair([next(source) for _ in range(count)], _SEED)
    vae = library.AutoencoderKL.from_pretrained(model / "vae", dtype=torch.float32)
    lines = ["| input | Lanczos | Fast 2x | better on |", "|---|---|---|---|"]
    for name, given in (("drawn", small), ("through the autoencoder", through_vae(vae, small))):
        ours, theirs = (
            psnr(np.stack([way(picture) for picture in given]), true)
            for way in (fast(model), lanczos)
        )
        won = int((ours > theirs).sum())
        lines.append(
            f"| {name} | {theirs.mean():.1f} dB | {ours.mean():.1f} dB | {won} of {count} |"
        )
    return "\n".join(lines)


def sheet(model: Path, count: int = 6) -> Image.Image:
    """Drawings enlarged by Lanczos, by the upscaler, and as they truly are."""
    source = unseen_scenes(np.random.default_rng(_SEED))
    small, true = true_pair([next(source) for _ in range(count)], _SEED)
    rows = ([lanczos(it) for it in small], [fast(model)(it) for it in small], list(true))
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--painted", action="store_true", help="Upscale (2x), too")
    parser.add_argument("--sheet", type=Path, help="also write a picture of some of them")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    told = painted_table if options.painted else table
    log.info("\n%s", told(options.model, options.count))
    if options.sheet:
        sheet(options.model).save(options.sheet)


if __name__ == "__main__":
    main()
