"""From what the LoRA studio was asked to what it will do: diffusers' conventions, settled in one place.

`engine.settle.plan` hands over requests that have a `studio` part.
"""

from engine.catalog import SDXL_NATIVE, Catalog, Checkpoint
from engine.errors import InvalidRequest
from engine.geometry import LATENT_FACTOR, Size, nearest_bucket, parse_size
from engine.library import Library
from engine.partners import partner
from engine.plan import (
    FromNoise,
    Guidance,
    ImagePlan,
    Lora,
    Plan,
    Sampling,
    SizeConditioning,
)
from engine.references import AddOn, Reference, find_weights
from engine.requests import MAX_SEED, TextRequest
from engine.schedulers import check_steps
from engine.studio import (
    IcLight,
    Studio,
    StudioAdapter,
    StudioControl,
    StudioScheduler,
    Tiles,
)
from engine.studio_plan import (
    Asset,
    Relighting,
    StudioImages,
    StudioNet,
    StudioPlan,
    TileSizes,
    WordVectors,
)

SCHEDULER = "diffusers"
"""What the plan calls the spacing: the scheduler brings its own."""
USUAL_SCHEDULER: StudioScheduler = "Euler"
"""What SDXL's own configuration names."""
SDXL_CLIP_SKIP = 2
"""Which layer of the text encoders is read, from the end, where none is skipped."""
SD15_CLIP_SKIP = 1
SMALLEST_NATIVE = 512
"""Native size of SD 1.5; models below it paint their own sizes, which are enlarged to what was asked (design D12)."""


def plan_studio(request: TextRequest, library: Library, *, seed: int) -> Plan:
    """Settle a request of the LoRA studio; arguments are those of `engine.settle.plan`.

    Raises:
        ModelNotFound: weights that are asked for are not there and cannot be fetched.
        InvalidRequest: a name of weights is none, or add-ons do not fit the base model.
    """
    asked, more = request.studio, request.advanced
    assert asked is not None
    scheduler = asked.scheduler or USUAL_SCHEDULER
    check_steps(scheduler, asked.num_inference_steps, asked.timesteps, asked.sigmas)
    finder = _Finder(library)
    base, base_asset = finder.base(more.base_model, asked.variant)
    size = parse_size(request.aspect_ratio)
    tiles = _tiles(asked.tiles, size, base)
    is_old = base.paints_as == "sd15"
    first_seed = seed if request.seed is None else request.seed
    guidance_scale = max(1.0, asked.guidance_scale)
    return Plan(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        base_model=base.name,
        native_size=base.native_size,
        size=size,
        sample_size=_sample_size(size, base, is_tiled=tiles is not None),
        sampling=Sampling(
            sampler=scheduler,
            scheduler=SCHEDULER,
            num_inference_steps=_steps(asked),
        ),
        guidance=Guidance(
            guidance_scale=guidance_scale, adaptive_cfg=guidance_scale, sharpness=0.0
        ),
        size_conditioning=SizeConditioning(positive_scale=1.0, negative_scale=1.0, end=0.0, grid=1),
        clip_skip=asked.clip_skip + (SD15_CLIP_SKIP if is_old else SDXL_CLIP_SKIP),
        start=FromNoise(),
        images=_images(request, first_seed),
        output_format=request.output_format,
        previews=more.previews and not (request.enable_safety_checker and not base.is_pocket),
        deterministic=more.deterministic,
        compat=more.compat,
        request=_settled(request, first_seed, more.base_model or base.name),
        vae=None if more.vae is None else library.catalog.vae(more.vae).name,
        loras=finder.loras(asked),
        studio=StudioPlan(
            scheduler=scheduler,
            timesteps=asked.timesteps,
            sigmas=asked.sigmas,
            eta=asked.eta,
            prediction_type=asked.prediction_type,
            is_zero_snr=asked.rescale_betas_snr_zero,
            is_weighted=asked.prompt_weighting,
            base_model=base_asset,
            unet=finder.unet(asked.unet_name),
            embeddings=finder.embeddings(asked),
            nets=finder.nets(asked),
            is_guessing=asked.controlnet_guess_mode,
            adapters=finder.adapters(asked),
            encoder=finder.encoder(asked, base),
            relighting=finder.relighting(asked.ic_light, base),
            tiles=tiles,
            keeps_latents=asked.debug_latents,
            keeps_passes=asked.debug_per_pass_latents,
        ),
        safety=request.enable_safety_checker,
        save_metadata=more.save_metadata,
        metadata_scheme=more.metadata_scheme,
    )


class _Finder:
    """Finds the weights that a request names."""

    def __init__(self, library: Library) -> None:
        self._library = library

    @property
    def _catalog(self) -> Catalog:
        return self._library.catalog

    def base(self, name: str | None, variant: str | None) -> tuple[Checkpoint, Asset]:
        """Find the base model; without a name it is the studio's own."""
        field = "base_model"
        if name is None:
            base = self._catalog.default()
            return base, Asset(name=base.name, reference=Reference(path=base.name))
        reference = Reference(path=name, variant=variant)
        may_fetch = self._library.may_fetch
        found = find_weights(self._catalog, "checkpoint", reference, field, may_fetch)
        return found, Asset(name=found.name, reference=reference)

    def find(self, use: AddOn, reference: Reference, field: str) -> Asset:
        """Find weights for any other use."""
        found = find_weights(self._catalog, use, reference, field, self._library.may_fetch)
        return Asset(name=found.name, reference=reference)

    def unet(self, path: str | None) -> Asset | None:
        """Find another UNet, where one is named."""
        return self.find("unet", Reference(path=path), "studio.unet_name") if path else None

    def loras(self, asked: Studio) -> tuple[Lora, ...]:
        """List the LoRAs; one of weight 0 is left out."""
        found = []
        for place, item in enumerate(asked.loras):
            reference = Reference(path=item.path, weight_name=item.weight_name)
            asset = self.find("lora", reference, f"studio.loras.{place}.path")
            found.append(Lora(name=asset.name, scale=item.scale, reference=asset.reference))
        return tuple(item for item in found if item.scale)

    def embeddings(self, asked: Studio) -> tuple[WordVectors, ...]:
        """List the embeddings."""
        return tuple(
            WordVectors(
                weights=self.find(
                    "embedding", Reference(path=item.path), f"studio.embeddings.{place}.path"
                ),
                tokens=item.tokens,
            )
            for place, item in enumerate(asked.embeddings)
        )

    def nets(self, asked: Studio) -> tuple[StudioNet, ...]:
        """List the ControlNets; one of weight 0 is left out."""
        return tuple(
            self._net(item, f"studio.controlnets.{place}")
            for place, item in enumerate(asked.controlnets)
            if item.conditioning_scale
        )

    def _net(self, item: StudioControl, field: str) -> StudioNet:
        reference = Reference(path=item.path, variant=item.variant, config_url=item.config_url)
        return StudioNet(
            weights=self.find("controlnet", reference, f"{field}.path"),
            image=item.image,
            mask=item.mask,
            mode=item.mode,
            weight=item.conditioning_scale,
            start=item.start_percentage,
            stop=item.end_percentage,
            adapter=item.ip_adapter_index,
        )

    def adapters(self, asked: Studio) -> tuple[StudioImages, ...]:
        """List the IP-Adapters, also those of weight 0: a ControlNet may read one."""
        return tuple(
            self._adapter(item, f"studio.ip_adapters.{place}")
            for place, item in enumerate(asked.ip_adapters)
        )

    def _adapter(self, item: StudioAdapter, field: str) -> StudioImages:
        reference = Reference(
            path=item.path, subfolder=item.model_subfolder, weight_name=item.weight_name
        )
        face = item.insight_face_model_path
        return StudioImages(
            weights=self.find("ip_adapter", reference, f"{field}.path"),
            images=item.images,
            mask=item.mask,
            face_model=None
            if face is None
            else self._catalog.weights(
                "insightface", face, f"{field}.insight_face_model_path"
            ).name,
            scale=item.scale,
            layer_scales=item.layer_scales,
            noising=item.unconditional_noising_factor,
            has_shortcut=item.image_projection_shortcut,
        )

    def encoder(self, asked: Studio, base: Checkpoint) -> Asset | None:
        """Find what reads pictures; the base model's usual one where none is named."""
        if not asked.ip_adapters:
            return None
        field = "studio.image_encoder_path"
        if asked.image_encoder_path is None:
            usual = partner("image encoder", base, self._catalog, field).name
            return Asset(name=usual, reference=Reference(path=usual))
        reference = Reference(
            path=asked.image_encoder_path,
            subfolder=asked.image_encoder_subfolder,
            weight_name=asked.image_encoder_weight_name,
        )
        return self.find("clip_vision", reference, field)

    def relighting(self, asked: IcLight | None, base: Checkpoint) -> Relighting | None:
        """Find IC-Light, which only SD 1.5 has."""
        if asked is None:
            return None
        field = "studio.ic_light.path"
        is_there = base.source is None and base.hub_id is None  # else it is seen once it is
        if is_there and base.paints_as != "sd15":
            problem = (
                f"expected a base model of SD 1.5, which IC-Light is made for, got {base.name}"
            )
            raise InvalidRequest(field, problem)
        return Relighting(
            weights=self.find("ic_light", Reference(path=asked.path), field),
            image=asked.image,
            background=asked.background,
        )


def _steps(asked: Studio) -> int:
    """Count the steps; a list of levels counts without the final 0."""
    listed = len(asked.timesteps) or sum(sigma > 0 for sigma in asked.sigmas)
    return listed or asked.num_inference_steps


def _tiles(asked: Tiles, size: Size, base: Checkpoint) -> TileSizes | None:
    """Settle the tiles, in pixels of what is sampled; None where one holds the whole picture."""
    if asked.width >= size.width and asked.height >= size.height:
        return None

    def scaled(pixels: int) -> int:
        cells = round(pixels * _share(base) / LATENT_FACTOR)
        return LATENT_FACTOR * max(1, cells)

    return TileSizes(
        width=scaled(asked.width),
        height=scaled(asked.height),
        stride_width=scaled(asked.stride_width),
        stride_height=scaled(asked.stride_height),
    )


def _share(base: Checkpoint) -> float:
    """Say what pixels of a request are multiplied by: the pocket model's are fewer (design D12)."""
    return base.native_size / SDXL_NATIVE if base.native_size < SMALLEST_NATIVE else 1.0


def _sample_size(size: Size, base: Checkpoint, *, is_tiled: bool) -> Size:
    """Settle the size that is painted at."""
    share = _share(base)
    if share == 1:
        return size
    if not is_tiled:
        return nearest_bucket(size, base.buckets)
    width, height = (LATENT_FACTOR * round(side * share / LATENT_FACTOR) for side in size)
    return Size(width, height)


def _images(request: TextRequest, first_seed: int) -> tuple[ImagePlan, ...]:
    """Count the seeds up; the words are taken as they are."""
    return tuple(
        ImagePlan(
            seed=(first_seed + place) % (MAX_SEED + 1),
            positive=(request.prompt,),
            negative=(request.negative_prompt,),
            pooled_positive=1,
            pooled_negative=1,
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
        )
        for place in range(request.num_images)
    )


def _settled(request: TextRequest, seed: int, base_model: str) -> TextRequest:
    more = request.advanced.model_copy(update={"base_model": base_model})
    return request.model_copy(update={"seed": seed, "advanced": more, "styles": ()})
