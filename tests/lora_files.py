"""Small files of the LoRA family as trainers write them, without torch, and files that only say that they are some."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

KEY = "lora_unet_down_blocks_2_attentions_0_transformer_blocks_0_attn2_to_k"
"""A layer that attends to the text."""


def lora_shapes(width: int = 2048, rank: int = 2) -> dict[str, tuple[int, ...]]:
    """List the tensors of a LoRA of one layer; `width` is that of the text: 2048 SDXL, 768 SD 1.5."""
    return {f"{KEY}.lora_down.weight": (rank, width), f"{KEY}.lora_up.weight": (8, rank)}


def lora_bytes(
    known: Mapping[str, str] | None = None, *, width: int = 2048, seed: int = 1
) -> bytes:
    """Write a LoRA of one layer."""
    return weights_bytes(lora_shapes(width), known, seed=seed)


def weights_bytes(
    shapes: Mapping[str, tuple[int, ...]], known: Mapping[str, str] | None = None, *, seed: int = 1
) -> bytes:
    """Write tensors of these shapes."""
    dice = np.random.default_rng(seed)
    tensors = {key: dice.random(shape, np.float32) for key, shape in shapes.items()}
    return save(tensors, metadata=dict(known or {}))


def write_lora(path: Path, known: Mapping[str, str] | None = None, **more: int) -> Path:
    """Write a LoRA of one layer into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lora_bytes(known, **more))
    return path


def hostile_files() -> dict[str, bytes]:
    """List files that are no LoRA, whatever their name says."""
    whole = lora_bytes()
    entry = {"dtype": "F32", "shape": [2, 2048], "data_offsets": [0, 2 * 2048 * 4]}
    empty = json.dumps({f"{KEY}.lora_down.weight": entry}).encode()
    return {
        "nothing": b"",
        "a pickle": b"\x80\x04\x95" + bytes(200),
        "a zip": b"PK\x03\x04" + bytes(200),
        "a web page": b"<!doctype html><title>Log in</title>" + b" " * 200,
        "cut off": whole[:-100],
        "cut off in the header": whole[:40],
        "a header of 8 GB": (8 << 30).to_bytes(8, "little") + whole[8:],
        "a header of 2^63 bytes": (1 << 63).to_bytes(8, "little") + whole[8:],
        "a header without its data": len(empty).to_bytes(8, "little") + empty,
        "a deep header": len(b"[" * 100_000).to_bytes(8, "little") + b"[" * 100_000,
        "no LoRA": weights_bytes({"weight": (4, 4)}),
        "an embedding": weights_bytes({"clip_l": (2, 768), "clip_g": (2, 1280)}),
    }
