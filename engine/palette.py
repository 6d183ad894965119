"""The weights in force: a base model that is ready to paint, with its LoRAs, its VAE and its refiner.

A plan is painted only while the weights are the ones it needs; `Palette.bring` changes what differs and nothing else.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.catalog import Catalog, Checkpoint
from engine.errors import InvalidRequest, ModelIncompatible
from engine.library import INTERPOSER
from engine.models.apart import copy_apart
from engine.models.devices import give_back_memory
from engine.models.ic_light import load_ic_light
from engine.models.interposer import load_interposer
from engine.models.ip_adapters import carries_lora
from engine.models.levers import Levers, pull
from engine.models.memory import Memory, Parts, Tier, free_unused
from engine.models.patches import Patch, WeightPatcher
from engine.models.refiners import load_refiner
from engine.models.trust import trusted_hashes
from engine.models.vaes import load_vae
from engine.needed import FIELDS, add_on, base_checkpoint, lora_file
from engine.plan import Lora, Plan, Repainting
from engine.stages.preview import preview_decoder
from engine.studio_plan import Asset
from engine.warm import WarmModel, WarmRefiner, own_refiner, text_keys, warm_up
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
            model.refiner = own_refiner(model.loaded, model.unpatched, self._levers)
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
            texts=text_keys(loaded.unet, self._levers, tier),
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
