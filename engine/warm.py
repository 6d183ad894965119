"""A base model that is ready to paint: its networks, and what the engine derives from them once."""

from dataclasses import dataclass
from typing import Any

import torch

from engine.catalog import Checkpoint
from engine.loop import Denoiser
from engine.models.checkpoints import LoadedModel, load_checkpoint
from engine.sampling.prediction import model_sampling
from engine.stages.encode import PromptEncoder
from engine.stages.preview import PreviewDecoder, preview_decoder


@dataclass(frozen=True, eq=False)
class WarmModel:
    """A loaded model with its denoiser, prompt encoder and preview decoder."""

    loaded: LoadedModel
    denoiser: Denoiser
    encoder: PromptEncoder
    preview: PreviewDecoder

    @property
    def name(self) -> str:
        """What a plan calls it."""
        return self.loaded.checkpoint.name

    @property
    def vae(self) -> Any:
        """The `AutoencoderKL`."""
        return self.loaded.vae


def warm_up(checkpoint: Checkpoint, device: torch.device) -> WarmModel:
    """Load a base model onto `device` and derive the rest.

    Raises:
        EngineError: it cannot be fetched or read, or is not SDXL.
    """
    loaded = load_checkpoint(checkpoint, device)
    return WarmModel(
        loaded=loaded,
        denoiser=Denoiser(loaded.unet, model_sampling("karras", loaded.prediction_type)),
        encoder=PromptEncoder(loaded),
        preview=preview_decoder(loaded.preview_decoder, loaded.vae),
    )
