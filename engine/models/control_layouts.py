"""What a file of a ControlNet is, told from its keys and shapes alone.

There are two ways to name the weights: diffusers' and the original one (``input_blocks``, ``zero_convs``), which control-LoRA files use
too. Knows no tensors.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from engine.errors import ModelIncompatible
from engine.families import text_width
from engine.models.patches.unet_names import original_names

Layout = Literal["diffusers", "original", "control-lora"]
Shape = tuple[int, ...]

MARKER = "lora_controlnet"
"""The key that control-LoRA files carry."""
HINT = "controlnet_cond_embedding"
"""diffusers' name of the part that looks at the drawing."""
_PREFIX = "control_model."
_OTHERS = (
    (re.compile(r"^(adapter\.)?body\.\d"), "a T2I adapter, which is another kind of network"),
    (re.compile(r"^lllite_"), "a ControlNet-LLLite, which is another kind of network"),
    (re.compile(r"^(ip_adapter|image_proj)\."), "an IP-Adapter"),
    (re.compile(r"^lora_(unet|te)|\.lora_(up|down|A|B)\."), "a LoRA"),
    (re.compile(r"^(model\.diffusion_model|conv_norm_out)\."), "a base model"),
)


def stripped(keys: Iterable[str]) -> dict[str, str]:
    """Take off the prefix that the original code puts before a ControlNet's keys; keys without it then belong to others."""
    keys = list(keys)
    ours = {key.removeprefix(_PREFIX): key for key in keys if key.startswith(_PREFIX)}
    return ours or {key: key for key in keys}


def layout_of(name: str, keys: Iterable[str]) -> Layout:
    """Tell how a file names its weights.

    Raises:
        ModelIncompatible: it is no ControlNet.
    """
    keys = list(keys)
    if MARKER in keys:
        return "control-lora"
    if any(key.startswith("input_hint_block.") for key in keys):
        return "original"
    if any(key.startswith(f"{HINT}.") for key in keys):
        return "diffusers"
    found = (what for pattern, what in _OTHERS for key in keys if pattern.search(key))
    got = next(found, "a file of other weights")
    raise ModelIncompatible(f"{name}: expected a ControlNet or a control-LoRA, got {got}")


def settings_of(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Work out the settings of a network in diffusers' names, as far as its shapes show them.

    Args:
        shapes: Of a whole ControlNet or ControlNet Union.

    Raises:
        KeyError: a weight that every ControlNet has is missing.
    """
    levels = range(1 + max(_numbers(r"^down_blocks\.(\d+)\.", shapes), default=-1))
    attentive = [f"down_blocks.{level}.attentions.0.norm.weight" in shapes for level in levels]
    depths = [
        _depth(f"down_blocks.{level}" if attends else "mid_block", shapes)
        for level, attends in enumerate(attentive)
    ]
    settings: dict[str, Any] = {
        "in_channels": shapes["conv_in.weight"][1],
        "block_out_channels": tuple(
            shapes[f"down_blocks.{level}.resnets.0.conv1.weight"][0] for level in levels
        ),
        "layers_per_block": len(_numbers(r"^down_blocks\.0\.resnets\.(\d+)\.", shapes)),
        "down_block_types": tuple(
            "CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in attentive
        ),
        "transformer_layers_per_block": tuple(depths),
        "mid_block_type": "UNetMidBlock2D",
        **hint_settings(shapes),
    }
    if "mid_block.attentions.0.norm.weight" in shapes:
        settings["mid_block_type"] = "UNetMidBlock2DCrossAttn"
        gate = shapes["mid_block.attentions.0.proj_in.weight"]
        settings["use_linear_projection"] = len(gate) == 2
    if (width := text_width(shapes)) is not None:
        settings["cross_attention_dim"] = width
    if "add_embedding.linear_1.weight" in shapes:
        settings["addition_embed_type"] = "text_time"
        settings["projection_class_embeddings_input_dim"] = shapes["add_embedding.linear_1.weight"][
            1
        ]
    return settings | _union_settings(shapes)


def hint_settings(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Work out the settings of the part that looks at the drawing, in either way of naming.

    Raises:
        KeyError: a convolution is missing.
    """
    first, *inner, _ = (shapes[f"{module}.weight"] for module in _hint_modules(shapes))
    widths = (first[0], *(shape[0] for shape in inner[1::2]))
    return {"conditioning_channels": first[1], "conditioning_embedding_out_channels": widths}


def original_modules(config: Mapping[str, Any], modules: Iterable[str]) -> dict[str, str]:
    """Give modules of a ControlNet their original names.

    Args:
        config: Settings of the UNet that it steers.
        modules: Names in diffusers' layout.

    Returns:
        Original name by diffusers' name, for those that the original has.
    """
    modules = list(modules)
    names = original_names(config, modules)
    blocks = sum(module.startswith(f"{HINT}.blocks.") for module in modules)
    for module in modules:
        if module.startswith(f"{HINT}."):
            place = {f"{HINT}.conv_in": 0, f"{HINT}.conv_out": blocks + 1}.get(module)
            place = 1 + int(module.rpartition(".")[2]) if place is None else place
            names[module] = f"input_hint_block.{2 * place}"
        elif module.startswith("controlnet_down_blocks."):
            names[module] = f"zero_convs.{module.rpartition('.')[2]}.0"
    return names | {"controlnet_mid_block": "middle_block_out.0"}


def _union_settings(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Work out what only a Union has: how many kinds of drawings it knows, and the part that tells them apart."""
    if "task_embedding" not in shapes:
        return {}
    kinds, width = shapes["task_embedding"]
    return {
        "num_control_type": kinds,
        "num_trans_channel": width,
        "num_trans_layer": len(_numbers(r"^transformer_layes\.(\d+)\.", shapes)),
        "num_proj_channel": shapes["spatial_ch_projs.weight"][0],
    }


def _hint_modules(shapes: Mapping[str, Shape]) -> list[str]:
    """List the convolutions that look at the drawing, in order."""
    original = sorted(_numbers(r"^input_hint_block\.(\d+)\.weight$", shapes))
    if original:
        return [f"input_hint_block.{number}" for number in original]
    blocks = sorted(_numbers(rf"^{HINT}\.blocks\.(\d+)\.", shapes))
    return [
        f"{HINT}.conv_in",
        *(f"{HINT}.blocks.{number}" for number in blocks),
        f"{HINT}.conv_out",
    ]


def _depth(block: str, shapes: Mapping[str, Shape]) -> int:
    """Count the transformer blocks in a level's attention; some small ControlNets have none there."""
    return len(_numbers(rf"^{block}\.attentions\.0\.transformer_blocks\.(\d+)\.", shapes))


def _numbers(pattern: str, keys: Iterable[str]) -> set[int]:
    """Collect the numbers that a pattern finds in keys."""
    return {int(match[1]) for key in keys if (match := re.match(pattern, key))}
