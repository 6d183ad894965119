"""A picture as a file, with the record of how it was made inside.

The record is the plan's own JSON, or Fooocus' or A1111's text where the plan says so. Nothing in it is ever evaluated.
"""

import io
from typing import Any

from PIL import Image

from engine.errors import InvalidRequest
from engine.plan import ImagePlan, Plan, only_image, plan_from_json, plan_to_json
from engine.records import a1111, fooocus
from engine.records.read_image import embed, read_text
from engine.records.record import ADAPTIVE_CFG, Record
from engine.requests import OutputFormat

SOFTWARE = "Pochade"
"""Name of the program in files."""
HASH_DIGITS = 10
"""Digits of a sha256 that the foreign forms show of a file."""
_QUALITY: dict[OutputFormat, dict[str, Any]] = {
    "png": {"compress_level": 1},
    "jpeg": {"quality": 95, "optimize": True, "progressive": True},
    "webp": {"quality": 95},
}


def content_type(output_format: OutputFormat) -> str:
    """Name the media type of a format."""
    return f"image/{output_format}"


def encode_image(image: Image.Image, plan: Plan, index: int) -> bytes:
    """Write picture `index` of `plan` as a whole file in the plan's format."""
    options = dict(_QUALITY[plan.output_format])
    if plan.save_metadata:
        options |= embed(
            record_text(plan, index), plan.metadata_scheme, plan.output_format, SOFTWARE
        )
    buffer = io.BytesIO()
    image.save(buffer, plan.output_format.upper(), **options)
    return buffer.getvalue()


def record_text(plan: Plan, index: int) -> str:
    """Write how picture `index` was made, in the form that the plan asks for."""
    match plan.metadata_scheme:
        case "pochade":
            return plan_to_json(only_image(plan, index))
        case "fooocus":
            return fooocus.write(record_of(plan, plan.images[index]))
        case "a1111":
            return a1111.write(record_of(plan, plan.images[index]), compat=plan.compat)


def record_of(plan: Plan, image: ImagePlan, *, version: str = SOFTWARE) -> Record:
    """Gather what the foreign forms say of one picture."""
    asked, sizes = plan.request, plan.size_conditioning
    freeu = plan.freeu
    return Record(
        prompt=image.prompt,
        negative_prompt=image.negative_prompt,
        expansion=image.expansion,
        styles=image.styles,
        performance=asked.performance,
        steps=plan.sampling.num_inference_steps,
        size=plan.size,
        guidance_scale=plan.guidance.guidance_scale,
        sharpness=plan.guidance.sharpness,
        adm=(sizes.positive_scale, sizes.negative_scale, sizes.end),
        base_model=plan.base_model,
        refiner_model=_refiner(plan),
        refiner_switch=plan.refiner_switch,
        overwrite_switch=asked.advanced.refiner_switch_step,
        refiner_swap_method=asked.advanced.refiner_swap_method,
        adaptive_cfg=plan.guidance.adaptive_cfg,
        usual_adaptive_cfg=ADAPTIVE_CFG,
        clip_skip=plan.clip_skip,
        sampler=plan.sampling.sampler,
        scheduler=plan.sampling.scheduler,
        vae=plan.vae,
        seed=image.seed,
        freeu=(freeu.b1, freeu.b2, freeu.s1, freeu.s2) if freeu else None,
        loras=tuple((item.name, item.scale) for item in plan.loras),
        full_prompt=image.positive,
        full_negative_prompt=image.negative,
        hashes={name: digest[:HASH_DIGITS] for name, digest in plan.hashes},
        metadata_scheme=plan.metadata_scheme if plan.save_metadata else None,
        version=version,
    )


def read_plan(image: Image.Image) -> Plan | None:
    """Find the plan in a picture that this studio made; None when there is none or it cannot be read."""
    try:
        found = read_text(image)
        return plan_from_json(found.text) if found and found.kind == "pochade" else None
    except (InvalidRequest, OSError, ValueError):
        return None


def _refiner(plan: Plan) -> str | None:
    """Name the refiner; the base model without its inpaint patch is none that anybody chose."""
    if plan.refiner is None or plan.refiner.model == plan.base_model:
        return None
    return plan.refiner.model
