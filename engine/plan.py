"""From what was asked to what will be done.

`plan` settles every decision about the picture: sizes, steps, seeds, texts, weights. A plan holds no pixels and no tensors,
equals another plan exactly when it makes the same picture, and goes to JSON and back unchanged: it is the record that is saved.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from engine.catalog import SDXL_NATIVE, Catalog, Checkpoint, read_header
from engine.errors import InvalidRequest
from engine.families import Family, require_refiner
from engine.geometry import Size, nearest_bucket, parse_size
from engine.image_inputs import ImagePromptType
from engine.library import Library
from engine.partners import Role, partner
from engine.performance import MODES, Mode
from engine.prompt.assemble import Lines, Wording, assemble, read_lines
from engine.prompt.lora_tags import take_lora_tags
from engine.prompt.styles import EXPANSION_STYLE, find_styles
from engine.requests import (
    MAX_LORAS,
    MAX_SEED,
    Advanced,
    Compat,
    ImageAttention,
    LoraWeight,
    MetadataScheme,
    OutputFormat,
    Performance,
    SwapMethod,
    TextRequest,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How noise becomes a picture."""

    sampler: str
    scheduler: str
    num_inference_steps: int
    strength: float = 1.0
    """Share of the noise that is taken off, 0 to 1; below 1 a picture is the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """How the two predictions of a step become one."""

    guidance_scale: float
    adaptive_cfg: float
    sharpness: float

    @property
    def needs_negative(self) -> bool:
        """Whether the negative branch is run at all."""
        return abs(self.guidance_scale - 1.0) >= 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeConditioning:
    """What size the model is told the picture has."""

    positive_scale: float
    negative_scale: float
    end: float
    """Share of the noise after which both branches are told the true size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """One LoRA of the set that is put on all networks."""

    name: str
    """Of the catalog."""
    scale: float
    url: str | None = None
    """Where it was asked for by its address; it is fetched from there first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refiner:
    """A second model that takes over."""

    model: str
    family: Family
    method: SwapMethod
    switch: int
    """Steps of the base model; with ``joint`` it also makes the first model call of the next step, as in Fooocus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeU:
    """Factors of FreeU, version 2; 1 leaves a stage as it is."""

    b1: float
    b2: float
    s1: float
    s2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One image that the picture follows."""

    type: ImagePromptType
    image: str
    """Name of the file among the job's inputs."""
    model: str
    """The ControlNet or the adapter, by its name in the catalog."""
    weight: float
    stop_at: float
    """Share of the noise after which it is let go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePrompts:
    """All images that the picture follows; those of weight 0 are not among them."""

    slots: tuple[Slot, ...]
    attention: ImageAttention
    softness: float
    """Of the controls, 0 to 1."""
    skip_preprocessors: bool
    canny: tuple[int, int]
    """Lower and upper threshold of the edge detector."""
    encoder: str | None = None
    """What reads images for adapters; None where no slot needs it."""
    negative: str | None = None
    """What the negative side of guidance is told instead of an image."""
    face_detector: str | None = None
    """What finds the face of a *FaceSwap*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FromNoise:
    """The picture starts from noise alone."""

    kind: Literal["noise"] = "noise"


Start = FromNoise


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """What sets one image of a job apart from the others."""

    seed: int
    positive: tuple[str, ...]
    """Texts that are encoded one by one and joined along the tokens."""
    negative: tuple[str, ...]
    pooled_positive: int
    """How many texts, from the first, add to the pooled vector."""
    pooled_negative: int
    prompt: str = ""
    """The words of this image: wildcards and arrays filled in, LoRA tags taken out."""
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()
    """The styles of this image, random ones drawn."""
    expansion: str = ""
    """The text that *Fooocus V2* added, the last of `positive`."""
    is_to_expand: bool = False
    """Whether the worker's expansion model adds its text first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides the pictures of one job."""

    prompt: str
    """As it was asked; the engine reads `images`."""
    negative_prompt: str
    base_model: str
    native_size: int
    size: Size
    """The size that was asked for, and that the files have."""
    sample_size: Size
    """The size the model paints at."""
    sampling: Sampling
    guidance: Guidance
    size_conditioning: SizeConditioning
    clip_skip: int
    start: Start
    images: tuple[ImagePlan, ...]
    output_format: OutputFormat
    previews: bool
    deterministic: bool
    compat: Compat
    request: TextRequest = field(default_factory=TextRequest)
    """What was asked, with the seed and the base model settled: what *reuse* puts into the form."""
    vae: str | None = None
    loras: tuple[Lora, ...] = ()
    """The LoRAs of the request, of its prompt and of the performance mode, in this order."""
    refiner: Refiner | None = None
    refiner_switch: float = 1.0
    """Share of the steps that was asked for; 1 with a performance mode that has no refiner."""
    freeu: FreeU | None = None
    image_prompts: ImagePrompts | None = None
    safety: bool = False
    """Whether finished pictures are looked over, and become black where the safety checker takes them for unsafe."""
    save_metadata: bool = True
    metadata_scheme: MetadataScheme = "pochade"
    hashes: tuple[tuple[str, str], ...] = ()
    """Names of the weights and their sha256 in hex, filled in when a picture is saved."""
    notes: tuple[str, ...] = ()
    """Sentences on what was asked and could not be done, for the person who asked."""


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
    more, catalog = request.advanced, library.catalog
    base = catalog.checkpoint(more.base_model)
    mode = MODES[request.performance]
    taken = _take_tags(request, base, library)
    first_seed = seed if request.seed is None else request.seed
    size = parse_size(request.aspect_ratio)
    steps = more.num_inference_steps or mode.steps
    images, notes = _images(request, library, taken.prompt, first_seed)
    return Plan(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        base_model=base.name,
        native_size=base.native_size,
        size=size,
        sample_size=size if base.native_size == SDXL_NATIVE else nearest_bucket(size, base.buckets),
        sampling=Sampling(
            sampler=mode.distilled.sampler if mode.distilled else more.sampler,
            scheduler=mode.distilled.scheduler if mode.distilled else more.scheduler,
            num_inference_steps=steps,
        ),
        guidance=_guidance(request, mode),
        size_conditioning=_size_conditioning(more, mode),
        clip_skip=more.clip_skip,
        start=FromNoise(),
        images=images,
        output_format=request.output_format,
        previews=more.previews and not (request.enable_safety_checker and not base.is_pocket),
        deterministic=more.deterministic,
        compat=more.compat,
        request=_settled(request, first_seed, base.name),
        vae=None if more.vae is None else catalog.vae(more.vae).name,
        loras=(*taken.loras, *_distilled_lora(request.performance, base, catalog)),
        refiner=None if mode.distilled else _refiner(request, base, catalog, steps),
        refiner_switch=1.0 if mode.distilled else request.refiner_switch,
        freeu=None if more.freeu is None else FreeU(**more.freeu.model_dump()),
        image_prompts=_image_prompts(request, base, catalog),
        safety=request.enable_safety_checker,
        save_metadata=more.save_metadata,
        metadata_scheme=more.metadata_scheme,
        notes=(*taken.notes, *notes),
    )


def plan_to_json(value: Plan) -> str:
    """Write a plan as JSON text."""
    return _adapter().dump_json(value).decode()


def plan_from_json(text: str) -> Plan:
    """Read a plan back; the result equals the one that was written.

    Raises:
        ValueError: the text is not a plan.
    """
    return _adapter().validate_json(text)


def request_of(value: Plan) -> dict[str, Any]:
    """Write the request whose plan this is, as fields of `TextRequest`: what *reuse* puts into the form."""
    return value.request.model_dump(mode="json")


def only_image(value: Plan, index: int) -> Plan:
    """Cut a plan down to one of its images: the record that goes into that image's file.

    Its request asks for this one picture: words without wildcards and arrays, random styles drawn, its own seed.
    """
    image = value.images[index]
    request = value.request.model_copy(
        update={
            "prompt": image.prompt,
            "negative_prompt": image.negative_prompt,
            "styles": image.styles,
            "loras": _asked_loras(value),
            "num_images": 1,
            "seed": image.seed,
        }
    )
    return dataclasses.replace(value, images=(image,), request=request)


def with_expansion(value: Plan, index: int, text: str) -> Plan:
    """Add the text of an expansion model to one image; an empty one adds nothing."""
    image = value.images[index]
    grown = dataclasses.replace(
        image,
        positive=(*image.positive, text) if text else image.positive,
        expansion=text,
        is_to_expand=False,
    )
    images = (*value.images[:index], grown, *value.images[index + 1 :])
    return dataclasses.replace(value, images=images)


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
    lines = read_lines(request.prompt)
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


def _lora(asked: LoraWeight, field: str, library: Library) -> Lora:
    """Find a LoRA by name, or by an address that may be fetched from."""
    if "://" not in asked.path:
        return Lora(name=library.catalog.lora(asked.path, field).name, scale=asked.scale)
    if not library.may_fetch(asked.path):
        problem = (
            "expected a file of the loras folder, or an address on a host of --allow-downloads"
        )
        raise InvalidRequest(field, f"{problem}, got {asked.path[:200]!r}")
    try:
        name = library.catalog.lora_at(asked.path).name
    except ValueError as error:
        raise InvalidRequest(field, str(error)) from error
    return Lora(name=name, scale=asked.scale, url=asked.path)


def _asked_loras(value: Plan) -> tuple[LoraWeight, ...]:
    """List the LoRAs of a plan as a request names them; the performance mode brings its own."""
    has_own = MODES[value.request.performance].distilled is not None
    asked = value.loras[:-1] if has_own else value.loras
    return tuple(
        LoraWeight.model_construct(path=item.url or item.name, scale=item.scale) for item in asked
    )


def _distilled_file(performance: Performance, base: Checkpoint) -> str | None:
    """Name the LoRA of a mode: the base model's own, else the one for all SDXL models."""
    distilled = MODES[performance].distilled
    if distilled is None:
        return None
    return dict(base.performance_loras).get(performance, distilled.lora)


def _distilled_lora(
    performance: Performance, base: Checkpoint, catalog: Catalog
) -> tuple[Lora, ...]:
    file, distilled = _distilled_file(performance, base), MODES[performance].distilled
    if file is None or distilled is None:
        return ()
    return (Lora(name=catalog.lora(file, "performance").name, scale=distilled.scale),)


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
    request: TextRequest, base: Checkpoint, catalog: Catalog, steps: int
) -> Refiner | None:
    """Settle the refiner; the base model itself is none.

    Fooocus counts the share of steps by the mode's own number of them, also where the request names another.
    """
    more = request.advanced
    if request.refiner_model is None:
        return None
    model = catalog.checkpoint(request.refiner_model, "refiner_model")
    if model.name == base.name:
        return None
    family = model.family
    if family is None:
        family = require_refiner(
            model.name, read_header(model.path)
        )  # whose sentence says what it is
    counted = MODES[request.performance].steps if more.compat == "fooocus" else steps
    return Refiner(
        model=model.name,
        family=family,
        method="vae" if family == "sd15" else more.refiner_swap_method,
        switch=more.refiner_switch_step or round(counted * request.refiner_switch),
    )


def _image_prompts(request: TextRequest, base: Checkpoint, catalog: Catalog) -> ImagePrompts | None:
    """Settle the images to follow, and what that takes."""
    more, slots = request.advanced, []
    for index, asked in enumerate(request.image_prompts):
        stop_at, weight = asked.settled
        if weight and stop_at:
            model = partner(asked.type, base, catalog, f"image_prompts.{index}.type")
            slots.append(
                Slot(
                    type=asked.type,
                    image=asked.image,
                    model=model.name,
                    weight=weight,
                    stop_at=stop_at,
                )
            )
    if not slots:
        return None
    types = {slot.type for slot in slots}
    has_adapters = bool(types & {"ImagePrompt", "FaceSwap"})
    has_faces = "FaceSwap" in types and not more.skip_preprocessors

    def helper(role: Role) -> str:
        return partner(role, base, catalog, "image_prompts").name

    return ImagePrompts(
        slots=tuple(slots),
        attention=more.image_attention,
        softness=more.controlnet_softness,
        skip_preprocessors=more.skip_preprocessors,
        canny=(more.canny_low_threshold, more.canny_high_threshold),
        encoder=helper("image encoder") if has_adapters else None,
        negative=helper("image negative") if has_adapters else None,
        face_detector=helper("face detector") if has_faces else None,
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
    for index in range(request.num_images):
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


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)
