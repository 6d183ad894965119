"""The settings column: what decides the picture beside its words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from engine import TextRequest
from engine.geometry import LATENT_FACTOR
from engine.knobs import bounds, knob
from engine.requests import MAX_LORAS, MAX_SIDE, MAX_STYLES, LoraWeight
from ui.form import Part, component, drawn
from ui.form_events import appear_on
from ui.lists import modes
from ui.saved_presets import MAX_NAME
from ui.theme import island

GUIDED = "guided"
"""CSS class of what a mode of few steps leaves without effect; the page takes it out of reach then."""
FOR_TEXT = "for_text"
"""CSS class of what only the tab *Text* shows."""
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Sampling": (
        "sampler",
        "scheduler",
        "num_inference_steps",
        "adaptive_cfg",
        "clip_skip",
        "seed_increment",
        "wildcards_in_order",
    ),
    "Size conditioning": ("adm_scaler_positive", "adm_scaler_negative", "adm_scaler_end"),
    "Image prompts": (
        "skip_preprocessors",
        "canny_low_threshold",
        "canny_high_threshold",
        "controlnet_softness",
        "image_attention",
    ),
    "FreeU": ("freeu", "freeu.b1", "freeu.b2", "freeu.s1", "freeu.s2"),
    "Files & metadata": (
        "save_metadata",
        "metadata_scheme",
        "picture_grid",
        "previews",
        "enable_safety_checker",
    ),
    "Compatibility": ("compat", "deterministic"),
}
"""The fields of the tab as they stand together: all of `Advanced`, and some of the request itself."""
_REFINING = (
    "refiner_switch",
    "advanced.refiner_switch_step",
    "advanced.refiner_swap_method",
)
"""Fields that only a refiner needs, which come to the page with the first one."""
_DISTILLED = (
    "guidance_scale",
    "sharpness",
    "advanced.sampler",
    "advanced.scheduler",
    "advanced.adaptive_cfg",
    "advanced.adm_scaler_positive",
    "advanced.adm_scaler_negative",
    "advanced.adm_scaler_end",
)
"""Fields that modes of few steps settle themselves, besides the refiner's."""
_PANELS: Mapping[str, str] = {
    "common_settings": "Settings",
    "style_settings": "Styles",
    "model_settings": "Models",
    "advanced_settings": "Advanced",
}
"""The column's tabs: the id of each and its name. They are ours, since Gradio puts a tab on the page when it is opened."""
LATER = "advanced_settings"
"""The tab that is put on the page when it is opened: many parts, and no other follows them."""
_WHY = "The performance mode has these built in; what is greyed out waits for Speed or Quality."


@dataclass(frozen=True)
class Column:
    """What the column is made of."""

    fields: Mapping[str, Part]
    """Components by dotted field name."""
    presets: gr.HTML
    """Chooses, saves and deletes presets; its events are ``choose``, ``save`` and ``discard``."""


def settings(start: Mapping[str, Any], *, can_refresh: bool, can_save: bool) -> Column:
    """Lay out the column.

    Args:
        start: What the form shows at first, by dotted field name.
        can_refresh: Whether there is a disk to read the lists from anew.
        can_save: Whether presets can be saved.
    """
    tabs = [{"panel": it, "name": name, "later": it == LATER} for it, name in _PANELS.items()]
    bar = island(
        "tabs.js",
        "settings_tabs",
        classes=("part", "column_tabs", FOR_TEXT),
        events=("open",),
        facts={"tabs": tabs, "column": "settings", "label": "Settings"},
    )
    with _panel("common_settings"):
        presets = island(
            "presets.js",
            "presets",
            classes=("part",),
            events=("choose", "save", "discard"),
            facts={"can_save": can_save, "max_name": MAX_NAME},
        )
        fields = _common(start)
    with _panel("style_settings"):
        fields["styles"] = drawn(TextRequest, "styles", start, "styles.js", most=MAX_STYLES)
    with _panel("model_settings"):
        fields |= _models(start, can_refresh=can_refresh)
    with _panel(LATER) as later:
        fields |= _advanced(start)
    appear_on(bar, later)
    return Column(fields, presets)


def _panel(elem_id: str) -> gr.Column:
    classes = ["pane", FOR_TEXT]
    return gr.Column(elem_id=elem_id, min_width=0, visible=elem_id != LATER, elem_classes=classes)


def _common(start: Mapping[str, Any]) -> dict[str, Part]:
    part = partial(component, TextRequest, preset=start)
    own = partial(drawn, TextRequest, preset=start)
    negative = "What to leave out"
    return {
        "performance": own("performance", module="performance.js", modes=modes()),
        "aspect_ratio": own("aspect_ratio", module="sizes.js", most=MAX_SIDE, grid=LATENT_FACTOR),
        "num_images": part("num_images", info=None),
        "negative_prompt": part("negative_prompt", lines=2, info=None, placeholder=negative),
        "seed": _seed(start),
        "output_format": part("output_format", info=None),
    }


def _models(start: Mapping[str, Any], *, can_refresh: bool) -> dict[str, Part]:
    part = partial(component, TextRequest, preset=start)
    own = partial(drawn, TextRequest, preset=start)
    _built_in()
    fields: dict[str, Part] = {
        "advanced.base_model": own("advanced.base_model", module="choice.js", list="models")
    }
    refiner = own(
        "refiner_model", module="choice.js", list="refiners", classes=(GUIDED,), events=("open",)
    )
    fields["refiner_model"] = refiner
    with gr.Column(elem_id="refining", min_width=0, visible=False) as refining:
        for name in _REFINING:
            fields[name] = part(name, elem_classes=[GUIDED])
    appear_on(refiner, refining)
    low, high = bounds(LoraWeight, "scale")
    step = knob(LoraWeight, "scale").step
    fields["loras"] = own("loras", module="loras.js", most=MAX_LORAS, low=low, high=high, step=step)
    fields["advanced.vae"] = own("advanced.vae", module="choice.js", list="vaes")
    if can_refresh:
        island("refresh.js", "refresh", classes=("part",))
    return fields


def _advanced(start: Mapping[str, Any]) -> dict[str, Part]:
    def part(name: str) -> Part:
        look: dict[str, Any] = {"elem_classes": [GUIDED]} if name in _DISTILLED else {}
        if name == "advanced.num_inference_steps":
            look["placeholder"] = "As the performance says"
        return component(TextRequest, name, start, **look)

    _built_in()
    fields = {name: part(name) for name in ("guidance_scale", "sharpness")}
    for title, leaves in _GROUPS.items():
        with gr.Accordion(title, open=False, elem_classes=["group"]):
            for leaf in leaves:
                name = leaf if leaf in TextRequest.model_fields else f"advanced.{leaf}"
                fields[name] = part(name)
    return fields


def _built_in() -> None:
    """Say why parts of a tab are out of reach; shown by the page while a mode of few steps is chosen."""
    gr.HTML(_WHY, elem_classes=["why"], apply_default_css=False)


def _seed(start: Mapping[str, Any]) -> Part:
    with gr.Row(elem_id="seed_row", elem_classes=["seed_row"]):
        return seed_box(start)


def seed_box(start: Mapping[str, Any], prefix: str = "") -> Part:
    """Make the box for a seed and the button that empties it.

    Args:
        start: What the form shows at first, by dotted field name.
        prefix: Of the names of the parts, which are others in each form.
    """
    seed = component(
        TextRequest,
        "seed",
        start,
        placeholder="Random",
        info=None,
        scale=1,
        min_width=0,
        elem_id=f"{prefix}seed",
    )
    clear = gr.Button(
        "Random",
        size="sm",
        elem_id=f"{prefix}random_seed",
        elem_classes=["random_seed"],
        scale=0,
        min_width=80,
    )
    clear.click(
        lambda: "", None, seed, queue=False, show_progress="hidden", api_visibility="private"
    )
    return seed
