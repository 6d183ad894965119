"""Base models, from a file or a folder to networks on a device.

diffusers reads and converts them and its pipeline object holds the parts (design D1); the engine drives the parts itself.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from engine.catalog import Checkpoint, read_header
from engine.errors import ModelIncompatible, OutOfMemory
from engine.models.devices import quiet_libraries, weight_dtype
from engine.families import is_v_prediction, require_sdxl
from engine.models.files import fetch_pipeline, variant_of
from engine.models.tokenizers import clip_tokenizer
from engine.sampling.prediction import PREDICTIONS

log = logging.getLogger(__name__)

SDXL_CONFIG = Path(__file__).parent / "configs" / "sdxl"
"""The settings of SDXL's networks, which a single file does not carry."""
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, AttributeError, SafetensorError)
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A base model whose networks are in memory, in evaluation mode, without gradients."""

    checkpoint: Checkpoint
    pipeline: Any
    """diffusers' `StableDiffusionXLPipeline`, as holder of the parts."""
    device: torch.device
    prediction_type: str
    """``epsilon`` or ``v_prediction``."""

    @property
    def unet(self) -> Any:
        """The `UNet2DConditionModel`."""
        return self.pipeline.unet

    @property
    def vae(self) -> Any:
        """The `AutoencoderKL`."""
        return self.pipeline.vae

    @cached_property
    def preview_decoder(self) -> Any | None:
        """The `AutoencoderTiny` beside the model, or None when it has none."""
        folder = self.checkpoint.path / "preview"
        if not (folder / "config.json").exists():
            return None
        from diffusers import AutoencoderTiny

        try:
            decoder = AutoencoderTiny.from_pretrained(
                folder, dtype=self.unet.dtype, use_safetensors=True
            )
        except _UNREADABLE as error:
            log.warning("%s: its preview decoder cannot be read: %s", self.checkpoint.name, error)
            return None
        return decoder.to(self.device).eval().requires_grad_(requires_grad=False)


def load_checkpoint(
    checkpoint: Checkpoint, device: torch.device, *, config: Path = SDXL_CONFIG
) -> LoadedModel:
    """Read a base model and put it on `device`: float32 on the CPU, bfloat16 or float16 elsewhere.

    Args:
        checkpoint: A diffusers folder or a single file.
        device: Where the networks go.
        config: Settings of the networks of a single file; another folder is for files of another size.

    Raises:
        ModelNotFound: it must be fetched first and cannot be.
        ModelIncompatible: it is not a whole SDXL base model.
    """
    quiet_libraries()
    if checkpoint.hub_id is not None:
        fetch_pipeline(checkpoint.hub_id, checkpoint.path)
    dtype = weight_dtype(device)
    try:
        pipeline, v_prediction = _read(checkpoint.path, dtype, config)
        _place(pipeline, device, dtype)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{checkpoint.name}: the device has too little memory for it") from error
    except _UNREADABLE as error:
        raise ModelIncompatible(f"{checkpoint.name}: diffusers cannot read it: {error}") from error
    prediction = "v_prediction" if v_prediction else pipeline.scheduler.config.prediction_type
    if prediction not in PREDICTIONS:
        known = " or ".join(PREDICTIONS)
        raise ModelIncompatible(f"{checkpoint.name}: expected {known} prediction, got {prediction}")
    log.info("loaded %s as %s on %s", checkpoint.name, dtype, device)
    return LoadedModel(checkpoint, pipeline, device, prediction)


def _place(pipeline: Any, device: torch.device, dtype: torch.dtype) -> None:
    for part in _PARTS:
        network = getattr(pipeline, part).to(device).eval().requires_grad_(requires_grad=False)
        if part in ("unet", "vae"):
            network.to(memory_format=torch.channels_last)
    if pipeline.vae.config.force_upcast and dtype == torch.float16:
        pipeline.vae.to(torch.float32)


def _read(path: Path, dtype: torch.dtype, config: Path) -> tuple[Any, bool]:
    from diffusers import StableDiffusionXLPipeline

    if path.is_dir():
        _require_sdxl_folder(path)
        pipeline = StableDiffusionXLPipeline.from_pretrained(
            path,
            dtype=dtype,
            variant=variant_of(path),
            use_safetensors=True,
            local_files_only=True,
            add_watermarker=False,
        )
        return pipeline, False
    shapes = read_header(path)
    require_sdxl(path.name, shapes)
    pipeline = StableDiffusionXLPipeline.from_single_file(
        path,
        config=str(config),
        local_files_only=True,
        dtype=dtype,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(pad_token="!"),
        add_watermarker=False,
    )
    return pipeline, is_v_prediction(shapes)


def _require_sdxl_folder(path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    name = StableDiffusionXLPipeline.load_config(path).get("_class_name")
    if name != "StableDiffusionXLPipeline":
        raise ModelIncompatible(f"{path.name}: expected an SDXL base model, got a {name}")
