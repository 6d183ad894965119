"""Calls of the LoRA endpoint, in the engine's words: one request with a `studio` part, and its pictures.

Fields are called almost the same in both; `studio_wire_name` knows the others, so that errors name the caller's own.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from api.answers import Refused, problem, unprocessable
from api.wire.lora import ControlNet, ImageSize, IPAdapter, LoraInput
from engine import Size
from engine.image_inputs import NO_PICTURE

Take = Callable[[str, str], str]
"""From a picture's address and its field to what the engine calls the picture."""

SIZES: Mapping[str, Size] = {
    "square_hd": Size(1024, 1024),
    "square": Size(512, 512),
    "portrait_4_3": Size(768, 1024),
    "portrait_16_9": Size(576, 1024),
    "landscape_4_3": Size(1024, 768),
    "landscape_16_9": Size(1024, 576),
}
"""fal's names of sizes."""
SAME = (
    "unet_name",
    "variant",
    "prompt_weighting",
    "controlnet_guess_mode",
    "image_encoder_path",
    "image_encoder_subfolder",
    "image_encoder_weight_name",
    "num_inference_steps",
    "guidance_scale",
    "clip_skip",
    "scheduler",
    "rescale_betas_snr_zero",
    "eta",
    "debug_latents",
    "debug_per_pass_latents",
)
"""Fields that the engine's studio takes as they are."""
_RENAMED = (
    (r"aspect_ratio", "image_size"),
    (r"output_format", "image_format"),
    (r"(advanced\.)?base_model", "model_name"),
    (r"studio\.controlnets\.(\d+)\.(image|mask)", r"controlnets.\1.\2_url"),
    (r"studio\.ip_adapters\.(\d+)\.images(.*)", r"ip_adapter.\1.ip_adapter_image_url\2"),
    (r"studio\.ip_adapters\.(\d+)\.mask", r"ip_adapter.\1.ip_adapter_mask_url"),
    (r"studio\.ip_adapters\.(\d+)\.layer_scales", r"ip_adapter.\1.scale_json"),
    (r"studio\.ip_adapters(.*)", r"ip_adapter\1"),
    (r"studio\.ic_light\.path", "ic_light_model_url"),
    (r"studio\.ic_light\.image", "ic_light_image_url"),
    (r"studio\.ic_light\.background", "ic_light_model_background_image_url"),
    (r"studio\.tiles\.(width|height|stride_width|stride_height)", r"tile_\1"),
    (r"studio\.(timesteps|sigmas)(.*)", r"\1.array\2"),
    (r"studio\.(.*)", r"\1"),
)


def studio_wire_name(named: str) -> str:
    """Turn a field of the engine's request into the caller's own."""
    for ours, theirs in _RENAMED:
        if match := re.fullmatch(ours, named):
            return match.expand(theirs)
    return named


def no_picture(url: str, field: str) -> str:
    """Stand for a picture that is not fetched yet."""
    return NO_PICTURE


def lora_request(values: LoraInput, model: str) -> dict[str, Any]:
    """Write an input as fields of the engine's request, its pictures left open.

    Args:
        values: The input.
        model: The base model, by the studio's own name for it.

    Raises:
        Refused: 422, fields that exclude or need each other.
    """
    size = values.image_size
    wanted = Size(size.width, size.height) if isinstance(size, ImageSize) else SIZES[size]
    advanced = values.advanced.model_dump() if values.advanced else {}
    return {
        "prompt": values.prompt,
        "negative_prompt": values.negative_prompt,
        "styles": (),
        "aspect_ratio": str(wanted),
        "num_images": values.num_images,
        "output_format": values.image_format,
        "enable_safety_checker": values.enable_safety_checker,
        "seed": values.seed,
        "advanced": {**advanced, "base_model": model},
        "studio": studio_part(values, no_picture),
    }


def studio_part(values: LoraInput, take: Take) -> dict[str, Any]:
    """Write the part of an input that only the LoRA studio knows.

    Args:
        values: The input.
        take: Fetches a picture.

    Raises:
        Refused: 422, fields that exclude or need each other.
    """
    asked_prediction = "prediction_type" in values.model_fields_set
    return {
        **{name: getattr(values, name) for name in SAME},
        "loras": [{"path": item.path, "scale": item.scale} for item in values.loras],
        "embeddings": [{"path": item.path, "tokens": item.tokens} for item in values.embeddings],
        "controlnets": [
            _control(item, f"controlnets.{place}", take)
            for place, item in enumerate(values.controlnets)
        ],
        "ip_adapters": [
            _adapter(item, f"ip_adapter.{place}", take)
            for place, item in enumerate(values.ip_adapter)
        ],
        "ic_light": _ic_light(values, take),
        "timesteps": _listed(values, "timesteps"),
        "sigmas": _listed(values, "sigmas"),
        "prediction_type": values.prediction_type if asked_prediction else None,
        "tiles": {
            "width": values.tile_width,
            "height": values.tile_height,
            "stride_width": values.tile_stride_width,
            "stride_height": values.tile_stride_height,
        },
    }


def _control(item: ControlNet, field: str, take: Take) -> dict[str, Any]:
    names = ("path", "config_url", "variant", "conditioning_scale", "ip_adapter_index")
    return {
        **{name: getattr(item, name) for name in names},
        "image": take(item.image_url, f"{field}.image_url"),
        "mask": item.mask_url and take(item.mask_url, f"{field}.mask_url"),
        "start_percentage": item.start_percentage,
        "end_percentage": item.end_percentage,
    }


def _adapter(item: IPAdapter, field: str, take: Take) -> dict[str, Any]:
    urls, place = item.ip_adapter_image_url, f"{field}.ip_adapter_image_url"
    if isinstance(urls, str):
        images = [take(urls, place)]
    else:
        images = [take(url, f"{place}.{index}") for index, url in enumerate(urls)]
    names = (
        "path",
        "model_subfolder",
        "weight_name",
        "insight_face_model_path",
        "scale",
        "unconditional_noising_factor",
        "image_projection_shortcut",
    )
    mask = item.ip_adapter_mask_url
    scales = item.scale_json
    return {
        **{name: getattr(item, name) for name in names},
        "images": images,
        "mask": mask and take(mask, f"{field}.ip_adapter_mask_url"),
        "layer_scales": None if scales is None else json.dumps(scales, sort_keys=True),
    }


def _ic_light(values: LoraInput, take: Take) -> dict[str, Any] | None:
    """Read IC-Light, whose model and picture need each other."""
    model, image = "ic_light_model_url", "ic_light_image_url"
    background = "ic_light_model_background_image_url"
    given = [name for name in (model, image, background) if getattr(values, name)]
    if not given:
        return None
    for name in (model, image):
        if name not in given:
            missing = f"Field required beside {given[0]}"
            raise Refused(unprocessable([problem([name], missing, "missing")]))
    behind = getattr(values, background)
    return {
        "path": values.ic_light_model_url,
        "image": take(str(values.ic_light_image_url), image),
        "background": behind and take(behind, background),
    }


def _listed(values: LoraInput, name: str) -> tuple[float, ...]:
    """Read a list that is only looked at where its method says so."""
    asked = getattr(values, name)
    if asked.method != "array":
        return ()
    if not asked.array:
        message = "List should have at least 1 item after validation, not 0"
        raise Refused(unprocessable([problem([name, "array"], message, "too_short")]))
    array: tuple[float, ...] = asked.array
    return array
