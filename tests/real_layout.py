"""Single-file checkpoints of SDXL, the SDXL refiner and SD 1.5 at full size: every key with its shape, and hollow files of them.

The UNets' keys are worked out from their architecture, as the original code lays it out; a test holds those of SDXL against the
golden list. A hollow file has a true header and no data: its gigabytes of zeros take no room on the disk.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.models.checkpoints import CONFIGS, SDXL_CONFIG
from tests.single_file import original_text_1, original_text_2, original_vae

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
UNET = "model.diffusion_model."
BYTES = {"BF16": 2, "F16": 2, "F32": 4, "I64": 8}
"""Sizes of the number formats, by their names in safetensors headers."""


@dataclass(frozen=True, slots=True)
class UNetLayout:
    """What tells the UNets of the field apart."""

    channels: tuple[int, ...]
    """Width of each level, the finest first."""
    depths: tuple[int, ...]
    """Transformer blocks in each attention layer of a level; 0 for none."""
    middle_depth: int
    context: int
    """Width of the text."""
    label: int | None
    """Width of the added conditioning."""
    linear: bool
    """Whether attention layers are entered by a matrix, and not by a 1x1 convolution."""


SDXL = UNetLayout((320, 640, 1280), (0, 2, 10), 10, 2048, 2816, linear=True)
SDXL_REFINER = UNetLayout((384, 768, 1536, 1536), (0, 4, 4, 0), 4, 1280, 2560, linear=True)
SD15 = UNetLayout((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 768, None, linear=False)
LAYERS = 2
LATENT = 4


def unet_shapes(layout: UNetLayout) -> Shapes:
    """List a UNet's original keys without their prefix."""
    first = layout.channels[0]
    time = 4 * first
    embedded = {"time_embed": (first, time)}
    if layout.label is not None:
        embedded["label_emb.0"] = (layout.label, time)
    shapes: Shapes = {}
    for name, (inputs, outputs) in embedded.items():
        shapes |= _layer(f"{name}.0", outputs, inputs) | _layer(f"{name}.2", outputs, outputs)
    shapes |= _layer("input_blocks.0.0", first, LATENT, 3, 3)
    shapes |= _layer("out.0", first) | _layer("out.2", LATENT, first, 3, 3)
    rows = _Rows(layout, time)
    return shapes | rows.down() | rows.middle() | rows.up()


class _Rows:
    """The input, middle and output blocks; widths of skip connections are remembered from the way down to the way up."""

    def __init__(self, layout: UNetLayout, time: int) -> None:
        self._layout, self._time = layout, time
        self._width = layout.channels[0]
        self._skips = [self._width]

    def down(self) -> Shapes:
        shapes: Shapes = {}
        last = len(self._layout.channels) - 1
        for level, (width, depth) in enumerate(
            zip(self._layout.channels, self._layout.depths, strict=True)
        ):
            for _ in range(LAYERS):
                block = f"input_blocks.{len(self._skips)}"
                shapes |= self._resnet(f"{block}.0", self._width, width)
                shapes |= self._attention(f"{block}.1", width, depth)
                self._skips.append(width)
                self._width = width
            if level != last:
                shapes |= _layer(f"input_blocks.{len(self._skips)}.0.op", width, width, 3, 3)
                self._skips.append(width)
        return shapes

    def middle(self) -> Shapes:
        return {
            **self._resnet("middle_block.0", self._width, self._width),
            **self._attention("middle_block.1", self._width, self._layout.middle_depth),
            **self._resnet("middle_block.2", self._width, self._width),
        }

    def up(self) -> Shapes:
        shapes: Shapes = {}
        number = 0
        levels = list(zip(self._layout.channels, self._layout.depths, strict=True))
        for level, (width, depth) in reversed(list(enumerate(levels))):
            for layer in range(LAYERS + 1):
                block = f"output_blocks.{number}"
                shapes |= self._resnet(f"{block}.0", self._width + self._skips.pop(), width)
                shapes |= self._attention(f"{block}.1", width, depth)
                if level and layer == LAYERS:
                    shapes |= _layer(f"{block}.{2 if depth else 1}.conv", width, width, 3, 3)
                self._width = width
                number += 1
        return shapes

    def _resnet(self, name: str, inputs: int, outputs: int) -> Shapes:
        shapes = {
            **_layer(f"{name}.in_layers.0", inputs),
            **_layer(f"{name}.in_layers.2", outputs, inputs, 3, 3),
            **_layer(f"{name}.emb_layers.1", outputs, self._time),
            **_layer(f"{name}.out_layers.0", outputs),
            **_layer(f"{name}.out_layers.3", outputs, outputs, 3, 3),
        }
        if inputs != outputs:
            shapes |= _layer(f"{name}.skip_connection", outputs, inputs, 1, 1)
        return shapes

    def _attention(self, name: str, width: int, depth: int) -> Shapes:
        if not depth:
            return {}
        gate = () if self._layout.linear else (1, 1)
        shapes = _layer(f"{name}.norm", width)
        for end in ("proj_in", "proj_out"):
            shapes |= _layer(f"{name}.{end}", width, width, *gate)
        for number in range(depth):
            shapes |= self._transformer(f"{name}.transformer_blocks.{number}", width)
        return shapes

    def _transformer(self, name: str, width: int) -> Shapes:
        shapes = {
            **_layer(f"{name}.ff.net.0.proj", 8 * width, width),
            **_layer(f"{name}.ff.net.2", width, 4 * width),
        }
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= _layer(f"{name}.{norm}", width)
        for attention, source in (("attn1", width), ("attn2", self._layout.context)):
            shapes[f"{name}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{name}.{attention}.to_k.weight"] = (width, source)
            shapes[f"{name}.{attention}.to_v.weight"] = (width, source)
            shapes |= _layer(f"{name}.{attention}.to_out.0", width, width)
        return shapes


def _layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def base_shapes() -> Shapes:
    """List a whole SDXL base checkpoint: 2515 tensors that count, and one that doesn't."""
    return {
        **_prefixed(UNET, unet_shapes(SDXL)),
        **_vae_shapes(),
        **_clip_l("conditioner.embedders.0."),
        **_clip_g("conditioner.embedders.1."),
        "denoiser.sigmas": (1000,),
    }


def refiner_shapes() -> Shapes:
    """List a whole SDXL refiner."""
    return {
        **_prefixed(UNET, unet_shapes(SDXL_REFINER)),
        **_vae_shapes(),
        **_clip_g("conditioner.embedders.0."),
        "denoiser.sigmas": (1000,),
    }


def sd15_shapes() -> Shapes:
    """List a whole Stable Diffusion 1.5 checkpoint, with what its training left in it."""
    return {
        **_prefixed(UNET, unet_shapes(SD15)),
        **_vae_shapes(),
        **_clip_l("cond_stage_model."),
        "betas": (1000,),
        "alphas_cumprod": (1000,),
        "model_ema.decay": (),
    }


def _prefixed(prefix: str, shapes: Mapping[str, Shape]) -> Shapes:
    return {prefix + key: shape for key, shape in shapes.items()}


def _vae_shapes() -> Shapes:
    """List the VAE, which has the same build in all three families."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SDXL_CONFIG / "vae"))
    return _shapes(original_vae(vae.state_dict()))


def _clip_l(prefix: str) -> Shapes:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(CONFIGS / "sdxl" / "text_encoder"))
    old = "conditioner.embedders.0."
    shapes = _shapes(original_text_1(encoder.state_dict()))
    named = {prefix + key.removeprefix(old): shape for key, shape in shapes.items()}
    return {**named, f"{prefix}transformer.text_model.embeddings.position_ids": (1, 77)}


def _clip_g(prefix: str) -> Shapes:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig.from_pretrained(CONFIGS / "sdxl" / "text_encoder_2")
    with torch.device("meta"):
        encoder = CLIPTextModelWithProjection(config)
    old = "conditioner.embedders.1."
    shapes = _shapes(original_text_2(encoder.state_dict()))
    named = {prefix + key.removeprefix(old): shape for key, shape in shapes.items()}
    return {**named, f"{prefix}model.logit_scale": ()}


def _shapes(tensors: Iterable[tuple[str, Tensor]]) -> Shapes:
    return {key: tuple(value.shape) for key, value in tensors}


def number_format(key: str, floats: str) -> str:
    """Say how a tensor is stored where weights are stored as `floats`."""
    return "I64" if key.endswith(".position_ids") else floats


def header(shapes: Mapping[str, Shape], floats: str) -> tuple[bytes, int]:
    """Build the start of a safetensors file.

    Args:
        shapes: Its tensors, in the order of their data.
        floats: Number format of weights.

    Returns:
        Length and header in bytes, and the bytes of data that must follow.
    """
    entries, end = {}, 0
    for key, (kind, size) in zip(shapes, _sizes(shapes, floats), strict=True):
        entries[key] = {
            "dtype": kind,
            "shape": list(shapes[key]),
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end


def _sizes(shapes: Mapping[str, Shape], floats: str) -> Iterator[tuple[str, int]]:
    for key, shape in shapes.items():
        kind = number_format(key, floats)
        yield kind, torch.Size(shape).numel() * BYTES[kind]


def write_hollow(path: Path, shapes: Mapping[str, Shape], floats: str = "BF16") -> Path:
    """Write a file whose weights are all zeros and take no room."""
    start, size = header(shapes, floats)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)
    return path
