"""The pictures that a job works with: to follow, to repaint, to vary or to enlarge.

The browser sends each picture once, as a file, and the parts name it by its hash. As in Fooocus one panel acts at a time, and
image prompts can be mixed with one of the others. Knows nothing of how a picture is painted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr

from engine import InvalidRequest, TextRequest
from engine.image_inputs import (
    SLOT_DEFAULTS,
    ImagePrompt,
    ImagePromptType,
    Inpaint,
    InpaintEngine,
    Side,
    UpscaleOrVary,
)
from engine.knobs import bounds, knob
from ui.form import Part, component, drawn
from ui.image_input import MAX_BYTES, MAX_PIXELS, MAX_SIDE, Uploads
from ui.notations import SLOTS, empty_slot
from ui.sketcher import read_sketch, sketcher
from ui.theme import island

_TABS = (
    ("words", "Words only", "Paint from the prompt alone"),
    ("image_prompts", "Image prompts", "Follow up to four pictures"),
    ("inpaint", "Inpaint", "Repaint a part of a picture, or paint beyond its sides"),
    ("upscale_or_vary", "Upscale or vary", "Paint a picture again, or make it larger"),
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
}
_INPAINT_MORE = (
    "invert_mask",
    "erode_or_dilate",
    "strength",
    "respective_field",
    "engine",
    "disable_initial_latent",
)
_USUAL = ("As the method has it", "")
_CHOICES: Mapping[str, Any] = {
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
}
"""Choices that may be left to the method."""
_MOST = {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "side": MAX_SIDE}


@dataclass(frozen=True)
class PicturesPanel:
    """The parts of the panel."""

    choice: gr.HTML
    """Which panel acts, and what is mixed with it."""
    slots: Part
    """Stands for `TextRequest.image_prompts`."""
    sketch: gr.HTML
    inpaint: Mapping[str, Part]
    """By field of `Inpaint`."""
    picture: gr.HTML
    """The one to vary or to enlarge."""
    change: Mapping[str, Part]
    """By field of `UpscaleOrVary`."""

    @property
    def inputs(self) -> set[Part]:
        """What an event that reads the panel takes."""
        parts = {self.choice, self.slots, self.sketch, self.picture}
        return {*parts, *self.inpaint.values(), *self.change.values()}

    def read(
        self, asked: TextRequest, values: Mapping[Any, Any], uploads: Uploads | None, owner: str
    ) -> tuple[TextRequest, dict[str, bytes]]:
        """Add what the panel holds to a request.

        Args:
            asked: What the rest of the form asks for; it has the pictures to follow.
            values: What the parts hold.
            uploads: Holds the pictures that visitors brought.
            owner: Whose they are.

        Returns:
            The request, and the files that it names.

        Raises:
            InvalidRequest: a picture is missing, or a field breaks its rule.
        """
        choice = values[self.choice]
        acting = _acting(choice if isinstance(choice, Mapping) else {})
        fields: dict[str, Any] = {"image_prompts": (), "inpaint": None, "upscale_or_vary": None}
        files: dict[str, bytes] = {}
        if uploads is not None:
            if "image_prompts" in acting:
                fields["image_prompts"] = [slot.model_dump() for slot in asked.image_prompts]
                for slot in asked.image_prompts:
                    files[slot.image] = _file(uploads, slot.image, owner, "image_prompts")
            if "inpaint" in acting:
                fields["inpaint"] = self._read_inpaint(values, uploads, owner, files)
            if "upscale_or_vary" in acting:
                fields["upscale_or_vary"] = self._read_change(values, uploads, owner, files)
        request = TextRequest.parse({**asked.model_dump(), **fields})
        return request, files

    def _read_inpaint(
        self, values: Mapping[Any, Any], uploads: Uploads, owner: str, files: dict[str, bytes]
    ) -> dict[str, Any]:
        sketch = read_sketch(values[self.sketch], uploads, owner)
        if sketch is None:
            raise InvalidRequest("inpaint.image", "choose a picture to repaint")
        given = _given(self.inpaint, values)
        if sketch.mask is None and not given.get("outpaint"):
            raise InvalidRequest(
                "inpaint.mask", "paint over what shall change, or choose sides to paint beyond"
            )
        files[sketch.image.name] = sketch.image.path.read_bytes()
        if sketch.mask is not None:
            files[sketch.mask.name] = sketch.mask.path.read_bytes()
        mask = None if sketch.mask is None else sketch.mask.name
        return {**given, "image": sketch.image.name, "mask": mask}

    def _read_change(
        self, values: Mapping[Any, Any], uploads: Uploads, owner: str, files: dict[str, bytes]
    ) -> dict[str, Any]:
        name = values[self.picture]
        if not name:
            raise InvalidRequest("upscale_or_vary.image", "choose a picture to vary or to enlarge")
        files[name] = _file(uploads, name, owner, "upscale_or_vary.image")
        return {**_given(self.change, values), "image": name}

    def show(self, request: Mapping[str, Any]) -> dict[Part, Any]:
        """Find the values that show the pictures of a request."""
        inpaint, change = request.get("inpaint"), request.get("upscale_or_vary")
        prompts = request.get("image_prompts") or ()
        tab = "inpaint" if inpaint else "upscale_or_vary" if change else "words"
        mixes = {"inpaint": bool(inpaint), "upscale_or_vary": bool(change)} if prompts else {}
        shown: dict[Part, Any] = {
            self.choice: gr.update(value={"tab": "image_prompts" if prompts else tab, **mixes})
        }
        if change:
            shown[self.picture] = gr.update(value=change["image"])
        for parts, part_of in ((self.inpaint, inpaint), (self.change, change)):
            for name, part in parts.items():
                if part_of:
                    value = part_of[name]
                    shown[part] = gr.update(value="" if value is None else value)
        return shown


def pictures_panel(start: Mapping[str, Any]) -> PicturesPanel:
    """Lay out the panel.

    Args:
        start: What the form shows at first, by dotted field name.
    """
    with gr.Column(elem_id="pictures", min_width=0):
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
            sketch, inpaint = _inpaint()
        with gr.Column(elem_id="upscale_or_vary_panel", min_width=0):
            picture, change = _change()
    return PicturesPanel(choice, slots, sketch, inpaint, picture, change)


def _slots(start: Mapping[str, Any]) -> Part:
    types = [
        {
            "name": name,
            "help": _HINTS[name],
            "stop_at": stop_at,
            "weight": weight,
            "draws": name in ("PyraCanny", "CPDS"),
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


def _range(name: str) -> dict[str, float | None]:
    low, high = bounds(ImagePrompt, name)
    return {"low": low, "high": high, "step": knob(ImagePrompt, name).step}


def _inpaint() -> tuple[gr.HTML, dict[str, Part]]:
    sketch = sketcher("sketch")
    parts: dict[str, Part] = {"mode": component(Inpaint, "mode", {}, info=None)}
    parts["outpaint"] = component(
        Inpaint, "outpaint", {}, kind=gr.CheckboxGroup, choices=list(get_args(Side)), value=[]
    )
    parts["additional_prompt"] = component(Inpaint, "additional_prompt", {}, lines=1)
    with gr.Accordion("More on repainting", open=False, elem_classes=["group"]):
        for name in _INPAINT_MORE:
            parts[name] = component(
                Inpaint, name, {}, elem_id=f"inpaint_{name}", **_CHOICES.get(name, {})
            )
    return sketch, parts


def _change() -> tuple[gr.HTML, dict[str, Part]]:
    with gr.Row(elem_id="change_row"):
        picture = island(
            "one_picture.js",
            "change_picture",
            value="",
            label="Picture",
            classes=("part",),
            facts={"label": "Picture", "help": knob(UpscaleOrVary, "image").help, "most": _MOST},
        )
        with gr.Column(min_width=0):
            parts = {
                "method": component(UpscaleOrVary, "method", {}, kind=gr.Radio, elem_id="change"),
                "strength": component(UpscaleOrVary, "strength", {}, elem_id="change_strength"),
            }
    return picture, parts


def _acting(choice: Mapping[str, Any]) -> set[str]:
    """Say which panels act."""
    tab = choice.get("tab")
    if tab != "image_prompts":
        return {tab} if isinstance(tab, str) else set()
    return {"image_prompts", *(key for key, _ in _MIXES if choice.get(key) is True)}


def _given(parts: Mapping[str, Part], values: Mapping[Any, Any]) -> dict[str, Any]:
    """Read the fields that are set; an empty box leaves its field to the mode."""
    held = {name: values[part] for name, part in parts.items()}
    return {name: value for name, value in held.items() if value not in ("", None)}


def _file(uploads: Uploads, name: str, owner: str, field: str) -> bytes:
    return uploads.find(name, owner, field).path.read_bytes()
