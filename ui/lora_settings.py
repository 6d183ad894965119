"""The settings of the LoRA studio: every field of `engine.studio.Studio`, and of the request what goes with it.

Labels, help, ranges and choices come from the fields; this file says which stand together and how the lists are drawn.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import gradio as gr

from engine import TextRequest
from engine.geometry import LATENT_FACTOR
from engine.knobs import knob
from engine.requests import MAX_SIDE
from engine.studio import Studio, StudioLora
from ui.form import Part, component, drawn
from ui.image_input import MAX_BYTES, MAX_PIXELS
from ui.image_input import MAX_SIDE as MAX_PICTURE_SIDE
from ui.notations import (
    ADAPTER_ROWS,
    CONTROL_ROWS,
    EMBEDDING_ROWS,
    STUDIO_LORA_ROWS,
)
from ui.settings import seed_box
from ui.theme import island

PREFIX = "lora_"
"""Of the names of the parts, since the other form has some of the same fields."""
SCOPE = "lora"
"""What the page's scripts call this form, where they follow its base model."""
_PANELS: Mapping[str, str] = {
    "lora_common": "Settings",
    "lora_addons": "LoRAs",
    "lora_pictures": "Controls",
    "lora_advanced": "Advanced",
}
_SAMPLING = ("eta", "timesteps", "sigmas", "prediction_type", "rescale_betas_snr_zero")
_TILES = ("tiles.width", "tiles.height", "tiles.stride_width", "tiles.stride_height")
_WEIGHTS = ("unet_name", "variant", "vae")
_ENCODER = ("image_encoder_path", "image_encoder_subfolder", "image_encoder_weight_name")
_FILES = (
    "debug_latents",
    "debug_per_pass_latents",
    "save_metadata",
    "metadata_scheme",
    "picture_grid",
    "previews",
    "deterministic",
    "enable_safety_checker",
)
_RARE_OF_CONTROLS = ("config_url", "variant", "ip_adapter_index")
_RARE_OF_ADAPTERS = (
    "model_subfolder",
    "weight_name",
    "insight_face_model_path",
    "layer_scales",
    "unconditional_noising_factor",
    "image_projection_shortcut",
)
_MOST = {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "side": MAX_PICTURE_SIDE}
_SHOWN_AS: Mapping[str, Mapping[str, Any]] = {
    "timesteps": {"lines": 1, "max_lines": 6, "placeholder": "999, 875, 750, …"},
    "sigmas": {"lines": 1, "max_lines": 6, "placeholder": "14.6, 9.1, 5.2, …"},
}


def lora_settings(
    start: Mapping[str, Any], *, can_bring: bool, can_refresh: bool
) -> dict[str, Part]:
    """Lay out the column.

    Args:
        start: What the form shows at first, by dotted field name.
        can_bring: Whether visitors can bring pictures.
        can_refresh: Whether there is a disk to read the lists from anew.

    Returns:
        The components by dotted field name, but for the prompt.
    """
    tabs = [{"panel": it, "name": name, "later": False} for it, name in _PANELS.items()]
    island(
        "tabs.js",
        "lora_tabs",
        classes=("part", "column_tabs"),
        facts={"tabs": tabs, "column": "lora_settings", "label": "Settings of the LoRA studio"},
    )
    with _panel("lora_common"):
        fields = _common(start)
    with _panel("lora_addons"):
        fields |= _addons(start)
        if can_refresh:
            island("refresh.js", "lora_refresh", classes=("part",))
    with _panel("lora_pictures"):
        fields |= _pictures(start, can_bring=can_bring)
    with _panel("lora_advanced"):
        fields |= _advanced(start)
    return fields


def _panel(elem_id: str) -> gr.Column:
    return gr.Column(elem_id=elem_id, min_width=0, elem_classes=["pane"])


def _common(start: Mapping[str, Any]) -> dict[str, Part]:
    part, own = partial(_part, start), partial(_own, start)
    negative = "What to leave out"
    return {
        "advanced.base_model": own("base_model", "choice.js", list="models", is_free=True),
        "aspect_ratio": own("aspect_ratio", "sizes.js", most=MAX_SIDE, grid=LATENT_FACTOR),
        "num_images": part("num_images", info=None),
        "negative_prompt": part("negative_prompt", lines=2, info=None, placeholder=negative),
        "studio.num_inference_steps": part("num_inference_steps", info=None),
        "studio.guidance_scale": part("guidance_scale"),
        "studio.scheduler": part("scheduler"),
        "seed": _seed(start),
        "output_format": part("output_format", info=None),
    }


def _addons(start: Mapping[str, Any]) -> dict[str, Part]:
    """Lay out LoRAs and embeddings; what keeps LoRAs (upload, fetch, notes) has its place between the two."""
    rows, step = STUDIO_LORA_ROWS, knob(StudioLora, "scale").step
    own = partial(_own, start)
    return {
        "studio.loras": own(
            "loras",
            "loras.js",
            most=rows.most,
            low=rows.low,
            high=rows.high,
            step=step,
            is_free=True,
        ),
        "studio.embeddings": own(
            "embeddings", "rows.js", **EMBEDDING_ROWS.facts("embeddings"), limits=_MOST
        ),
        "studio.prompt_weighting": _part(start, "prompt_weighting"),
    }


def _pictures(start: Mapping[str, Any], *, can_bring: bool) -> dict[str, Part]:
    own, part = partial(_own, start), partial(_part, start)
    if not can_bring:
        gr.HTML("This studio takes no pictures.", elem_classes=["why"], apply_default_css=False)
    controls = CONTROL_ROWS.facts("controls", _RARE_OF_CONTROLS)
    adapters = ADAPTER_ROWS.facts("controls", _RARE_OF_ADAPTERS)
    fields: dict[str, Part] = {
        "studio.controlnets": own("controlnets", "rows.js", **controls, limits=_MOST),
        "studio.controlnet_guess_mode": part("controlnet_guess_mode"),
        "studio.ip_adapters": own("ip_adapters", "rows.js", **adapters, limits=_MOST),
    }
    with _group("Image encoder"):
        fields |= _fields(start, _ENCODER)
    with _group("IC-Light", "lora_relighting"):
        fields["studio.ic_light"] = part("ic_light")
        fields["studio.ic_light.path"] = own(
            "ic_light.path", "choice.js", list="ic_lights", is_free=True
        )
        for name in ("image", "background"):
            fields[f"studio.ic_light.{name}"] = own(f"ic_light.{name}", "picture.js", limits=_MOST)
    return fields


def _advanced(start: Mapping[str, Any]) -> dict[str, Part]:
    fields = _fields(start, ("clip_skip",))
    for title, names in (
        ("Noise levels", _SAMPLING),
        ("Tiles", _TILES),
        ("Weights", _WEIGHTS),
        ("Files & latents", _FILES),
    ):
        with _group(title):
            fields |= _fields(start, names)
    return fields


def _fields(start: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Part]:
    return {_name(it): _one(start, it) for it in names}


def _one(start: Mapping[str, Any], name: str) -> Part:
    lists = {"unet_name": "unets", "image_encoder_path": "encoders", "vae": "vaes"}
    if name in lists:
        return _own(start, name, "choice.js", list=lists[name], is_free=name != "vae")
    return _part(start, name, **_SHOWN_AS.get(name, {}))


def _group(title: str, elem_id: str | None = None) -> gr.Accordion:
    return gr.Accordion(title, open=False, elem_classes=["group"], elem_id=elem_id)


def _part(start: Mapping[str, Any], name: str, **look: Any) -> Part:
    return component(TextRequest, _name(name), start, elem_id=_elem_id(name), **look)


def _own(start: Mapping[str, Any], name: str, module: str, **facts: Any) -> Part:
    return drawn(
        TextRequest, _name(name), start, module, elem_id=_elem_id(name), scope=SCOPE, **facts
    )


def _seed(start: Mapping[str, Any]) -> Part:
    with gr.Row(elem_classes=["seed_row"]):
        return seed_box(start, PREFIX)


def _name(name: str) -> str:
    """Write a field's dotted name: it is the studio's, else one of the request's advanced ones, else its own."""
    head = name.partition(".")[0]
    if head in Studio.model_fields:
        return f"studio.{name}"
    return name if head in TextRequest.model_fields else f"advanced.{name}"


def _elem_id(name: str) -> str:
    return PREFIX + name.replace(".", "_")
