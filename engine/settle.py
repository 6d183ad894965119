"""From what was asked to what will be done: every decision about a picture is settled here, and nowhere else."""

from dataclasses import dataclass

from engine.catalog import SDXL_NATIVE, Catalog, Checkpoint, read_header
from engine.errors import InvalidRequest
from engine.families import NAMES, require_refiner
from engine.geometry import Size, nearest_bucket, parse_size
from engine.image_inputs import FACTORS, STRENGTHS
from engine.library import Library
from engine.partners import UPSCALE_LORA
from engine.performance import MODES, Mode
from engine.plan import (
    FreeU,
    Guidance,
    ImagePlan,
    Lora,
    Plan,
    Refiner,
    Repainting,
    Sampling,
    SizeConditioning,
)
from engine.prompt.assemble import Lines, Wording, assemble, read_lines
from engine.prompt.lora_tags import take_lora_tags
from engine.prompt.styles import EXPANSION_STYLE, find_styles
from engine.references import Reference, find_weights
from engine.requests import (
    MAX_LORAS,
    MAX_SEED,
    Advanced,
    LoraWeight,
    Performance,
    TextRequest,
)
from engine.settle_enhance import plan_enhanced
from engine.settle_pictures import settle_image_prompts, settle_start
from engine.settle_studio import plan_studio

UNPATCHED_FROM = 0.8
"""Share of the steps from which a repainted picture is painted without the patch, as in Fooocus."""


def plan(request: TextRequest, library: Library, *, seed: int) -> Plan:
    """Settle a request.

    Args:
        request: What was asked.
        library: The weights, styles and wildcards that are there.
        seed: Taken when the request names none; the caller draws it, so that a plan is a function of its arguments.

    Raises:
        ModelNotFound: weights that are asked for are not in the catalog.
        ModelIncompatible: the refiner is of no family that can refine.
        InvalidRequest: a prompt has too many lines or a weight that is not a finite number, or there is no such style.
    """
    if request.studio is not None:
        return plan_studio(request, library, seed=seed)
    if request.enhance is not None:
        return plan_enhanced(request, library, seed=seed, settle=plan)
    if request.mask_from is not None or request.describe is not None:
        request = _without_painting(request)
    more, catalog = request.advanced, library.catalog
    base = catalog.checkpoint(more.base_model)
    mode = MODES[request.performance]
    taken = _take_tags(request, base, library)
    first_seed = seed if request.seed is None else request.seed
    size = parse_size(request.aspect_ratio)
    steps = more.num_inference_steps or _usual_steps(request, mode)
    start, strength = settle_start(request, base, catalog)
    counted = _usual_steps(request, mode) if more.compat == "fooocus" else steps
    refiner = None if mode.distilled else _refiner(request, base, catalog, counted)
    refiner_switch = 1.0 if mode.distilled else request.refiner_switch
    if refiner is None and isinstance(start, Repainting) and start.patch:
        refiner, refiner_switch = _without_patch(more, base, counted), UNPATCHED_FROM
    images, notes = _images(request, library, taken.prompt, first_seed)
    return Plan(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        base_model=base.name,
        native_size=base.native_size,
        size=size,
        sample_size=_sample_size(size, base),
        sampling=Sampling(
            sampler=mode.distilled.sampler if mode.distilled else more.sampler,
            scheduler=mode.distilled.scheduler if mode.distilled else more.scheduler,
            num_inference_steps=steps,
            strength=strength,
        ),
        guidance=_guidance(request, mode),
        size_conditioning=_size_conditioning(more, mode),
        clip_skip=more.clip_skip,
        start=start,
        images=images,
        output_format=request.output_format,
        previews=more.previews and not (request.enable_safety_checker and not base.is_pocket),
        deterministic=more.deterministic,
        compat=more.compat,
        request=_settled(request, first_seed, base.name),
        vae=None if more.vae is None else catalog.vae(more.vae).name,
        loras=(
            *taken.loras,
            *_distilled_lora(request.performance, base, catalog),
            *_upscale_lora(request, base, catalog),
        ),
        refiner=refiner,
        refiner_switch=refiner_switch,
        freeu=None if more.freeu is None else FreeU(**more.freeu.model_dump()),
        image_prompts=settle_image_prompts(request, base, catalog),
        safety=request.enable_safety_checker,
        save_metadata=more.save_metadata,
        metadata_scheme=more.metadata_scheme,
        notes=(*taken.notes, *notes),
    )


@dataclass(frozen=True, slots=True)
class _Taken:
    """A prompt without its LoRA tags, and the LoRAs of the request with those of its tags."""

    prompt: Lines
    loras: tuple[Lora, ...]
    notes: tuple[str, ...]


def _take_tags(request: TextRequest, base: Checkpoint, library: Library) -> _Taken:
    """Take the tags out of the first line; the others have none."""
    asked = [
        _lora(item, f"loras.{index}.path", library) for index, item in enumerate(request.loras)
    ]
    lines = read_lines(_words(request))
    tags = take_lora_tags(
        lines.main,
        [item.name for item in library.catalog.loras],
        given=[(item.name, item.scale) for item in asked],
        limit=MAX_LORAS,
        hidden=_distilled_file(request.performance, base),
    )
    notes = [f"There is no LoRA named {name!r}; its tag has no effect." for name in tags.unknown]
    notes += [f"{name} is more than {MAX_LORAS} LoRAs and left out." for name in tags.beyond_limit]
    prompt = Lines(tags.text, lines.extras)
    if not tags.text:
        prompt = read_lines(str(prompt))
    tagged = [Lora(name=name, scale=scale) for name, scale in tags.loras[len(asked) :]]
    return _Taken(prompt, (*asked, *tagged), tuple(notes))


def _words(request: TextRequest) -> str:
    """Put what is to be painted in the hole before the prompt, as the main line."""
    more = request.inpaint.additional_prompt if request.inpaint is not None else ""
    return "\n".join(text for text in (more, request.prompt) if text)


def _lora(asked: LoraWeight, field: str, library: Library) -> Lora:
    """Find a LoRA by name, or by an address that may be fetched from."""
    if "://" not in asked.path:
        return Lora(name=library.catalog.lora(asked.path, field).name, scale=asked.scale)
    reference = Reference(path=asked.path)
    found = find_weights(library.catalog, "lora", reference, field, library.may_fetch)
    return Lora(name=found.name, scale=asked.scale, reference=reference)


def _sample_size(size: Size, base: Checkpoint) -> Size:
    """Settle the size that the model paints at; SDXL's are not held to the list (design D12)."""
    if base.native_size == SDXL_NATIVE or size in base.buckets:
        return size
    return nearest_bucket(size, base.buckets)


def _distilled_file(performance: Performance, base: Checkpoint) -> str | None:
    """Name the LoRA of a mode: the base model's own, else the one for all SDXL models.

    Raises:
        InvalidRequest: the base model is of another family, and has none.
    """
    distilled, own = MODES[performance].distilled, dict(base.performance_loras)
    if distilled is None:
        return None
    if base.paints_as != "sdxl" and performance not in own:
        usual = " or ".join(name for name, mode in MODES.items() if mode.distilled is None)
        wanted = f"expected {usual} with {base.name}, a {NAMES[base.paints_as]} model"
        raise InvalidRequest("performance", f"{wanted}, got {performance}")
    return own.get(performance, distilled.lora)


def _distilled_lora(
    performance: Performance, base: Checkpoint, catalog: Catalog
) -> tuple[Lora, ...]:
    file, distilled = _distilled_file(performance, base), MODES[performance].distilled
    if file is None or distilled is None:
        return ()
    return (Lora(name=catalog.lora(file, "performance").name, scale=distilled.scale),)


def _upscale_lora(request: TextRequest, base: Checkpoint, catalog: Catalog) -> tuple[Lora, ...]:
    """Put on what the base model brings for painting pictures that were enlarged."""
    file, asked = dict(base.partners).get(UPSCALE_LORA), request.upscale_or_vary
    if file is None or asked is None or asked.method not in FACTORS.keys() & STRENGTHS.keys():
        return ()
    return (Lora(name=catalog.lora(file, "upscale_or_vary.method").name, scale=1.0),)


def _guidance(request: TextRequest, mode: Mode) -> Guidance:
    """Settle guidance; distilled models have it built in."""
    if mode.distilled:
        return Guidance(guidance_scale=1.0, adaptive_cfg=1.0, sharpness=0.0)
    return Guidance(
        guidance_scale=request.guidance_scale,
        adaptive_cfg=request.advanced.adaptive_cfg,
        sharpness=request.sharpness,
    )


def _size_conditioning(more: Advanced, mode: Mode) -> SizeConditioning:
    if mode.distilled:
        return SizeConditioning(positive_scale=1.0, negative_scale=1.0, end=0.0)
    return SizeConditioning(
        positive_scale=more.adm_scaler_positive,
        negative_scale=more.adm_scaler_negative,
        end=more.adm_scaler_end,
    )


def _refiner(
    request: TextRequest, base: Checkpoint, catalog: Catalog, counted: int
) -> Refiner | None:
    """Settle the refiner; the base model itself is none.

    The share is of `counted` steps: Fooocus takes the mode's own number of them, also where the request names another.
    """
    more = request.advanced
    if request.refiner_model is None:
        return None
    model = catalog.checkpoint(request.refiner_model, "refiner_model")
    if model.name == base.name:
        return None
    if base.paints_as != "sdxl":
        wanted = f"expected none with {base.name}, a {NAMES[base.paints_as]} model"
        raise InvalidRequest("refiner_model", f"{wanted}, got {model.name}")
    family = model.family
    if family is None:
        family = require_refiner(
            model.name, read_header(model.path)
        )  # whose sentence says what it is
    return Refiner(
        model=model.name,
        family=family,
        method="vae" if family == "sd15" else more.refiner_swap_method,
        switch=more.refiner_switch_step or round(counted * request.refiner_switch),
    )


def _count(request: TextRequest) -> int:
    """Say how many pictures there will be: what is not painted is the same each time, and made once."""
    asked = request.upscale_or_vary
    return 1 if asked is not None and asked.method not in STRENGTHS else request.num_images


def _usual_steps(request: TextRequest, mode: Mode) -> int:
    asked = request.upscale_or_vary
    is_larger = asked is not None and asked.method.startswith("Upscale")
    return mode.upscale_steps if is_larger else mode.steps


def _without_painting(request: TextRequest) -> TextRequest:
    """Leave out what only matters to pictures that are painted."""
    more = request.advanced
    return TextRequest(
        mask_from=request.mask_from,
        describe=request.describe,
        styles=(),
        num_images=1,
        guidance_scale=1.0,
        seed=request.seed,
        advanced=Advanced(
            base_model=more.base_model,
            previews=False,
            save_metadata=more.save_metadata,
            metadata_scheme=more.metadata_scheme,
            compat=more.compat,
        ),
    )


def _without_patch(more: Advanced, base: Checkpoint, counted: int) -> Refiner:
    """Let the base model end the picture without the inpaint patch."""
    return Refiner(
        model=base.name,
        family="sdxl",
        method=more.refiner_swap_method,
        switch=more.refiner_switch_step or round(counted * UNPATCHED_FROM),
    )


def _settled(request: TextRequest, seed: int, base_model: str) -> TextRequest:
    more = request.advanced.model_copy(update={"base_model": base_model})
    return request.model_copy(update={"seed": seed, "advanced": more})


def _images(
    request: TextRequest, library: Library, prompt: Lines, first_seed: int
) -> tuple[tuple[ImagePlan, ...], tuple[str, ...]]:
    """Settle the texts of all images; the second answer is what people should know of them."""
    more = request.advanced
    wording = Wording(
        prompt=prompt,
        negative_prompt=read_lines(request.negative_prompt),
        selection=find_styles(request.styles, library.styles),
        styles=library.styles,
        wildcards=library.wildcards,
        wildcards_in_order=more.wildcards_in_order,
        as_filled=more.compat == "fooocus",
    )
    stride = 1 if more.seed_increment else 0
    images, idle = [], dict[str, None]()
    for index in range(_count(request)):
        seed = (first_seed + stride * index) % (MAX_SEED + 1)
        texts = assemble(wording, seed=seed, index=index, expand=library.expand)
        idle |= dict.fromkeys(texts.idle_tags)
        images.append(
            ImagePlan(
                seed=seed,
                positive=texts.positive,
                negative=texts.negative,
                pooled_positive=texts.pooled_positive,
                pooled_negative=texts.pooled_negative,
                prompt=texts.prompt,
                negative_prompt=texts.negative_prompt,
                styles=texts.styles,
                expansion=texts.expansion,
                is_to_expand=library.expand is None and EXPANSION_STYLE in texts.styles,
            )
        )
    notes = tuple(
        f"<lora:{name}> has no effect there; LoRA tags belong into the first line." for name in idle
    )
    return tuple(images), notes
