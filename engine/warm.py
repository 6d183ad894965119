"""Loaded models that are ready to paint: a base model or a refiner, and what the engine derives from it once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.catalog import Checkpoint
from engine.conditioning.text_keys import TextKeys
from engine.guides import Guides
from engine.loop import Denoiser
from engine.models.checkpoints import LoadedModel, load_checkpoint
from engine.models.compiling import CompiledBlocks
from engine.models.interposer import Interposer
from engine.models.levers import Kernel, Levers, pull
from engine.models.memory import Parts, Tier, aside
from engine.models.patches import WeightPatcher
from engine.models.refiners import LoadedRefiner
from engine.models.unets import load_unet
from engine.sampling.latent_format import SD15, SDXL, LatentFormat
from engine.sampling.listings import Listing
from engine.sampling.prediction import model_sampling
from engine.stages.encode import PromptEncoder
from engine.stages.preview import PreviewDecoder, preview_decoder


@dataclass(frozen=True, eq=False)
class WarmRefiner:
    """A loaded refiner."""

    loaded: LoadedRefiner
    patcher: WeightPatcher
    preview: PreviewDecoder | None = None
    """For latents of a VAE of its own; None where it has none."""
    interposer: Interposer | None = None
    """Turns the base model's latents into its own; None where they are the same."""
    texts: TextKeys | None = None
    """What its UNet knows of texts; None where it works them out at every step."""
    attention: Kernel = "auto"
    """The attention kernel that goes first."""

    @property
    def name(self) -> str:
        """What a plan calls it."""
        return self.loaded.checkpoint.name

    def denoiser(self, scheduler: str) -> Denoiser:
        """Make the denoiser for a scheduler."""
        return Denoiser(
            self.loaded.unet,
            model_sampling(
                scheduler,
                self.loaded.prediction_type,
                SD15 if self.loaded.family == "sd15" else SDXL,
            ),
            self.texts,
            self.attention,
        )

    @property
    def convert(self) -> Callable[[Tensor], Tensor] | None:
        """Turn the base model's latents, as its VAE gives them, into the refiner's."""
        return None if self.interposer is None else self._convert

    def _convert(self, latents: Tensor) -> Tensor:
        assert self.interposer is not None
        converted: Tensor = self.interposer(latents.float().cpu())
        return converted


@dataclass(eq=False)
class WarmModel:
    """A loaded base model, and what the engine derives from it once."""

    loaded: LoadedModel
    patcher: WeightPatcher
    encoder: PromptEncoder
    preview: PreviewDecoder
    vae: Any
    """The `AutoencoderKL` that decodes: the base model's own, or the one that was asked for."""
    guides: Guides
    """What its images can follow."""
    vae_name: str | None = None
    refiner: WarmRefiner | None = None
    texts: TextKeys | None = None
    """What its UNet knows of texts; None where it works them out at every step."""
    attention: Kernel = "auto"
    """The attention kernel that goes first."""
    compiled: CompiledBlocks | None = None
    """Its UNet's blocks, where they are compiled in the background."""
    unpatched: Any = None
    """Its UNet as it is without an inpaint patch, while there is one; weights that the patch leaves alone are shared."""

    @property
    def name(self) -> str:
        """What a plan calls it."""
        return self.loaded.checkpoint.name

    @property
    def nbytes(self) -> int:
        """Memory that its weights take, with its refiner's and what is set aside while patches are on."""
        refiner = self.refiner.loaded.unet if self.refiner else None
        networks = (self.loaded.unet, self.vae, *self.loaded.text_encoders.values(), refiner)
        weights: dict[int, int] = {
            weight.data_ptr(): weight.nbytes
            for network in networks
            if network is not None
            for weight in network.parameters()
        }
        return sum(weights.values()) + self.patcher.pristine_bytes

    def aside(self) -> AbstractContextManager[None]:
        """Have everything leave the device for a while that the VAE can do without."""
        tier, loaded = self.loaded.tier, self.loaded
        self.forget_texts()
        networks = [] if tier is Tier.STREAMED else [loaded.unet]
        if networks and self.refiner is not None:
            networks.append(self.refiner.loaded.unet)
        if tier is Tier.RESIDENT:
            networks += loaded.text_encoders.values()
        return aside(networks, loaded.device)

    def forget_texts(self) -> None:
        """Have its UNets work out anew what they know of texts."""
        for texts in (self.texts, self.refiner.texts if self.refiner else None):
            if texts is not None:
                texts.forget()

    def decoder_of(self, latent_format: LatentFormat) -> Any:
        """Choose the VAE for latents: the refiner's where they are its own."""
        if latent_format == SD15 and self.refiner is not None and self.refiner.loaded.vae:
            return self.refiner.loaded.vae
        return self.vae

    def preview_of(self, latent_format: LatentFormat, latents: Tensor) -> Tensor:
        """Decode a preview of (B, 4, h, w) latents, as `PreviewDecoder` does."""
        if latent_format == SD15 and self.refiner is not None and self.refiner.preview:
            return self.refiner.preview(latents)
        own = LatentFormat(self.loaded.vae.config.scaling_factor)
        if latent_format != own:
            latents = own.to_model(latent_format.to_vae(latents))
        return self.preview(latents)

    def denoiser(self, scheduler: str) -> Denoiser:
        """Make the denoiser for a scheduler: some change how the UNet is fed and read."""
        latent_format = LatentFormat(self.loaded.vae.config.scaling_factor)
        return Denoiser(
            self.loaded.unet,
            model_sampling(scheduler, self.loaded.prediction_type, latent_format),
            self.texts,
            self.attention,
        )

    def listed_denoiser(self, listing: Listing, prediction_type: str | None) -> Denoiser:
        """Make the denoiser for a walk of one of diffusers' schedulers; None is the model's own type of prediction."""
        latent_format = LatentFormat(self.loaded.vae.config.scaling_factor)
        told = prediction_type or self.loaded.prediction_type
        model = listing.model_sampling(told, latent_format)
        return Denoiser(self.loaded.unet, model, self.texts, self.attention)


def warm_up(
    checkpoint: Checkpoint,
    device: torch.device,
    find_embedding: Callable[[str], Path | None],
    *,
    allow_pickle: bool = False,
    unet: Path | None = None,
    levers: Levers | None = None,
    tier_of: Callable[[Parts], Tier] = lambda parts: Tier.RESIDENT,
) -> WarmModel:
    """Load a base model onto `device` and derive the rest; `unet` takes the place of its own UNet.

    Levers are for UNets that stay where they are.

    Raises:
        EngineError: it cannot be fetched or read, or is no base model of SDXL or SD 1.5.
    """
    exchange = None if unet is None else partial(load_unet, unet)
    loaded = load_checkpoint(checkpoint, device, exchange=exchange, tier_of=tier_of)
    levers = levers or Levers.usual(device)
    stays = loaded.tier.keeps_unet
    if stays:
        pull(levers, loaded.unet)
    return WarmModel(
        loaded=loaded,
        patcher=WeightPatcher(
            {"unet": loaded.unet, **loaded.text_encoders}, allow_pickle=allow_pickle
        ),
        encoder=PromptEncoder(loaded, find_embedding),
        preview=preview_decoder(loaded.preview_decoder, loaded.vae),
        vae=loaded.vae,
        guides=Guides(loaded.unet, allow_pickle=allow_pickle),
        texts=text_keys(loaded.unet, levers, loaded.tier),
        attention=levers.attention,
        compiled=CompiledBlocks(loaded.unet, levers.attention)
        if levers.compile and stays
        else None,
    )


def text_keys(unet: Any, levers: Levers, tier: Tier) -> TextKeys | None:
    """Remember texts for a UNet, where its weights stay where they are."""
    return TextKeys(unet) if levers.cached_text and tier.keeps_unet else None


def own_refiner(base: LoadedModel, unpatched: Any, levers: Levers) -> WarmRefiner:
    """Let a base model end a picture without its inpaint patch; weights that it shares are fused there, if anywhere."""
    loaded = LoadedRefiner(
        checkpoint=base.checkpoint,
        family="sdxl",
        unet=unpatched,
        vae=None,
        prediction_type=base.prediction_type,
    )
    return WarmRefiner(
        loaded,
        WeightPatcher({"unet": unpatched}),
        texts=text_keys(unpatched, levers, base.tier),
        attention=levers.attention,
    )
