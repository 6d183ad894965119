"""From what was asked to what will be done.

`plan` settles every decision about the picture: sizes, steps, seeds, texts. A plan holds no pixels and no tensors, equals
another plan exactly when it makes the same picture, and goes to JSON and back unchanged: it is the record that is saved.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from engine.catalog import SDXL_NATIVE, Catalog
from engine.errors import InvalidRequest
from engine.geometry import Size, nearest_bucket, parse_size
from engine.prompt.syntax import clean, parse_weights
from engine.requests import MAX_LINES, MAX_SEED, Compat, OutputFormat, TextRequest

STEPS = {"Quality": 60, "Speed": 30}
"""Model steps of each performance mode (reference: Fooocus 2.5.5)."""


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


def plan(request: TextRequest, catalog: Catalog, *, seed: int) -> Plan:
    """Settle a request.

    Args:
        request: What was asked.
        catalog: The weights that are there.
        seed: Taken when the request names none; the caller draws it, so that a plan is a function of its arguments.

    Raises:
        ModelNotFound: the base model is not in the catalog.
        InvalidRequest: a prompt has too many lines, or a weight that is not a finite number.
    """
    more = request.advanced
    base = catalog.checkpoint(more.base_model)
    size = parse_size(request.aspect_ratio)
    guidance = Guidance(
        guidance_scale=request.guidance_scale,
        adaptive_cfg=more.adaptive_cfg,
        sharpness=request.sharpness,
    )
    first_seed = seed if request.seed is None else request.seed
    return Plan(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        base_model=base.name,
        native_size=base.native_size,
        size=size,
        sample_size=size if base.native_size == SDXL_NATIVE else nearest_bucket(size, base.buckets),
        sampling=Sampling(
            sampler=more.sampler,
            scheduler=more.scheduler,
            num_inference_steps=more.num_inference_steps or STEPS[request.performance],
        ),
        guidance=guidance,
        size_conditioning=SizeConditioning(
            positive_scale=more.adm_scaler_positive,
            negative_scale=more.adm_scaler_negative,
            end=more.adm_scaler_end,
        ),
        clip_skip=more.clip_skip,
        start=FromNoise(),
        images=_images(request, first_seed),
        output_format=request.output_format,
        previews=more.previews,
        deterministic=more.deterministic,
        compat=more.compat,
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
    steps = value.sampling.num_inference_steps
    mode = next((mode for mode, n in STEPS.items() if n == steps), None)
    return {
        "prompt": value.prompt,
        "negative_prompt": value.negative_prompt,
        "performance": mode or "Speed",
        "guidance_scale": value.guidance.guidance_scale,
        "sharpness": value.guidance.sharpness,
        "aspect_ratio": str(value.size),
        "num_images": len(value.images),
        "output_format": value.output_format,
        "seed": value.images[0].seed,
        "advanced": {
            "sampler": value.sampling.sampler,
            "scheduler": value.sampling.scheduler,
            "adaptive_cfg": value.guidance.adaptive_cfg,
            "adm_scaler_positive": value.size_conditioning.positive_scale,
            "adm_scaler_negative": value.size_conditioning.negative_scale,
            "adm_scaler_end": value.size_conditioning.end,
            "clip_skip": value.clip_skip,
            "num_inference_steps": None if mode else steps,
            "base_model": value.base_model,
            "previews": value.previews,
            "deterministic": value.deterministic,
            "compat": value.compat,
        },
    }


def only_image(value: Plan, index: int) -> Plan:
    """Cut a plan down to one of its images: the record that goes into that image's file."""
    return dataclasses.replace(value, images=(value.images[index],))


def _images(request: TextRequest, first_seed: int) -> tuple[ImagePlan, ...]:
    positive = _texts("prompt", request.prompt)
    negative = _texts("negative_prompt", request.negative_prompt)
    return tuple(
        ImagePlan(
            seed=(first_seed + index) % (MAX_SEED + 1),
            positive=positive,
            negative=negative,
            pooled_positive=len(positive),
            pooled_negative=len(negative),
        )
        for index in range(request.num_images)
    )


def _texts(field: str, prompt: str) -> tuple[str, ...]:
    """Split a prompt into its lines; an empty one stays one empty text."""
    lines = tuple(line for line in map(clean, prompt.splitlines()) if line) or ("",)
    if len(lines) > MAX_LINES:
        raise InvalidRequest(field, f"expected at most {MAX_LINES} lines, got {len(lines)}")
    for part in (part for line in lines for part in parse_weights(line)):
        if not math.isfinite(part.weight):
            problem = f"expected finite weights, got {part.weight} for {part.text[:40]!r}"
            raise InvalidRequest(field, problem)
    return lines


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)
