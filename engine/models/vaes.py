"""VAEs of their own file, in place of the base model's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import ModelIncompatible
from engine.models.checkpoints import place_vae, reading
from engine.models.tensors import read_tensors

_SIDES = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_PREFIXES = ("first_stage_model.", "vae.")
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Older names of diffusers for the parts of an attention layer."""


def load_vae(path: Path, like: Any, device: torch.device) -> Any:
    """Read a VAE that is built as another one, and put it on `device` in the same number format.

    Args:
        path: A safetensors file in the original layout or in diffusers'; of a whole checkpoint its VAE is taken.
        like: The base model's `AutoencoderKL`, which also gives what a file does not say, such as the scale of latents.
        device: Where it goes.

    Returns:
        An `AutoencoderKL`.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it is no VAE, of another build, or broken; the message names the weight that tells.
    """
    with reading(path.name):
        weights = _weights(path, like)
        _require_same(path.name, weights, like)
        with torch.device("meta"):
            vae = type(like).from_config(like.config)
        vae.load_state_dict(
            {
                key: weights[key].to(dtype=like.dtype, copy=True)  # a mapped file may change
                for key in vae.state_dict()
            },
            assign=True,
        )
        return place_vae(vae, device)


def _weights(path: Path, like: Any) -> dict[str, Tensor]:
    """Read the weights by diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    tensors = {_without_prefix(key): value for key, value in read_tensors(path).items()}
    tensors = {key: value for key, value in tensors.items() if key.startswith(_SIDES)}
    if any(key.startswith(("encoder.down.", "decoder.up.")) for key in tensors):
        return dict(convert_ldm_vae_checkpoint(tensors, like.config))
    return {_modern(key): value for key, value in tensors.items()}


def _without_prefix(key: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), "")
    return key.removeprefix(prefix)


def _modern(key: str) -> str:
    module, _, kind = key.rpartition(".")
    parent, _, name = module.rpartition(".")
    return f"{parent}.{_ATTENTION[name]}.{kind}" if name in _ATTENTION else key


def _require_same(name: str, weights: Mapping[str, Tensor], like: Any) -> None:
    """Make sure that all weights are there, in the same shapes."""
    if not weights:
        raise ModelIncompatible(f"{name}: expected a VAE, got a file without an encoder or decoder")
    for key, own in like.state_dict().items():
        wanted = f"expected a VAE like the base model's, with {key} of shape {_shape(own)}"
        if key not in weights:
            raise ModelIncompatible(f"{name}: {wanted}, got none")
        if weights[key].shape != own.shape:
            raise ModelIncompatible(f"{name}: {wanted}, got {_shape(weights[key])}")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
