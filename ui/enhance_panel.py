"""*Enhance*: what is done to finished pictures, or to one that a visitor brings.

Its parts, read into a request and shown again from one. Knows nothing of how a picture is enhanced.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from engine import InvalidRequest
from engine.enhance_inputs import Enhance, Region
from engine.image_inputs import UpscaleOrVaryMethod
from engine.knobs import knob
from ui.form import Part, component
from ui.helpers import mask_uses
from ui.image_input import MAX_BYTES, MAX_PIXELS, MAX_SIDE, Upload, Uploads
from ui.mask_from import EXAMPLES
from ui.theme import island

SHOWN = 3
"""Regions on the page, as in Fooocus."""
_FIRST = ("look_for", "prompt", "negative_prompt")
_MORE = (
    "mode",
    "model",
    "box_threshold",
    "max_detections",
    "strength",
    "respective_field",
    "erode_or_dilate",
    "invert_mask",
)
_WHOLE = ("upscale_or_vary", "order", "prompts", "final_only")
_OFF = ("Off", "")
_FIELD = re.compile(r"enhance\.regions\.(\d+)\.(\w+): (.*)", re.DOTALL)
Values = Mapping[Any, Any]
"""What the parts hold."""


@dataclass(frozen=True)
class EnhancePanel:
    """The parts."""

    picture: gr.HTML
    """Empty where pictures are painted first."""
    whole: Mapping[str, Part]
    """By field of `Enhance`."""
    regions: Sequence[Mapping[str, Part]]
    """By field of `Region`; one that looks for nothing is off."""

    @property
    def inputs(self) -> set[Part]:
        """What an event that reads the parts takes."""
        inner = (part for region in self.regions for part in region.values())
        return {self.picture, *self.whole.values(), *inner}

    def read(
        self, values: Values, uploads: Uploads, owner: str
    ) -> tuple[dict[str, Any], Upload | None]:
        """Read what the parts hold.

        Returns:
            The fields of `Enhance`, and the picture where there is one.

        Raises:
            InvalidRequest: the picture is not here any more.
        """
        name = values[self.picture]
        image = uploads.find(name, owner, "enhance.image") if name else None
        whole = {field: values[part] for field, part in self.whole.items()}
        regions = [
            {
                field: None if values[part] == "" and field in _OPEN else values[part]
                for field, part in self.regions[at].items()
            }
            for at in self._filled(values)
        ]
        asked = {
            **whole,
            "upscale_or_vary": whole["upscale_or_vary"] or None,
            "image": image.name if image else None,
            "regions": regions,
        }
        return asked, image

    def show(self, asked: Enhance) -> dict[Part, Any]:
        """Find the values that show a request; regions that it has no more are off."""
        shown: dict[Part, Any] = {self.picture: gr.update(value=asked.image or "")}
        values = asked.model_dump(mode="json")
        for field, part in self.whole.items():
            shown[part] = gr.update(value=values[field] if values[field] is not None else "")
        empty = Region.model_construct().model_dump(mode="json")
        for at, parts in enumerate(self.regions):
            region = values["regions"][at] if at < len(values["regions"]) else empty
            for field, part in parts.items():
                held = region[field]
                shown[part] = gr.update(value="" if held is None else held)
        return shown

    def in_words(self, text: str, values: Values) -> InvalidRequest | None:
        """Name the part that an error is about as the page does; None where it is about none of these."""
        if found := _FIELD.fullmatch(text):
            index, field, problem = found.groups()
            place = self._filled(values)[int(index)] + 1
            return InvalidRequest(f"Region {place}, {knob(Region, field).label.lower()}", problem)
        if text.startswith("enhance.regions: "):
            return InvalidRequest("Enhance", "say what to look for, or how to upscale or vary")
        return None

    def _filled(self, values: Values) -> list[int]:
        """List the places of the regions that look for something."""
        return [
            at
            for at, parts in enumerate(self.regions)
            if values[parts["model"]] != "sam" or str(values[parts["look_for"]] or "").strip()
        ]


_OPEN = frozenset(name for name, field in Region.model_fields.items() if field.default is None)
"""Fields that are left to the method where their box is empty."""


def enhance_panel() -> EnhancePanel:
    """Lay out the parts."""
    most = {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "side": MAX_SIDE}
    with gr.Row(elem_id="enhance_row"):
        picture = island(
            "one_picture.js",
            "enhance_picture",
            value="",
            label="Picture",
            classes=("part",),
            facts={"label": "Picture to enhance; without one, those that are painted", "most": most}
            | {"kept": "pochade.enhanced"},
        )
        with gr.Column(elem_id="enhance_settings", min_width=0):
            regions = [_region(at) for at in range(SHOWN)]
            island(
                "mask_needed.js",
                "enhance_needed",
                value={"uses": mask_uses("sam", "vit_b", boxes_only=False)},
                classes=("part", "needed"),
                facts={"first": "picture", "to": "find what is repainted"},
            )
            with gr.Accordion("The whole picture", open=False, elem_classes=["group"]):
                whole = {name: _part(Enhance, name, "enhance") for name in _WHOLE}
    return EnhancePanel(picture, whole, regions)


def _region(at: int) -> dict[str, Part]:
    place = f"enhance_{at}"
    with gr.Accordion(f"Region {at + 1}", open=at == 0, elem_classes=["group"]):
        parts = {name: _part(Region, name, place) for name in _FIRST}
        with gr.Accordion("More on it", open=False, elem_classes=["group"]):
            parts |= {name: _part(Region, name, place) for name in _MORE}
    return parts


def _part(model: type[Enhance | Region], name: str, place: str) -> Part:
    looks: Mapping[str, Mapping[str, Any]] = {
        "look_for": {
            "kind": gr.Dropdown,
            "choices": list(EXAMPLES),
            "allow_custom_value": True,
            "value": "",
        },
        "upscale_or_vary": {
            "kind": gr.Dropdown,
            "choices": [_OFF, *get_args(UpscaleOrVaryMethod)],
            "value": "",
        },
        "mode": {"kind": gr.Dropdown},
        "strength": {"placeholder": "As the method has it"},
        "respective_field": {"placeholder": "As the method has it"},
    }
    return component(model, name, {}, **{"elem_id": f"{place}_{name}", **looks.get(name, {})})
