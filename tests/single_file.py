"""SDXL checkpoints in the original single-file layout, at toy size: real key names, random weights."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VAE_NAMES = (
    (r"^(encoder|decoder)\.mid_block\.resnets\.0\.", r"\1.mid.block_1."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.1\.", r"\1.mid.block_2."),
    (r"^(encoder|decoder)\.mid_block\.attentions\.0\.group_norm\.", r"\1.mid.attn_1.norm."),
    (r"^(encoder|decoder)\.mid_block\.attentions\.0\.to_out\.0\.", r"\1.mid.attn_1.proj_out."),
    (r"^(encoder|decoder)\.mid_block\.attentions\.0\.to_([qkv])\.", r"\1.mid.attn_1.\2."),
    (r"^encoder\.down_blocks\.(\d)\.resnets\.", r"encoder.down.\1.block."),
    (r"^encoder\.down_blocks\.(\d)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)


def original_vae(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Give an `AutoencoderKL`'s weights their original names."""
    for key, value in weights.items():
        name = re.sub(
            r"^decoder\.up_blocks\.(\d)\.(resnets|upsamplers\.0)\.",
            lambda m: f"decoder.up.{3 - int(m[1])}.{'block' if m[2] == 'resnets' else 'upsample'}.",
            key,
        )
        for pattern, replacement in VAE_NAMES:
            name = re.sub(pattern, replacement, name)
        is_attention = "attn_1" in name and value.ndim == 2
        yield f"first_stage_model.{name}", value[:, :, None, None] if is_attention else value


def original_text_1(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Give a `CLIPTextModel`'s weights the names of SDXL's first text encoder."""
    for key, value in weights.items():
        yield (
            f"conditioner.embedders.0.transformer.text_model.{key.removeprefix('text_model.')}",
            value,
        )


def original_text_2(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Give a `CLIPTextModelWithProjection`'s weights OpenCLIP's names, its queries, keys and values in one matrix."""
    prefix = "conditioner.embedders.1.model."
    plain = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    layer = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    yield prefix + "text_projection", weights["text_projection.weight"].T.contiguous()
    for key, value in weights.items():
        if key in plain:
            yield prefix + plain[key], value
        elif match := re.match(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", key):
            number, part, kind = match.groups()
            block = f"{prefix}transformer.resblocks.{number}."
            if part in layer:
                yield f"{block}{layer[part]}.{kind}", value
            elif part == "self_attn.q_proj":
                rows = [weights[key.replace("q_proj", f"{p}_proj")] for p in "qkv"]
                yield f"{block}attn.in_proj_{kind}", torch.cat(rows)


def write_single_file(path: Path, config: Path, golden: Path) -> dict[str, Any]:
    """Write a toy SDXL checkpoint to `path` and the settings of its networks to the folder `config`.

    Returns:
        The networks it was made of, by diffusers' part names.
    """
    from diffusers import AutoencoderKL
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from tests.toy_unet import load_toy_unet

    torch.manual_seed(1)
    sizes = {"vocab_size": 49408, "num_attention_heads": 2, "intermediate_size": 32}
    parts: dict[str, Any] = {
        "unet": load_toy_unet(golden),
        "vae": AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
            scaling_factor=0.13025,
        ),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**sizes, hidden_size=16, num_hidden_layers=3)),
        "text_encoder_2": CLIPTextModelWithProjection(
            CLIPTextConfig(**sizes, hidden_size=48, num_hidden_layers=11, projection_dim=1280)
        ),
    }
    names = json.loads((golden / "tiny_unet_names.json").read_text())["original_to_diffusers"]
    unet = parts["unet"].state_dict()
    weights = {f"model.diffusion_model.{old}": unet[new] for old, new in names.items()}
    weights.update(original_vae(parts["vae"].state_dict()))
    weights.update(original_text_1(parts["text_encoder"].state_dict()))
    weights.update(original_text_2(parts["text_encoder_2"].state_dict()))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous().clone() for key, value in weights.items()}, path)
    for part, network in parts.items():
        network.config.save_pretrained(config / part) if part.startswith(
            "text"
        ) else network.save_config(config / part)
    return parts
