"""A UNet by itself, in the place of a base model's own."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.errors import ModelIncompatible
from engine.models.checkpoints import place_unet, reading, require_uncut_parts, require_whole
from engine.models.devices import quiet_libraries
from engine.models.tensors import read_tensors

_ORIGINAL = "model.diffusion_model."
"""How the names of a UNet's weights begin in the original layout."""
_MUST_FIT = ("in_channels", "out_channels", "cross_attention_dim", "addition_embed_type")
"""Settings that a UNet must have in common with the one whose place it takes."""


def load_unet(path: Path, like: Any) -> Any:
    """Read a UNet and put it where another one is.

    Args:
        path: A folder of diffusers, or a file of weights in diffusers' names or the original ones; a file must be of the same
            build.
        like: The `UNet2DConditionModel` whose place it takes; it is not changed.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it is no UNet, broken, or not for this base model.
        OutOfMemory: there is no room for it.
    """
    quiet_libraries()
    with reading(path.name):
        unet = _read_folder(path, like) if path.is_dir() else _read_file(path, like)
        require_whole(path.name, "UNet", unet)
        for setting in _MUST_FIT:
            wanted, found = getattr(like.config, setting), getattr(unet.config, setting)
            if wanted != found:
                problem = f"expected a UNet with {setting} {wanted}, as the base model has"
                raise ModelIncompatible(f"{path.name}: {problem}, got {found}")
        return place_unet(unet, like.device)


def _read_folder(path: Path, like: Any) -> Any:
    from diffusers import UNet2DConditionModel

    require_uncut_parts(path.parent, (path.name,))
    return UNet2DConditionModel.from_pretrained(
        path, dtype=like.dtype, use_safetensors=True, local_files_only=True
    )


def _read_file(path: Path, like: Any) -> Any:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    tensors = read_tensors(path)
    if any(key.startswith(_ORIGINAL) for key in tensors):
        tensors = convert_ldm_unet_checkpoint(tensors, dict(like.config))
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(like.config)
    _require_same(path.name, tensors, unet)
    copied = {key: value.to(like.dtype, copy=True) for key, value in tensors.items()}
    unet.load_state_dict(copied, assign=True)
    return unet


def _require_same(name: str, tensors: dict[str, torch.Tensor], unet: nn.Module) -> None:
    own = {key: tuple(value.shape) for key, value in unet.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    for key in sorted({*own, *found}):
        if own.get(key) != found.get(key):
            problem = f"expected a UNet with {key} of shape {own.get(key)}, got {found.get(key)}"
            raise ModelIncompatible(f"{name}: {problem}")
