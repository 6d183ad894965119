"""What will be done, with every decision about the picture settled: sizes, steps, seeds, texts, weights.

`engine.settle.plan` makes one of a request. A plan holds no pixels and no tensors,
equals another plan exactly when it makes the same picture, and goes to JSON and back unchanged: it is the record that is saved.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from engine.families import Family
from engine.geometry import Size
from engine.image_inputs import (
    ClothCategory,
    ImagePromptType,
    MaskModel,
    Side,
    UpscaleOrVaryMethod,
)
from engine.performance import MODES
from engine.references import Reference
from engine.requests import (
    Compat,
    ImageAttention,
    LoraWeight,
    MetadataScheme,
    OutputFormat,
    SwapMethod,
    TextRequest,
)
from engine.studio_plan import StudioPlan


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
    grid: int = 64
    """Pixels that the told size is rounded to, at the native size 1024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """One LoRA of the set that is put on all networks."""

    name: str
    """Of the catalog."""
    scale: float
    reference: Reference | None = None
    """How it was asked for, where that may lead to the network: it is fetched first then."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FromPicture:
    """The picture starts from another one: it is varied or enlarged."""

    kind: Literal["picture"] = "picture"
    method: UpscaleOrVaryMethod
    image: str
    """Name of the file among the job's inputs."""
    upscaler: str | None = None
    """What enlarges it; None where it is varied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repainting:
    """A part of a picture is painted anew, or what lies beyond its sides."""

    kind: Literal["inpaint"] = "inpaint"
    image: str
    """Name of the file among the job's inputs."""
    mask: str | None
    outpaint: tuple[Side, ...]
    disable_initial_latent: bool
    respective_field: float
    erode_or_dilate: int
    invert_mask: bool
    upscaler: str
    """What enlarges a small part before it is painted."""
    head: str | None = None
    """The inpaint head; None without an inpaint engine, like `patch`."""
    patch: str | None = None
    """What is put on the base model's UNet while it paints, but not on the one that ends the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindMask:
    """No picture is painted: a mask is found in one."""

    kind: Literal["mask"] = "mask"
    image: str
    """Name of the file among the job's inputs."""
    model: MaskModel
    cloth: ClothCategory = "full"
    network: str | None = None
    """What finds whatever stands out; None with ``sam``."""
    detector: str | None = None
    """What finds boxes around what the words name; ``sam`` alone has one, and what follows."""
    sam: str | None = None
    """What draws outlines in the boxes; None takes the boxes."""
    prompt: str = ""
    box_threshold: float = 0.0
    max_detections: int = 0
    """0 is all."""
    grow_boxes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Nothing is painted: the picture is there, and is enhanced."""

    kind: Literal["given"] = "given"
    image: str
    """Name of the file among the job's inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribePicture:
    """No picture is painted: one is put into words."""

    kind: Literal["describe"] = "describe"
    image: str
    """Name of the file among the job's inputs."""
    reader: str | None = None
    """A base model's own describer; None where it has none, and the others count."""
    captioner: str | None = None
    """What writes a sentence about a photograph; None where none is wanted."""
    tagger: str | None = None
    """What lists the tags of a drawing; None where none are wanted."""
    tags: str | None = None
    """The list of its tags."""


Start = FromNoise | FromPicture | Repainting | FindMask | Given | DescribePicture
FOUND_MASK = "1" * 64
"""Stands for the mask that was found, in what is planned before."""


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
class Enhancement:
    """One thing that is done to a finished picture."""

    name: str
    """What is looked for, or done; for people."""
    paint: "Plan"
    """Of one picture; `NO_PICTURE` is the one that there is by then, `FOUND_MASK` the mask that was found in it."""
    find: FindMask | None = None
    """How that mask is found; None where the whole picture is painted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides the pictures of one job."""

    prompt: str
    """As it was asked; the engine reads `images`."""
    negative_prompt: str
    base_model: str
    native_size: int
    size: Size
    """The size that was asked for, and that the files have; of pictures made of others the worker settles it."""
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
    studio: StudioPlan | None = None
    """There where the LoRA studio paints, and then nothing is done as Fooocus does it."""
    safety: bool = False
    """Whether finished pictures are looked over, and become black where the safety checker takes them for unsafe."""
    save_metadata: bool = True
    metadata_scheme: MetadataScheme = "pochade"
    hashes: tuple[tuple[str, str], ...] = ()
    """Names of the weights and their sha256 in hex, filled in when a picture is saved."""
    notes: tuple[str, ...] = ()
    """Sentences on what was asked and could not be done, for the person who asked."""

    enhancements: tuple[tuple[Enhancement, ...], ...] = ()
    """What is done to each of the images then, each to the result of the one before; the same number for all."""
    keeps_final_only: bool = False
    """Whether no picture from between is kept."""
    is_enhancement: bool = False
    """Whether this is a part of such a chain, whose `request` is that of the whole."""

    @property
    def needs_base_model(self) -> bool:
        """Whether something is painted; a mask is found without the base model."""
        if self.enhancements:
            return True
        return not isinstance(self.start, FindMask | Given | DescribePicture)

    @property
    def count(self) -> int:
        """How many pictures the job makes at most; the versions of one follow each other."""
        if not self.enhancements or self.keeps_final_only:
            return 0 if isinstance(self.start, DescribePicture) else len(self.images)
        own = 0 if isinstance(self.start, Given) else 1
        return len(self.images) * (own + len(self.enhancements[0]))


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
    if value.is_enhancement:
        return dataclasses.replace(value, images=(value.images[index],))
    image, inpaint = value.images[index], value.request.inpaint
    if inpaint is not None:  # whose words are in the image's by now
        inpaint = inpaint.model_copy(update={"additional_prompt": ""})
    request = value.request.model_copy(
        update={
            "inpaint": inpaint,
            "prompt": image.prompt,
            "negative_prompt": image.negative_prompt,
            "styles": image.styles,
            "loras": () if value.studio else _asked_loras(value),
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


def _asked_loras(value: Plan) -> tuple[LoraWeight, ...]:
    """List the LoRAs of a plan as a request names them; the performance mode brings its own."""
    has_own = MODES[value.request.performance].distilled is not None
    asked = value.loras[:-1] if has_own else value.loras
    return tuple(
        LoraWeight.model_construct(
            path=item.reference.path if item.reference else item.name, scale=item.scale
        )
        for item in asked
    )


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)
