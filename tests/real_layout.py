"""Single-file checkpoints of SDXL, the SDXL refiner and SD 1.5 at full size: every key with its shape, and hollow files of them.

The keys are worked out from the networks' architecture, as the original code lays it out; tests hold them against the golden list
and diffusers' converters. A hollow file has a true header and no data: its gigabytes of zeros take no room on the disk.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

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
"""Residual blocks in each level on the way down; one more on the way up."""
LATENT = 4
VAE_CHANNELS = (128, 256, 512, 512)
TOKENS, POSITIONS = 49408, 77


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
        **_prefixed("first_stage_model.", vae_shapes()),
        **_clip_l("conditioner.embedders.0."),
        **_clip_g("conditioner.embedders.1."),
        "denoiser.sigmas": (1000,),
    }


def refiner_shapes() -> Shapes:
    """List a whole SDXL refiner."""
    return {
        **_prefixed(UNET, unet_shapes(SDXL_REFINER)),
        **_prefixed("first_stage_model.", vae_shapes()),
        **_clip_g("conditioner.embedders.0."),
        "denoiser.sigmas": (1000,),
    }


def sd15_shapes() -> Shapes:
    """List a whole Stable Diffusion 1.5 checkpoint, with what its training left in it."""
    return {
        **_prefixed(UNET, unet_shapes(SD15)),
        **_prefixed("first_stage_model.", vae_shapes()),
        **_clip_l("cond_stage_model."),
        "betas": (1000,),
        "alphas_cumprod": (1000,),
        "model_ema.decay": (),
    }


def _prefixed(prefix: str, shapes: Mapping[str, Shape]) -> Shapes:
    return {prefix + key: shape for key, shape in shapes.items()}


def vae_shapes() -> Shapes:
    """List the VAE's keys without their prefix; it has the same build in all three families."""
    widths, deepest = VAE_CHANNELS, VAE_CHANNELS[-1]
    shapes = {
        **_layer("encoder.conv_in", widths[0], 3, 3, 3),
        **_layer("decoder.conv_in", deepest, LATENT, 3, 3),
        **_layer("encoder.conv_out", 2 * LATENT, deepest, 3, 3),
        **_layer("decoder.conv_out", 3, widths[0], 3, 3),
        **_layer("quant_conv", 2 * LATENT, 2 * LATENT, 1, 1),
        **_layer("post_quant_conv", LATENT, LATENT, 1, 1),
        **_layer("encoder.norm_out", deepest),
        **_layer("decoder.norm_out", widths[0]),
    }
    for side, row, resize, layers in (
        ("encoder", "down", "downsample", LAYERS),
        ("decoder", "up", "upsample", LAYERS + 1),
    ):
        for name in ("block_1", "block_2"):
            shapes |= _vae_resnet(f"{side}.mid.{name}", deepest, deepest)
        shapes |= _layer(f"{side}.mid.attn_1.norm", deepest)
        for name in ("q", "k", "v", "proj_out"):
            shapes |= _layer(f"{side}.mid.attn_1.{name}", deepest, deepest, 1, 1)
        levels = list(enumerate(widths))
        width = widths[0] if row == "down" else deepest
        last = len(levels) - 1 if row == "down" else 0
        for level, outputs in levels if row == "down" else reversed(levels):
            for layer in range(layers):
                shapes |= _vae_resnet(f"{side}.{row}.{level}.block.{layer}", width, outputs)
                width = outputs
            if level != last:
                shapes |= _layer(f"{side}.{row}.{level}.{resize}.conv", width, width, 3, 3)
    return shapes


def _vae_resnet(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = {
        **_layer(f"{name}.norm1", inputs),
        **_layer(f"{name}.conv1", outputs, inputs, 3, 3),
        **_layer(f"{name}.norm2", outputs),
        **_layer(f"{name}.conv2", outputs, outputs, 3, 3),
    }
    if inputs != outputs:
        shapes |= _layer(f"{name}.nin_shortcut", outputs, inputs, 1, 1)
    return shapes


def _clip_l(prefix: str) -> Shapes:
    """List CLIP-L as transformers names it."""
    model, width = f"{prefix}transformer.text_model.", 768
    shapes: Shapes = {
        f"{model}embeddings.token_embedding.weight": (TOKENS, width),
        f"{model}embeddings.position_embedding.weight": (POSITIONS, width),
        f"{model}embeddings.position_ids": (1, POSITIONS),
        **_layer(f"{model}final_layer_norm", width),
    }
    for number in range(12):
        layer = f"{model}encoder.layers.{number}"
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= _layer(f"{layer}.{name}", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _layer(f"{layer}.self_attn.{name}", width, width)
        shapes |= _layer(f"{layer}.mlp.fc1", 4 * width, width)
        shapes |= _layer(f"{layer}.mlp.fc2", width, 4 * width)
    return shapes


def _clip_g(prefix: str) -> Shapes:
    """List CLIP-G as OpenCLIP names it: query, key and value in one matrix."""
    model, width = f"{prefix}model.", 1280
    shapes: Shapes = {
        f"{model}token_embedding.weight": (TOKENS, width),
        f"{model}positional_embedding": (POSITIONS, width),
        f"{model}text_projection": (width, width),
        f"{model}logit_scale": (),
        **_layer(f"{model}ln_final", width),
    }
    for number in range(32):
        layer = f"{model}transformer.resblocks.{number}"
        for name in ("ln_1", "ln_2"):
            shapes |= _layer(f"{layer}.{name}", width)
        shapes[f"{layer}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{layer}.attn.in_proj_bias"] = (3 * width,)
        shapes |= _layer(f"{layer}.attn.out_proj", width, width)
        shapes |= _layer(f"{layer}.mlp.c_fc", 4 * width, width)
        shapes |= _layer(f"{layer}.mlp.c_proj", width, 4 * width)
    return shapes


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
        yield kind, math.prod(shape) * BYTES[kind]


def write_hollow(path: Path, shapes: Mapping[str, Shape], floats: str = "BF16") -> Path:
    """Write a file whose weights are all zeros and take no room."""
    start, size = header(shapes, floats)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)
    return path
