"""*Mask from the picture*: what finds it, the job that does, and the way of the mask into the sketcher.

Knows the parts, not where they stand.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

import gradio as gr

from engine import EngineError, Failed, ImageReady, InvalidRequest, ModelNotFound, TextRequest, plan
from engine.image_inputs import MaskFrom
from engine.partners import ONNX_LIBRARY, ONNX_MISSING
from ui.form import Part, component
from ui.image_input import Uploads
from ui.sketcher import Sketch, read_sketch, write_sketch
from ui.studio import Studio

SAM = "sam"
CLOTHES = "u2net_cloth_seg"
EXAMPLES = ("face", "eye", "mouth", "hair", "hand", "body")
"""Words that detectors know well, to choose from."""
_BY_WORDS = ("prompt", "sam_model", "box_threshold", "max_detections", "grow_boxes", "boxes_only")


def mask_settings() -> dict[str, Part]:
    """Make the parts of the settings, by field of `MaskFrom`; those that the model has no use for are out of sight."""
    parts = {"model": _part("model"), "cloth": _part("cloth", visible=False)}
    for name in _BY_WORDS:
        look: dict[str, Any] = {"visible": False}
        if name == "prompt":
            look |= {"kind": gr.Dropdown, "choices": list(EXAMPLES), "allow_custom_value": True}
        parts[name] = _part(name, **look)
    others = {name: part for name, part in parts.items() if name != "model"}

    def show(model: str) -> dict[Part, Any]:
        return {part: gr.update(visible=is_used(name, model)) for name, part in others.items()}

    parts["model"].change(
        show,
        parts["model"],
        list(others.values()),
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return parts


def is_used(name: str, model: str) -> bool:
    """Say whether a field of `MaskFrom` matters to a model."""
    if name == "cloth":
        return model == CLOTHES
    return model == SAM if name in _BY_WORDS else True


def submit_mask(studio: Studio, sketch: object, settings: Mapping[str, Any], owner: str) -> str:
    """Submit the search for a mask in the sketcher's picture.

    Args:
        studio: Its queue does it.
        sketch: What the sketcher holds.
        settings: What the parts of `mask_settings` hold, by field of `MaskFrom`.
        owner: Whose picture it is.

    Returns:
        The job's id; its one picture is the mask, white on black, a PNG.

    Raises:
        EngineError: there is no picture, a field breaks its rule, or what finds the mask is not to be had.
    """
    image = _sketched(studio.uploads, sketch, owner).image
    model = str(settings["model"])
    used = {name: value for name, value in settings.items() if is_used(name, model)}
    asked = TextRequest.parse({"mask_from": {**used, "image": image.name}})
    if model != SAM and importlib.util.find_spec(ONNX_LIBRARY) is None:
        raise ModelNotFound(f"{model}: {ONNX_MISSING}")
    wanted = plan(asked, studio.library, seed=0)
    return studio.jobs.submit(wanted, owner=owner, inputs={image.name: image.path.read_bytes()})


async def found_mask(studio: Studio, job: str, sketch: object, owner: str) -> str | None:
    """Wait for a mask, and write what the sketcher holds then.

    Args:
        studio: Its queue works on the job.
        job: What `submit_mask` returned.
        sketch: What the sketcher held then.
        owner: Whose job it is.

    Returns:
        A value that makes the sketcher show the mask on its picture; None where somebody stopped the job.

    Raises:
        EngineError: there is none to be found, or it could not be looked for.
    """
    async for _, event in studio.jobs.events(job, owner=owner):
        if isinstance(event, ImageReady):
            held = _sketched(studio.uploads, sketch, owner)
            assert studio.uploads is not None
            return write_sketch(held.image, studio.uploads.save(event.data, owner))
        if isinstance(event, Failed):
            raise EngineError(event.message)
    return None


def _sketched(uploads: Uploads | None, sketch: object, owner: str) -> Sketch:
    held = None if uploads is None else read_sketch(sketch, uploads, owner)
    if held is None:
        raise InvalidRequest("mask_from.image", "choose a picture first")
    return held


def _part(name: str, **look: Any) -> Part:
    return component(MaskFrom, name, {}, elem_id=f"mask_{name}", **look)
