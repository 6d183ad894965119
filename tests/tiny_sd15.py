"""Stable Diffusion 1.5 at tiny size with random weights: a diffusers folder, and a single file of the original key names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.models.checkpoints import CONFIGS
from tests import real_layout
from tests.single_file import original_vae

WIDTH = 32
"""Numbers in a token's vector."""
CHANNELS = (32, 64, 96, 96)
UNET = "model.diffusion_model."


def tiny_parts(*, seed: int = 0) -> dict[str, Any]:
    """Make the networks, built as the real ones are but for their widths and the depth of the text encoder."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel.load_config(CONFIGS / "sd15" / "unet")
    vae = AutoencoderKL.load_config(CONFIGS / "sd15" / "vae")
    text = CLIPTextConfig.from_pretrained(CONFIGS / "sd15" / "text_encoder")
    text.hidden_size, text.intermediate_size = WIDTH, 2 * WIDTH
    text.num_hidden_layers, text.num_attention_heads = 3, 2
    sizes = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4}
    parts = {
        "unet": UNet2DConditionModel.from_config(
            unet, block_out_channels=CHANNELS, cross_attention_dim=WIDTH
        ),
        "vae": AutoencoderKL.from_config(vae, **sizes),
        "text_encoder": CLIPTextModel(text),
    }
    return {name: network.eval() for name, network in parts.items()}


def pipeline_of(parts: Mapping[str, Any]) -> Any:
    """Make the stock pipeline of such networks."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    from engine.models.tokenizers import clip_tokenizer

    scheduler = EulerDiscreteScheduler.from_pretrained(CONFIGS / "sd15" / "scheduler")
    return StableDiffusionPipeline(
        **parts,
        tokenizer=clip_tokenizer(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write_tiny_sd15(folder: Path, *, seed: int = 0) -> Path:
    """Write a diffusers folder; about 10 MB."""
    pipeline_of(tiny_parts(seed=seed)).save_pretrained(folder)
    return folder


def unet_names() -> dict[str, str]:
    """Give diffusers' names of the UNet's weights by their original ones, as its converter has them."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config = UNet2DConditionModel.load_config(CONFIGS / "sd15" / "unet")
    names = {UNET + key: key for key in real_layout.unet_shapes(real_layout.SD15)}
    return {old: new for new, old in convert_ldm_unet_checkpoint(names, config).items()}


def original_weights(parts: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Give all weights the names they have in a single file."""
    unet = parts["unet"].state_dict()
    for old, new in unet_names().items():
        yield UNET + old, unet[new]
    yield from original_vae(parts["vae"].state_dict())
    for key, value in parts["text_encoder"].state_dict().items():
        yield f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}", value


def write_single_sd15(path: Path, config: Path) -> dict[str, Any]:
    """Write a single file, and the settings of its networks to the folder `config`.

    Returns:
        The networks it was made of.
    """
    import shutil

    from safetensors.torch import save_file

    parts = tiny_parts(seed=1)
    shutil.copytree(CONFIGS / "sd15", config)
    for name, network in parts.items():
        save = network.config.save_pretrained if name == "text_encoder" else network.save_config
        save(config / name)
    weights = {key: value.contiguous().clone() for key, value in original_weights(parts)}
    save_file(weights, path)
    return parts
