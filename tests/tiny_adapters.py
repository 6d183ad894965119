"""IP-Adapter files and image encoders in the published layout: at tiny size with random weights, and their shapes at full size."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
ENCODER_WIDTH, EMBED_WIDTH, SIDE = 128, 24, 28
"""Of the tiny image encoder."""
FACE_WIDTH = 512
"""Numbers in the vector of a face."""


def plus_shapes(width: int, hidden: int, token_width: int, *, count: int, depth: int = 4) -> Shapes:
    """List the resampler of a plus adapter, by the names in files."""
    shapes: Shapes = {
        "latents": (1, count, hidden),
        **_layer("proj_in", hidden, width),
        **_layer("proj_out", token_width, hidden),
        **_layer("norm_out", token_width),
    }
    for number in range(depth):
        attention, forward = f"layers.{number}.0", f"layers.{number}.1"
        shapes |= {
            **_layer(f"{attention}.norm1", hidden),
            **_layer(f"{attention}.norm2", hidden),
            f"{attention}.to_q.weight": (hidden, hidden),
            f"{attention}.to_kv.weight": (2 * hidden, hidden),
            f"{attention}.to_out.weight": (hidden, hidden),
            **_layer(f"{forward}.0", hidden),
            f"{forward}.1.weight": (4 * hidden, hidden),
            f"{forward}.3.weight": (hidden, 4 * hidden),
        }
    return shapes


def base_shapes(width: int, token_width: int, *, count: int = 4) -> Shapes:
    """List the projection of a base adapter."""
    return {**_layer("proj", count * token_width, width), **_layer("norm", token_width)}


def full_shapes(width: int, token_width: int) -> Shapes:
    """List the projection of a full adapter."""
    return {
        **_layer("proj.0", width, width),
        **_layer("proj.2", token_width, width),
        **_layer("proj.3", token_width),
    }


def face_shapes(token_width: int, *, count: int = 4) -> Shapes:
    """List the projection of a FaceID adapter."""
    return {
        **_layer("proj.0", 2 * FACE_WIDTH, FACE_WIDTH),
        **_layer("proj.2", count * token_width, 2 * FACE_WIDTH),
        **_layer("norm", token_width),
    }


def face_plus_shapes(width: int, inner: int, token_width: int, *, depth: int = 4) -> Shapes:
    """List the projection of a FaceID Plus adapter; `inner` is the width of its attention."""
    part = "perceiver_resampler"
    shapes: Shapes = {
        **face_shapes(token_width),
        **_layer(f"{part}.proj_in", token_width, width),
        **_layer(f"{part}.proj_out", token_width, token_width),
        **_layer(f"{part}.norm_out", token_width),
    }
    for number in range(depth):
        attention, forward = f"{part}.layers.{number}.0", f"{part}.layers.{number}.1"
        shapes |= {
            **_layer(f"{attention}.norm1", token_width),
            **_layer(f"{attention}.norm2", token_width),
            f"{attention}.to_q.weight": (inner, token_width),
            f"{attention}.to_kv.weight": (2 * inner, token_width),
            f"{attention}.to_out.weight": (token_width, inner),
            **_layer(f"{forward}.0", token_width),
            f"{forward}.1.weight": (4 * token_width, token_width),
            f"{forward}.3.weight": (token_width, 4 * token_width),
        }
    return shapes


def face_lora_shapes(unet: Any, rank: int = 4) -> Shapes:
    """List the LoRA that FaceID files hold: for all attention layers of a UNet, numbered in their order."""
    shapes: Shapes = {}
    for number, name in enumerate(unet.attn_processors):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        parts = {"q": layer.to_q, "k": layer.to_k, "v": layer.to_v, "out": layer.to_out[0]}
        for part, linear in parts.items():
            key = f"ip_adapter.{number}.to_{part}_lora"
            shapes[f"{key}.down.weight"] = (rank, linear.in_features)
            shapes[f"{key}.up.weight"] = (linear.out_features, rank)
    return shapes


def adapter_shapes(projection: Shapes, widths: Sequence[int], token_width: int) -> Shapes:
    """List a whole adapter: its projection, and two matrices for each layer, numbered 1, 3, 5, …"""
    shapes = {f"image_proj.{key}": shape for key, shape in projection.items()}
    for number, width in enumerate(widths):
        for side in ("k", "v"):
            shapes[f"ip_adapter.{2 * number + 1}.to_{side}_ip.weight"] = (width, token_width)
    return shapes


def _layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Draw weights of the usual size: matrices over the root of their width, norms about 1, biases small."""
    generator = torch.Generator().manual_seed(seed)
    return dict(_drawn(shapes, generator))


def _drawn(shapes: Shapes, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for key, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            yield key, 0.1 * noise + (1.0 if key.endswith("weight") else 0.0)
        else:
            yield key, noise / max(1, *shape[1:]) ** 0.5 if shape else noise


def nested(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Bring a file's tensors into the form of pickled files."""
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    return parts


def save_adapter(path: Path, tensors: Mapping[str, Tensor], **metadata: str) -> Path:
    """Write an adapter as a safetensors file, or pickled where its name ends otherwise."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(dict(tensors), path, metadata or None)
    else:
        torch.save(nested(tensors), path)
    return path


def tiny_encoder(seed: int = 0) -> Any:
    """Build an image encoder of random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=ENCODER_WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        patch_size=7,
        image_size=SIDE,
        projection_dim=EMBED_WIDTH,
        hidden_act="gelu",
    )
    return CLIPVisionModelWithProjection(config).eval()


def encoder_shapes(
    width: int, inner: int, depth: int, embed_width: int, *, side: int = 224, patch: int = 14
) -> Shapes:
    """List an image encoder by its names in transformers."""
    model = "vision_model"
    shapes: Shapes = {
        f"{model}.embeddings.class_embedding": (width,),
        f"{model}.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        f"{model}.embeddings.position_embedding.weight": (1 + (side // patch) ** 2, width),
        **_layer(f"{model}.pre_layrnorm", width),  # so it is spelt
        **_layer(f"{model}.post_layernorm", width),
        "visual_projection.weight": (embed_width, width),
    }
    for number in range(depth):
        layer = f"{model}.encoder.layers.{number}"
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= _layer(f"{layer}.{name}", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _layer(f"{layer}.self_attn.{name}", width, width)
        shapes |= _layer(f"{layer}.mlp.fc1", inner, width)
        shapes |= _layer(f"{layer}.mlp.fc2", width, inner)
    return shapes
