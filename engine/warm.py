"""The weights in force: a base model that is ready to paint, with its LoRAs, its VAE and its refiner.

A plan is painted only while the weights are the ones it needs; `Palette.bring` changes what differs and nothing else.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.catalog import Catalog, Checkpoint
from engine.conditioning.text_keys import TextKeys
from engine.errors import InvalidRequest, ModelIncompatible
from engine.guides import Guides
from engine.library import INTERPOSER
from engine.loop import Denoiser
from engine.models.apart import copy_apart
from engine.models.checkpoints import LoadedModel, load_checkpoint
from engine.models.compiling import CompiledBlocks
from engine.models.devices import give_back_memory
from engine.models.ic_light import load_ic_light
from engine.models.interposer import Interposer, load_interposer
from engine.models.ip_adapters import carries_lora
from engine.models.levers import Kernel, Levers, pull
from engine.models.memory import Memory, Parts, Tier, aside, free_unused
from engine.models.patches import Patch, WeightPatcher
from engine.models.refiners import LoadedRefiner, load_refiner
from engine.models.trust import trusted_hashes
from engine.models.unets import load_unet
from engine.models.vaes import load_vae
from engine.needed import FIELDS, add_on, base_checkpoint, lora_file
from engine.plan import Lora, Plan, Repainting
from engine.sampling.latent_format import SD15, SDXL, LatentFormat
from engine.sampling.listings import Listing
from engine.sampling.prediction import model_sampling
from engine.stages.encode import PromptEncoder
from engine.stages.preview import PreviewDecoder, preview_decoder
from engine.studio_plan import Asset
from engine.warm_models import WarmModels, bytes_when_loaded

log = logging.getLogger(__name__)

LIGHT = FIELDS["ic_light"]
PICKLED = (".pt", ".bin", ".ckpt", ".pth")
"""Endings of files that may hold more than tensors."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The weights that a plan is painted with."""

    base_model: str
    vae: str | None
    loras: tuple[Lora, ...]
    refiner: str | None
    inpaint_patch: str | None = None
    unet: Asset | None = None
    """Another UNet in the place of the base model's own."""
    relighting: Asset | None = None
    """IC-Light, which changes the whole UNet."""
    faces: tuple[Asset, ...] = ()
    """IP-Adapters that are shown faces, whose files may hold a LoRA."""

    @classmethod
    def of(cls, plan: Plan) -> "Needs":
        """Read them off a plan."""
        loras = tuple(item for item in plan.loras if item.scale != 0)
        studio = plan.studio
        return cls(
            plan.base_model,
            plan.vae,
            loras,
            plan.refiner.model if plan.refiner else None,
            plan.start.patch if isinstance(plan.start, Repainting) else None,
            studio.unet if studio else None,
            studio.relighting.weights if studio and studio.relighting else None,
            tuple(it.weights for it in studio.adapters if it.face_model and it.is_on)
            if studio
            else (),
        )


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
        texts=_text_keys(loaded.unet, levers, loaded.tier),
        attention=levers.attention,
        compiled=CompiledBlocks(loaded.unet, levers.attention)
        if levers.compile and stays
        else None,
    )


class Palette:
    """What is in memory: base models, and of one of them the weights in force."""

    def __init__(
        self,
        catalog: Catalog,
        device: torch.device,
        *,
        allow_pickle: bool,
        budget: int = 0,
        levers: Levers | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Begin with nothing.

        Args:
            catalog: Where weights are found.
            device: Where they go.
            allow_pickle: Whether weights may be read from pickled files.
            budget: Bytes that base models may take together; there is always room for one.
            levers: How UNets are run; None is as `Levers.usual` says.
            memory: Says what of a model stays on the device; None chooses.
        """
        self.catalog = catalog
        """Where weights are found; may be replaced when files came or went."""
        self.changed_at = -float("inf")
        """When the weights were last changed, on the monotonic clock."""
        self._device = device
        self._allow_pickle = allow_pickle
        self._levers = levers or Levers.usual(device)
        self.memory = memory or Memory(device)
        """What of models stays on the device."""
        self._models: WarmModels[WarmModel] = WarmModels(budget)
        self._model: WarmModel | None = None
        self._tried: Tier | None = None
        """The tier of a model that is being loaded, or could not be."""
        self._needs: Needs | None = None

    @property
    def model(self) -> WarmModel:
        """The model whose weights are in force; there is one whenever an image runs."""
        assert self._model is not None
        return self._model

    @property
    def tier(self) -> Tier:
        """At which tier the model in force is, one was that could not be loaded, or an SDXL model would be."""
        if self._model is not None:
            return self._model.loaded.tier
        return self._tried or self.memory.tier_for()

    def forget_texts(self) -> None:
        """Have the model in force, if there is one, work out anew what its UNets know of texts."""
        if self._model is not None:
            self._model.forget_texts()

    def let_others_go(self) -> bool:
        """Give up the models that are not in force; False where there are none."""
        return self._models.keep_only(self._model)

    def let_go(self) -> None:
        """Give up all models; no image may be running. The next plan brings its own anew."""
        self._model = self._needs = self._tried = None
        self._models.keep_only(None)
        free_unused()

    def serves(self, plan: Plan) -> bool:
        """Whether the weights are the ones that `plan` needs, or it needs none."""
        return not plan.needs_base_model or self._needs == Needs.of(plan)

    def has_base(self, plan: Plan) -> bool:
        """Whether the base model of a plan is in memory."""
        return _key(plan.base_model, Needs.of(plan).unet) in self._models

    def bring(self, plan: Plan) -> WarmModel:
        """Change what differs from what `plan` needs; no image may be running.

        Raises:
            EngineError: some weights are not there, broken, or not for this model; the base model stays in memory.
        """
        needs = Needs.of(plan)
        if self._needs == needs:
            return self.model
        self._needs = None
        unet = None if needs.unet is None else add_on(self.catalog, "unet", needs.unet).path
        model = self._load(base_checkpoint(self.catalog, plan), needs.unet, unet)
        self._put_patches(model, needs)
        self._put_vae(model, needs.vae)
        self._put_refiner(model, needs)
        self._needs, self.changed_at = needs, time.monotonic()
        return model

    def load(self, base_model: str) -> WarmModel:
        """Give the base model of that name, loading it where it is not in memory.

        Raises:
            EngineError: it is not there, or no base model of SDXL or SD 1.5.
        """
        return self._load(self.catalog.checkpoint(base_model), None, None)

    def _load(self, base: Checkpoint, unet: Asset | None, path: Path | None) -> WarmModel:
        """Give a base model, with another UNet where one is asked for; others go first where they leave no room."""
        key = _key(base.name, unet)
        if self._models.get(key) is None:
            self._model = self._needs = self._tried = None
            self._models.make_room(bytes_when_loaded(base.path, self._device))
            loaded = warm_up(
                base,
                self._device,
                self._find_embedding,
                allow_pickle=self._allow_pickle,
                unet=path,
                levers=self._levers,
                tier_of=self._tier_of,
            )
            self._models.keep(key, loaded)
        self._model = self._models.get(key)
        return self.model

    def _tier_of(self, parts: Parts) -> Tier:
        """Choose the tier of a model that was read; others go first where they are in its way."""
        tier = self.memory.tier_for(parts)
        if self.memory.chooses and tier is not Tier.RESIDENT and self._models.keep_only(None):
            free_unused()
            tier = self.memory.tier_for(parts)
        self._tried = tier
        return tier

    def _put_patches(self, model: WarmModel, needs: Needs) -> None:
        """Put the LoRAs on, and the inpaint patch; the unpatched model that ends a picture is set aside between."""
        patches = [Patch(lora_file(self.catalog, item).path, item.scale) for item in needs.loras]
        is_own_refiner = needs.inpaint_patch is not None and needs.refiner == needs.base_model
        if model.unpatched is not None:
            model.unpatched = model.refiner = None  # first, so that it never lies in memory twice
        if needs.inpaint_patch is not None:
            model.patcher.trust(trusted_hashes(self.catalog))
            path = self.catalog.weights("inpaint", needs.inpaint_patch, "inpaint.engine").path
            if is_own_refiner:
                self._use(model, patches)
                changed = model.patcher.changed_by(path)
                model.unpatched = copy_apart(model.loaded.unet, changed, model.loaded.tier)
            patches.append(Patch(path, 1.0, unet_only=True))
        if needs.relighting is not None:
            file = add_on(self.catalog, "ic_light", needs.relighting).path
            patches.append(load_ic_light(file, model.loaded.unet, LIGHT).patch)
        patches += self._face_loras(needs.faces)
        self._use(model, patches)

    def _face_loras(self, adapters: Iterable[Asset]) -> Iterator[Patch]:
        """Give the LoRAs that adapters carry; they act whole, however strongly the adapter does, as in diffusers."""
        for asset in adapters:
            path = add_on(self.catalog, "ip_adapter", asset).path
            if carries_lora(path, allow_pickle=self._allow_pickle):
                yield Patch(path, 1.0, unet_only=True)

    def _use(self, model: WarmModel, patches: Sequence[Patch]) -> None:
        try:
            report = model.patcher.use(patches)
        except BaseException:  # all weights may be pristine then
            model.encoder.forget()
            model.forget_texts()
            model.guides.refresh()
            raise
        if report.changed - {"unet"}:
            model.encoder.forget()
        if "unet" in report.changed:
            model.guides.refresh()
            model.forget_texts()
        if report.changed and not patches:
            give_back_memory()
        if report.changed:
            log.info("%d patches in %.2f s", len(patches), report.seconds)

    def _put_vae(self, model: WarmModel, name: str | None) -> None:
        if model.vae_name == name:
            return
        model.vae, model.vae_name = model.loaded.vae, None
        if name is not None:
            model.vae = load_vae(self.catalog.vae(name).path, model.loaded.vae, self._device)
            model.vae_name = name

    def _put_refiner(self, model: WarmModel, needs: Needs) -> None:
        if model.refiner is not None and model.refiner.name != needs.refiner:
            model.refiner = None
        if needs.refiner is None:
            return
        if model.unpatched is not None:
            model.refiner = _own_refiner(model.loaded, model.unpatched, self._levers)
            return
        if model.refiner is None:
            model.refiner = self._load_refiner(needs.refiner)
        _require_fit(model, model.refiner)
        model.forget_texts()
        model.refiner.patcher.use(list(self._fitting(model.refiner, needs.loras)))

    def _load_refiner(self, name: str) -> WarmRefiner:
        checkpoint = self.catalog.checkpoint(name, "refiner_model")
        tier = self.model.loaded.tier
        loaded = load_refiner(checkpoint, self._device, tier=tier)
        if tier.keeps_unet:
            pull(self._levers, loaded.unet)
        refiner = WarmRefiner(
            loaded,
            WeightPatcher({"unet": loaded.unet}),
            texts=_text_keys(loaded.unet, self._levers, tier),
            attention=self._levers.attention,
        )
        if loaded.vae is None:
            return refiner
        interposer = self.catalog.weights("vae_approx", INTERPOSER.file, "refiner_model")
        return replace(
            refiner,
            preview=preview_decoder(None, loaded.vae),
            interposer=load_interposer(interposer.path),
        )

    def _fitting(self, refiner: WarmRefiner, loras: Iterable[Lora]) -> Iterator[Patch]:
        """Choose the LoRAs that fit the refiner; the others act on the base model alone, as in Fooocus."""
        for item in loras:
            path = lora_file(self.catalog, item).path
            try:
                refiner.patcher.check(path)
            except ModelIncompatible as error:
                log.info("refiner %s: without %s (%s)", refiner.name, item.name, error)
                continue
            yield Patch(path, item.scale)

    def _find_embedding(self, name: str) -> Path | None:
        """Find an embedding's file; a pickled one only where the owner allows it."""
        found = self.catalog.embedding(name)
        if found is None or (found.path.suffix in PICKLED and not self._allow_pickle):
            return None
        return found.path


def _key(base_model: str, unet: Asset | None) -> tuple[str, str | None]:
    """Say what makes models in memory differ."""
    return base_model, unet.name if unet else None


def _text_keys(unet: Any, levers: Levers, tier: Tier) -> TextKeys | None:
    return TextKeys(unet) if levers.cached_text and tier.keeps_unet else None


def _own_refiner(base: LoadedModel, unpatched: Any, levers: Levers) -> WarmRefiner:
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
        texts=_text_keys(unpatched, levers, base.tier),
        attention=levers.attention,
    )


def _require_fit(model: WarmModel, refiner: WarmRefiner) -> None:
    """Refuse a refiner that attends to text of another width than the base model's encoders give, or has none to follow."""
    if model.loaded.family != "sdxl":
        problem = f"expected an SDXL base model before it, got {model.name}"
        raise InvalidRequest("refiner_model", f"{refiner.name}: {problem}")
    first, second = model.encoder.widths
    given = {"sdxl": first + second, "sdxl-refiner": second, "sd15": first}[refiner.loaded.family]
    wanted = refiner.loaded.unet.config.cross_attention_dim
    if given != wanted:
        problem = f"expected to read text of width {given}, as {model.name} gives, got {wanted}"
        raise InvalidRequest("refiner_model", f"{refiner.name}: {problem}")
