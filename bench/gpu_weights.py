"""What `bench.gpu` paints with: SDXL of real size with random weights, or the pocket model, each with LoRAs and a ControlNet.

Files of the real layout are written without network; random weights have the spread of usual layers, so that pictures stay finite.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw

from bench.lora_switch import write_lora
from bench.real_size import kohya_shapes, write_file
from engine.catalog import FOLDERS, POCKET
from engine.image_inputs import ImagePromptType
from engine.models.checkpoints import SDXL_CONFIG
from engine.models.tokenizers import clip_tokenizer
from engine.partners import COMMON
from engine.performance import MODES
from tests.real_layout import Shapes, base_shapes

SubjectName = Literal["real", "pocket"]
BASE = "random_sdxl.safetensors"
CONTROLNET = "random_depth"
LORAS = ("random_a.safetensors", "random_b.safetensors")
_NETWORK = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A base model on a device, its helpers, and what it is asked for."""

    name: SubjectName
    models_dir: Path
    base: str
    """What requests call the base model."""
    size: int
    """Side of the pictures in pixels."""
    steps: int
    jobs: int
    """How many jobs are painted together, where many are."""
    device: torch.device
    dtype: torch.dtype
    control: ImagePromptType
    """The kind of drawing that its ControlNet reads."""
    control_path: Path

    def stock_pipeline(self) -> Any:
        """Load diffusers' own pipeline from the same files, as a person would."""
        from diffusers import StableDiffusionXLPipeline

        if self.name == "pocket":
            pipeline = StableDiffusionXLPipeline.from_pretrained(
                self.models_dir / POCKET, dtype=self.dtype, add_watermarker=False
            )
        else:
            pipeline = StableDiffusionXLPipeline.from_single_file(
                self.models_dir / FOLDERS["checkpoint"] / BASE,
                config=str(SDXL_CONFIG),
                local_files_only=True,
                dtype=self.dtype,
                tokenizer=clip_tokenizer(),
                tokenizer_2=clip_tokenizer(pad_token="!"),
                add_watermarker=False,
            )
        return pipeline.to(self.device)


def furnish_real(folder: Path, source: Path) -> Path:
    """Write a models folder with an SDXL checkpoint, LoRAs and a ControlNet of real size (10 GB), but for what is there already.

    Args:
        folder: Where it goes.
        source: A models folder with the pocket model, whose upscaler stands in for SDXL's.

    Returns:
        The ControlNet.
    """
    loras = folder / FOLDERS["lora"]
    lightning = MODES["Lightning"].distilled
    assert lightning is not None
    _once(folder / FOLDERS["checkpoint"] / BASE, lambda path: write_file(path, base_shapes()))
    for name in (*LORAS, lightning.lora):
        _once(loras / name, lambda path: write_file(path, dict(kohya_shapes())))
    net = folder / FOLDERS["controlnet"] / CONTROLNET
    _once(net / _NETWORK, _write_controlnet)
    # Repainting names it, and doesn't read it where the whole picture is painted at its own size.
    stand_in = source / POCKET / FOLDERS["upscaler"] / "pocket_2x.safetensors"
    upscaler = folder / FOLDERS["upscaler"] / COMMON["upscaler"].file
    _once(upscaler, lambda path: shutil.copyfile(stand_in, path))
    return net


def furnish_pocket(folder: Path, source: Path) -> Path:
    """Copy the pocket model into a models folder and write LoRAs beside it; gives its ControlNet of edges."""
    from diffusers import StableDiffusionXLPipeline

    pocket = folder / POCKET
    if not pocket.exists():
        shutil.copytree(source / POCKET, pocket)
    pipeline = StableDiffusionXLPipeline.from_pretrained(pocket, add_watermarker=False)
    networks = {part: getattr(pipeline, part) for part in ("unet", "text_encoder")}
    for seed, name in enumerate(LORAS):
        write = partial(write_lora, networks=networks, seed=seed)
        _once(folder / FOLDERS["lora"] / name, write)
    return pocket / FOLDERS["controlnet"] / "pocket_edges"


def _once(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that is not there; half a file never takes its name."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    write(part)
    part.rename(path)


def _write_controlnet(path: Path) -> None:
    """Write a random ControlNet for SDXL as diffusers keeps it."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(SDXL_CONFIG / "unet")
        )
        net = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    shapes: Shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    net.save_config(path.parent)
    write_file(path, shapes)


class Drawings:
    """Gives pictures that nobody has seen before, as files named by their hash."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
        self._seeds = count()

    def new(self) -> tuple[str, Path, Image.Image]:
        """Draw soft patches of colour: name, file, picture."""
        rng = np.random.default_rng(next(self._seeds))
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        return self._kept(coarse.resize((self._size, self._size), Image.Resampling.BICUBIC))

    def mask(self) -> tuple[str, Path, Image.Image]:
        """Draw a mask of the middle."""
        mask = Image.new("L", (self._size, self._size))
        quarter = self._size // 4
        ImageDraw.Draw(mask).rectangle((quarter, quarter, 3 * quarter, 3 * quarter), fill=255)
        return self._kept(mask)

    def _kept(self, picture: Image.Image) -> tuple[str, Path, Image.Image]:
        path = self._folder / "drawing.png"
        picture.save(path)
        name = hashlib.sha256(path.read_bytes()).hexdigest()
        return name, path.rename(self._folder / f"{name}.png"), picture
