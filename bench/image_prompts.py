"""Time per picture that follows images, against diffusers' own pipelines: same weights, steps, size and threads, in turn in one process.

    python -m bench.image_prompts [--rounds 7] [--models-dir models] [--write]

Image prompts go through a random IP-Adapter "plus" of the published layout at the pocket model's size, loaded by `load_ip_adapter` once
for each image on diffusers' side, and attended to by the separate formula on both. ControlNets are the pocket model's, and read ready
drawings. Every picture follows images that nobody has seen before. ``--write`` keeps the table in bench/RESULTS.md.
"""

import argparse
import datetime
import hashlib
import json
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from bench.against_stock import GUIDANCE, PROMPT, RESULTS, STEPS, seconds
from engine import Catalog, Library, Plan, TextRequest, plan, read_catalog
from engine.engine import Engine, create
from engine.models.devices import quiet_libraries
from engine.partners import partner
from pocket.draw import draw
from pocket.image_prompt import Adapter, Resampler
from pocket.sight import SIDE, make_image_encoder
from pocket.world import NATIVE_SIZE, random_scene

TITLE = "\n# Pictures to follow\n"
ADAPTER, ENCODER, NEGATIVE = (
    "random_adapter.safetensors",
    "random_encoder",
    "random_negative.safetensors",
)
PARTNERS = {"ImagePrompt": ADAPTER, "image encoder": ENCODER, "image negative": NEGATIVE}
DEPTH = 4
"""Layers of a projection in all published files, the only number that diffusers reads."""
SLOTS = (0, 1, 2, 4)
NETS = (1, 2)

Paint = Callable[[], object]


def main() -> None:
    """Measure, print, and keep the table where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        models = furnish(options.models_dir, Path(folder) / "models")
        rows = measure(models, Pictures(Path(folder)), options.rounds)
    table = "\n".join(["| what | ours | stock diffusers | ratio |", "|---|---|---|---|", *rows])
    sys.stdout.write(table + "\n")
    if options.write:
        kept, _, _ = RESULTS.read_text(encoding="utf-8").partition(TITLE)
        RESULTS.write_text(kept + heading(options.rounds) + table + "\n", encoding="utf-8")


def heading(rounds: int) -> str:
    """Say when, where and how the table was made."""
    return (
        f"{TITLE}\nMade by `python -m bench.image_prompts --write` on {datetime.date.today()}: pocket model, "
        f"{STEPS} steps, guidance {GUIDANCE}, {NATIVE_SIZE}x{NATIVE_SIZE}, float32, {torch.get_num_threads()} thread(s) of "
        f"{platform.machine()} with {platform.processor() or 'an unnamed processor'}, torch {torch.__version__}; "
        f"medians of {rounds} rounds, ours and stock in turn. Image prompts by a random IP-Adapter plus (separate formula), "
        "loaded once for each image by diffusers; ControlNets are the pocket model's on edges.\n\n"
    )


def furnish(models_dir: Path, folder: Path) -> Path:
    """Make a models folder: the pocket model with a random image prompt adapter in place of its own."""
    source, target = models_dir.resolve() / "pocket", folder / "pocket"
    target.mkdir(parents=True)
    for item in source.iterdir():
        if item.is_dir() and item.name != "clip_vision":
            shutil.copytree(item, target / item.name)
        elif item.is_file():
            shutil.copy(item, target)
    card = json.loads((source / "pochade.json").read_text(encoding="utf-8"))
    card["partners"] |= PARTNERS
    (target / "pochade.json").write_text(json.dumps(card), encoding="utf-8")
    make_image_encoder().save_pretrained(target / "clip_vision" / ENCODER)
    write_adapter(target)
    return folder


def write_adapter(pocket: Path) -> None:
    """Write a random adapter and its negative into the pocket model's folder."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(pocket / "unet", use_safetensors=True)
    adapter = Adapter(unet)
    width = unet.config.cross_attention_dim
    while len(adapter.image_proj.layers) < DEPTH:
        adapter.image_proj.layers.append(Resampler(width).layers[0])
    tensors = {name: value.contiguous() for name, value in adapter.state_dict().items()}
    read = {name: it for name, it in tensors.items() if name.startswith(("image_proj", "ip_ad"))}
    save_file(read, pocket / "controlnet" / ADAPTER)
    save_file({"data": tensors["negative"]}, pocket / "controlnet" / NEGATIVE)


class Pictures:
    """Gives drawings that were never given before, as files and as pictures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seeds = count()

    def new(self, number: int) -> list[tuple[str, Path, Image.Image]]:
        """Give names, files and pictures."""
        found = []
        for _ in range(number):
            rng = np.random.default_rng(next(self._seeds))
            picture = Image.fromarray(draw([random_scene(rng)], rng)[0])
            name = hashlib.sha256(picture.tobytes()).hexdigest()
            path = self._folder / f"{name}.png"
            picture.save(path)
            found.append((name, path, picture))
        return found


@dataclass(frozen=True, eq=False)
class Ours:
    """Paints with the studio's engine."""

    engine: Engine
    catalog: Catalog
    pictures: Pictures

    def scene(self, kind: str, number: int) -> Paint:
        """Make a function that paints one picture which follows so many new images."""

        def once() -> None:
            given = self.pictures.new(number)
            job = self._plan(kind, [name for name, _, _ in given])
            self.engine.admit("one", job, {name: path for name, path, _ in given})
            while not self.engine.idle():
                self.engine.step()

        return once

    def _plan(self, kind: str, names: list[str]) -> Plan:
        values = {
            "prompt": PROMPT,
            "guidance_scale": GUIDANCE,
            "sharpness": 0.0,
            "aspect_ratio": f"{NATIVE_SIZE}x{NATIVE_SIZE}",
            "num_images": 1,
            "styles": (),
            "image_prompts": [
                {"image": name, "type": kind, "weight": 1.0, "stop_at": 1.0} for name in names
            ],
            "advanced": {
                "sampler": "euler",
                "scheduler": "normal",
                "num_inference_steps": STEPS,
                "base_model": "pocket",
                "previews": False,
                "image_attention": "separate",
                "skip_preprocessors": True,
            },
        }
        return plan(TextRequest.parse(values), Library(catalog=self.catalog), seed=0)


@dataclass(frozen=True, eq=False)
class Stock:
    """Paints with diffusers' pipelines."""

    catalog: Catalog
    pictures: Pictures

    def prompts(self, number: int) -> Paint:
        """Make a function that paints one picture, with an adapter for each of so many images."""
        from diffusers import StableDiffusionXLPipeline
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        encoder = CLIPVisionModelWithProjection.from_pretrained(self._path("image encoder"))
        pipeline = self._quiet(
            StableDiffusionXLPipeline,
            image_encoder=encoder.eval(),
            feature_extractor=CLIPImageProcessor(size=SIDE, crop_size=SIDE),
        )
        if not number:
            return lambda: self._paint(pipeline)
        folder = str(self._path("ImagePrompt").parent)
        pipeline.load_ip_adapter(
            [folder] * number,
            subfolder=[""] * number,
            weight_name=[ADAPTER] * number,
            image_encoder_folder=None,
        )
        pipeline.set_ip_adapter_scale([1.0] * number)
        return lambda: self._paint(pipeline, ip_adapter_image=self._new(number))

    def controls(self, number: int) -> Paint:
        """Make a function that paints one picture with so many ControlNets."""
        from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline

        path = self._path("PyraCanny")
        nets = [ControlNetModel.from_pretrained(path) for _ in range(number)]
        pipeline = self._quiet(StableDiffusionXLControlNetPipeline, controlnet=nets)
        scales = [1.0] * number
        return lambda: self._paint(
            pipeline, image=self._new(number), controlnet_conditioning_scale=scales
        )

    def _path(self, role: Any) -> Path:
        base = self.catalog.checkpoint("pocket")
        return partner(role, base, self.catalog, "bench").path

    def _new(self, number: int) -> list[Image.Image]:
        return [picture for _, _, picture in self.pictures.new(number)]

    def _quiet(self, kind: Any, **parts: Any) -> Any:
        path = self.catalog.checkpoint("pocket").path
        pipeline = kind.from_pretrained(path, dtype=torch.float32, add_watermarker=False, **parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _paint(self, pipeline: Any, **followed: Any) -> None:
        pipeline(
            prompt=PROMPT,
            height=NATIVE_SIZE,
            width=NATIVE_SIZE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(0),
            **followed,
        )


def scenes(ours: Ours, stock: Stock) -> Iterator[tuple[str, Paint, Paint]]:
    """List what is timed: its name, our side and diffusers'."""
    for number in SLOTS:
        name = f"seconds per picture, {number} image prompt{'s' if number != 1 else ''}"
        yield name, ours.scene("ImagePrompt", number), stock.prompts(number)
    for number in NETS:
        name = f"seconds per picture, {number} ControlNet{'s' if number != 1 else ''}"
        yield name, ours.scene("PyraCanny", number), stock.controls(number)


def measure(models_dir: Path, pictures: Pictures, rounds: int) -> list[str]:
    """Time all scenes once a round, ours and diffusers' in turn; one table row each."""
    catalog = read_catalog(models_dir, "pocket")
    engine = create(str(models_dir), model="pocket", device="cpu")
    engine.preload("pocket")
    timed = list(scenes(Ours(engine, catalog, pictures), Stock(catalog, pictures)))
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in timed}
    for _ in range(rounds + 1):
        for name, mine, theirs in timed:
            pairs[name].append((seconds(mine), seconds(theirs)))
    return [_row(name, found[1:]) for name, found in pairs.items()]


def _row(name: str, pairs: list[tuple[float, float]]) -> str:
    """Write a row; the first round only warmed up."""
    ours, stock = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return f"| {name} | {ours:.3f} | {stock:.3f} | {ratio:.2f} |"


if __name__ == "__main__":
    main()
