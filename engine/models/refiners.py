"""Refiners: models whose UNet takes over from the base model's within a picture.

They read text through the base model's encoders, so of their own weights only the UNet is read; of an SD 1.5 model also the VAE,
since its latents are others. Source: reference/fooocus_engine.md, 2.7.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.catalog import Checkpoint
from engine.errors import ModelIncompatible
from engine.families import PIPELINES, SD15_CONTEXT, Family, is_v_prediction, require_refiner
from engine.models.checkpoints import (
    CONFIGS,
    SD15_CONFIG,
    SDXL_CONFIG,
    place_unet,
    place_vae,
    read_settings,
    read_shapes,
    reading,
    require_prediction,
    require_uncut_parts,
    require_whole,
)
from engine.models.devices import quiet_libraries, weight_dtype
from engine.models.files import INDEX, fetch_pipeline, variant_of
from engine.models.memory import Tier

log = logging.getLogger(__name__)

_CONFIG: Mapping[Family, Path] = {
    "sdxl": SDXL_CONFIG,
    "sdxl-refiner": CONFIGS / "sdxl_refiner",
    "sd15": SD15_CONFIG,
}


@dataclass(frozen=True, eq=False)
class LoadedRefiner:
    """A refiner whose networks are in memory, in evaluation mode, without gradients."""

    checkpoint: Checkpoint
    family: Family
    unet: Any
    """The `UNet2DConditionModel`."""
    vae: Any | None
    """The `AutoencoderKL` of an SD 1.5 model; None where latents are the base model's."""
    prediction_type: str
    """``epsilon`` or ``v_prediction``."""


@dataclass(frozen=True, slots=True)
class _Facts:
    family: Family
    prediction_type: str


def load_refiner(
    checkpoint: Checkpoint,
    device: torch.device,
    *,
    config: Path | None = None,
    dtype: torch.dtype | None = None,
    tier: Tier = Tier.RESIDENT,
) -> LoadedRefiner:
    """Read a refiner and put it on `device`.

    Args:
        checkpoint: A diffusers folder or a single file, of any family that can refine.
        device: Where the networks go.
        config: Settings of the networks of a single file; None is those of its family.
        dtype: Number format of the weights; None is `weight_dtype`'s choice.
        tier: What of it stays on the device while it is not at work.

    Raises:
        ModelNotFound: it must be fetched first and cannot be.
        ModelIncompatible: it is of no family that can refine, or not whole.
        OutOfMemory: the device has no room for it.
    """
    quiet_libraries()
    if checkpoint.hub_id is not None:
        fetch_pipeline(checkpoint.hub_id, checkpoint.path)
    path, dtype = checkpoint.path, dtype or weight_dtype(device)
    with reading(checkpoint.name):
        facts = _facts_of_folder(path) if path.is_dir() else _facts_of_file(path)
        require_prediction(checkpoint.name, facts.prediction_type)
        config = config or _CONFIG[facts.family]
        unet = place_unet(_network(checkpoint, "unet", config, dtype), device, tier)
        vae = (
            place_vae(_network(checkpoint, "vae", config, dtype), device)
            if facts.family == "sd15"
            else None
        )
    log.info("loaded %s as refiner (%s), %s on %s", checkpoint.name, facts.family, dtype, device)
    return LoadedRefiner(checkpoint, facts.family, unet, vae, facts.prediction_type)


def _network(checkpoint: Checkpoint, part: str, config: Path, dtype: torch.dtype) -> Any:
    """Read the UNet or the VAE of a model, whole."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    kind: Any = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    path = checkpoint.path
    if path.is_dir():
        require_uncut_parts(path, [part])
        network = kind.from_pretrained(
            path,
            subfolder=part,
            dtype=dtype,
            variant=variant_of(path),
            use_safetensors=True,
            local_files_only=True,
        )
    else:
        network = kind.from_single_file(
            str(path), config=str(config), subfolder=part, local_files_only=True, dtype=dtype
        )
    require_whole(checkpoint.name, part, network)
    return network


def _facts_of_file(path: Path) -> _Facts:
    shapes = read_shapes(path)
    family = require_refiner(path.name, shapes)
    return _Facts(family, "v_prediction" if is_v_prediction(shapes) else "epsilon")


def _facts_of_folder(path: Path) -> _Facts:
    pipeline = read_settings(path / INDEX).get("_class_name")
    family = PIPELINES.get(str(pipeline))
    if family is None:
        wanted = "an SDXL base model, an SDXL refiner or a Stable Diffusion 1.5 model as refiner"
        raise ModelIncompatible(f"{path.name}: expected {wanted}, got a {pipeline}")
    settings = read_settings(path / "unet" / "config.json")
    width = settings.get("cross_attention_dim")
    if family == "sd15" and width != SD15_CONTEXT:
        problem = (
            f"expected a Stable Diffusion 1.5 model, which attends to text {SD15_CONTEXT} wide"
        )
        raise ModelIncompatible(f"{path.name}: {problem}, got {width}")
    if settings.get("in_channels") != 4:
        problem = f"expected a UNet of 4 input channels, got {settings.get('in_channels')}"
        raise ModelIncompatible(f"{path.name}: {problem}")
    schedule = read_settings(path / "scheduler" / "scheduler_config.json")
    return _Facts(family, schedule.get("prediction_type", "epsilon"))
