"""The safety checker of Stable Diffusion: a CLIP image encoder whose answer is compared with that for some concepts.

Its build is read off its weights, so that one file is enough: `model.safetensors` of the hub's repository, or the pickled
file of other programs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import ModelIncompatible
from engine.models.checkpoints import reading
from engine.models.devices import quiet_libraries
from engine.models.tensors import read_tensors

KNOWN_PICKLED = frozenset({"193490b58ef62739077262e833bf091c66c29488058681ac25cf7df3d8190974"})
"""sha256 of the pickled files that are known to hold nothing but tensors: that of Stable Diffusion 1.5."""
_HEAD = 64
"""Width of one attention head in all of CLIP's image encoders."""
_NESTED, _FLAT = "vision_model.vision_model.", "vision_model."
_POSITIONS = "vision_model.embeddings.position_ids"
"""What older files hold beside the weights."""


@dataclass(frozen=True, eq=False)
class SafetyChecker:
    """A loaded checker."""

    network: Any
    """A `StableDiffusionSafetyChecker`, in float32, so that a device does not decide what is flagged."""
    side: int
    """Pixels along each side of the square that it sees."""


def load_safety_checker(
    path: Path, device: torch.device, *, allow_pickle: bool = False
) -> SafetyChecker:
    """Read a safety checker and put it on `device`.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it is no safety checker, broken, or pickled and not allowed.
        OutOfMemory: there is no room for it.
    """
    quiet_libraries()
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    tensors = read_tensors(path, allow_pickle=allow_pickle, known_sha256=KNOWN_PICKLED)
    weights = {_short(key): value for key, value in tensors.items()}
    weights.pop(_POSITIONS, None)
    with reading(path.name):
        side, config = _build(path.name, weights)
        with torch.device("meta"):
            network: Any = StableDiffusionSafetyChecker(config)
        own = network.state_dict()
        _require_same(path.name, weights, {_short(key): value for key, value in own.items()})
        network.load_state_dict(
            {
                key: weights[_short(key)].to(torch.float32, copy=True)  # a mapped file may change
                for key in own
            },
            assign=True,
        )
        _number_places(network)
        network = network.to(device).eval().requires_grad_(requires_grad=False)
    return SafetyChecker(network, side)


def _short(key: str) -> str:
    """Name a weight without the nesting that some versions of transformers have."""
    return key.replace(_NESTED, _FLAT, 1) if key.startswith(_NESTED) else key


def _build(name: str, weights: Mapping[str, Tensor]) -> tuple[int, Any]:
    """Read off the weights how the network is built; gives the side of its pictures and its `CLIPConfig`."""
    from transformers import CLIPConfig

    embeddings = "vision_model.embeddings."
    needed = {
        "visual_projection.weight": 2,
        "concept_embeds": 2,
        f"{embeddings}patch_embedding.weight": 4,
        f"{embeddings}position_embedding.weight": 2,
        "vision_model.encoder.layers.0.mlp.fc1.weight": 2,
    }
    for key, dimensions in needed.items():
        if key not in weights or weights[key].ndim != dimensions:
            problem = "expected the safety checker of Stable Diffusion, got a file without its"
            raise ModelIncompatible(f"{name}: {problem} {key}")
    projection, _, patches, places, first = (weights[key].shape for key in needed)
    layers = {
        key.split(".")[3] for key in weights if key.startswith("vision_model.encoder.layers.")
    }
    side = isqrt(places[0] - 1) * patches[-1]
    vision = {
        "hidden_size": projection[1],
        "intermediate_size": first[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, projection[1] // _HEAD),
        "patch_size": patches[-1],
        "image_size": side,
        "projection_dim": projection[0],
        "hidden_act": "quick_gelu",
    }
    return side, CLIPConfig(vision_config=vision, projection_dim=projection[0])


def _number_places(network: Any) -> None:
    """Give the one buffer its numbers that is in no file."""
    for module in network.modules():
        if "position_ids" in module._buffers:
            count = module.position_embedding.num_embeddings
            module.position_ids = torch.arange(count).unsqueeze(0)


def _require_same(name: str, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Make sure that all weights are there, in the right shapes, and no others."""
    for key in sorted({*weights, *own}):
        found, wanted = (tuple(it[key].shape) if key in it else None for it in (weights, own))
        if found != wanted:
            problem = f"expected a safety checker with {key} of shape {wanted}, got {found}"
            raise ModelIncompatible(f"{name}: {problem}")
