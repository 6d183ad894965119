"""The panel for the pictures that a job works with: to follow, to repaint, to vary or to enlarge.

The browser sends each picture once, as a file, and the parts name it by its hash. As in Fooocus one panel acts at a time, and
image prompts can be mixed with one of the others. Knows nothing of how a picture is painted.
"""

from collections.abc import Mapping
from typing import Any, get_args

import gradio as gr

from engine import TextRequest
from engine.image_inputs import (
    DRAWN,
    SLOT_DEFAULTS,
    ImagePrompt,
    ImagePromptType,
    Inpaint,
    InpaintEngine,
    Side,
    UpscaleOrVary,
)
from engine.knobs import bounds, knob
from ui.describe_panel import describe_panel
from ui.enhance_panel import enhance_panel
from ui.form import Part, component, drawn
from ui.image_input import MAX_BYTES, MAX_PIXELS, MAX_SIDE
from ui.mask_from import BUTTON, MaskPanel, mask_panel
from ui.notations import SLOTS, empty_slot
from ui.picture_values import PicturesPanel
from ui.settings import FOR_TEXT
from ui.sketcher import sketcher
from ui.theme import island

_TABS = (
    ("words", "Words only", "Paint from the prompt alone"),
    ("image_prompts", "Image prompts", "Follow up to four pictures"),
    ("inpaint", "Inpaint", "Repaint a part of a picture, or paint beyond its sides"),
    ("upscale_or_vary", "Upscale or vary", "Paint a picture again, or make it larger"),
    (
        "enhance",
        "Enhance",
        "Find faces, hands or what you name in finished pictures, and repaint them",
    ),
    ("describe", "Describe", "Put a picture into the words of the prompt"),
)
_MIXES = (
    ("inpaint", "Mix with Inpaint"),
    ("upscale_or_vary", "Mix with Upscale or vary"),
)
_HINTS: Mapping[ImagePromptType, str] = {
    "ImagePrompt": "Takes look and content of the picture.",
    "PyraCanny": "Takes its outlines.",
    "CPDS": "Takes its light and depth.",
    "FaceSwap": "Takes the face in it.",
    "Depth": "Takes what is near and what is far.",
    "Normal": "Takes which way its surfaces face.",
    "Pose": "Takes how people in it stand, with hands and faces.",
    "SoftEdge": "Takes its outlines, soft where they are.",
    "Scribble": "Takes its outlines as a rough scribble.",
    "Lineart": "Takes its lines, fine as ink.",
    "StraightLines": "Takes its straight lines, as those of buildings.",
}
_INPAINT_MORE = (
    "invert_mask",
    "erode_or_dilate",
    "strength",
    "respective_field",
    "engine",
    "disable_initial_latent",
)
_AS_METHOD = "As the method has it"
_USUAL = (_AS_METHOD, "")
_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "engine": {
        "kind": gr.Dropdown,
        "choices": [_USUAL, *get_args(InpaintEngine)],
        "value": "",
    },
    "disable_initial_latent": {
        "kind": gr.Dropdown,
        "choices": [_USUAL, ("Yes", True), ("No", False)],
        "value": "",
    },
    "strength": {"placeholder": _AS_METHOD},
    "respective_field": {"placeholder": _AS_METHOD},
}
"""Parts that may leave their field to the method."""
_MOST = {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "side": MAX_SIDE}


def pictures_panel(start: Mapping[str, Any], *, can_bring: bool) -> PicturesPanel:
    """Lay out the panel.

    Args:
        start: What the form shows at first, by dotted field name.
        can_bring: Whether visitors can bring pictures; else there is nothing to see.
    """
    with gr.Column(elem_id="pictures", min_width=0, visible=can_bring, elem_classes=[FOR_TEXT]):
        choice = island(
            "panel.js",
            "pictures_bar",
            value={"tab": "words"},
            classes=("part",),
            facts={
                "tabs": [{"id": key, "name": name, "help": text} for key, name, text in _TABS],
                "mixes": [{"id": key, "name": name} for key, name in _MIXES],
            },
        )
        with gr.Column(elem_id="image_prompts_panel", min_width=0):
            slots = _slots(start)
        with gr.Column(elem_id="inpaint_panel", min_width=0):
            sketch, inpaint, mask = _inpaint()
        with gr.Column(elem_id="upscale_or_vary_panel", min_width=0):
            picture, change = _change()
        with gr.Column(elem_id="enhance_panel", min_width=0):
            enhance = enhance_panel()
        with gr.Column(elem_id="describe_panel", min_width=0):
            describe = describe_panel()
    return PicturesPanel(choice, slots, sketch, inpaint, mask, picture, change, describe, enhance)


def _slots(start: Mapping[str, Any]) -> Part:
    types = [
        {
            "name": name,
            "help": _HINTS[name],
            "stop_at": stop_at,
            "weight": weight,
            "draws": name in DRAWN,
        }
        for name, (stop_at, weight) in SLOT_DEFAULTS.items()
    ]
    return drawn(
        TextRequest,
        "image_prompts",
        start,
        "slots.js",
        empty=[empty_slot()] * SLOTS,
        types=types,
        most=_MOST,
        weight=_range("weight"),
        stop=_range("stop_at"),
    )


def _range(name: str) -> dict[str, Any]:
    low, high = bounds(ImagePrompt, name)
    facts = knob(ImagePrompt, name)
    return {"name": facts.label, "help": facts.help, "low": low, "high": high, "step": facts.step}


def _inpaint() -> tuple[gr.HTML, dict[str, Part], MaskPanel]:
    with gr.Row(elem_id="inpaint_row"):
        sketch = sketcher("sketch", submits=("generate", BUTTON))
        with gr.Column(elem_id="inpaint_settings", min_width=0):
            parts = {
                "mode": component(
                    Inpaint, "mode", {}, kind=gr.Radio, elem_id="inpaint_mode", info=None
                ),
                "additional_prompt": component(
                    Inpaint, "additional_prompt", {}, lines=1, max_lines=4
                ),
                "outpaint": component(
                    Inpaint,
                    "outpaint",
                    {},
                    kind=gr.CheckboxGroup,
                    choices=list(get_args(Side)),
                    value=[],
                ),
            }
            _needed("inpaint", "improve")
            with gr.Accordion("Mask from the picture", open=False, elem_classes=["group"]):
                mask = mask_panel()
            with gr.Accordion("More on repainting", open=False, elem_classes=["group"]):
                for name in _INPAINT_MORE:
                    parts[name] = _part(Inpaint, name, elem_id=f"inpaint_{name}")
    return sketch, parts, mask


def _change() -> tuple[gr.HTML, dict[str, Part]]:
    with gr.Row(elem_id="change_row"):
        picture = island(
            "one_picture.js",
            "change_picture",
            value="",
            label="Picture",
            classes=("part",),
            facts={"label": "Picture to vary or enlarge", "most": _MOST},
        )
        with gr.Column(elem_id="change_settings", min_width=0):
            parts = {
                "method": component(
                    UpscaleOrVary, "method", {}, kind=gr.Radio, elem_id="change_method"
                ),
                "strength": _part(UpscaleOrVary, "strength", elem_id="change_strength"),
            }
            _needed("enlarge")
    return picture, parts


def _part(model: type[Inpaint | UpscaleOrVary], name: str, **look: Any) -> Part:
    return component(model, name, {}, **{**_LOOKS.get(name, {}), **look})


def _needed(*uses: str) -> None:
    """Say what has to be fetched first, or is not to be had; the page hides what the method has no use for."""
    island("needed.js", f"{uses[0]}_needed", classes=("part", "needed"), facts={"uses": list(uses)})
