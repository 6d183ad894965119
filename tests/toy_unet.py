"""The toy UNet of the golden data as a diffusers model: SDXL's layout, 32 channels wide."""

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.numpy import load

from tests.golden_data import golden_model


def load_toy_unet(golden_dir: Path) -> UNet2DConditionModel:
    """Build it from its integer weights: ``int8 · scale`` of each key, exact in float32.

    Args:
        golden_dir: Folder with ``tiny_unet_int.safetensors.gz`` and ``tiny_unet_names.json``; where they are not, this
            repository's are taken.
    """
    raw = gzip.decompress(golden_model("tiny_unet_int.safetensors.gz", golden_dir).read_bytes())
    names = json.loads(golden_model("tiny_unet_names.json", golden_dir).read_text())
    scales = json.loads(_metadata(raw)["scale"])
    weights = {
        names["original_to_diffusers"][key]: torch.from_numpy(value).float() * scales[key]
        for key, value in load(raw).items()
    }
    unet = UNet2DConditionModel(**names["config"])
    unet.load_state_dict(weights)
    return unet.eval()


def _metadata(safetensors: bytes) -> dict[str, Any]:
    """Read the header of a safetensors file: its length in 8 bytes, then JSON."""
    length = int.from_bytes(safetensors[:8], "little")
    metadata: dict[str, Any] = json.loads(safetensors[8 : 8 + length])["__metadata__"]
    return metadata
