"""*Mask from the picture*: what finds it, the job that does, and the way of the mask into the sketcher.

Knows the parts, not where they stand.
"""

import asyncio
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from engine import (
    EngineError,
    Failed,
    ImageReady,
    InvalidRequest,
    Library,
    ModelNotFound,
    TextRequest,
    plan,
)
from engine.catalog import FOLDERS
from engine.image_inputs import MaskFrom
from engine.knobs import knob
from engine.partners import DETECTOR, MASK_NETWORKS, ONNX_LIBRARY, ONNX_MISSING
from engine.partners import SAM as SAM_NETWORKS
from ui.form import Part, component
from ui.helpers import mask_uses
from ui.image_input import Uploads
from ui.sketcher import Sketch, read_sketch, write_sketch
from ui.studio import Studio
from ui.theme import island

SAM = "sam"
CLOTHES = "u2net_cloth_seg"
EXAMPLES = ("face", "eye", "mouth", "hair", "hand", "body")
"""Words that detectors know well, to choose from."""
BUTTON = "find_mask"
"""Name of the button, before which the sketcher sends what it has."""
_FINER = ("sam_model", "box_threshold", "max_detections", "grow_boxes", "boxes_only")
_BY_WORDS = ("prompt", *_FINER)
_NO_IMAGE = "0" * 64
_FIELD = re.compile(r"mask_from\.(\w+): (.*)", re.DOTALL)


@dataclass(frozen=True)
class MaskPanel:
    """The parts that a mask is asked for with."""

    settings: Mapping[str, Part]
    """By field of `MaskFrom`."""
    finer: gr.Accordion
    """Holds those of them that are seldom touched."""
    button: gr.Button
    needed: gr.HTML
    """Says what has to be there first."""
    news: gr.HTML
    """Says how far it is, and what went wrong."""


def mask_panel() -> MaskPanel:
    """Lay out the parts; settings that the model has no use for are out of sight."""
    model = usual_model()
    words = {"kind": gr.Dropdown, "choices": list(EXAMPLES), "allow_custom_value": True}
    settings = {
        "model": _part("model", value=model),
        "cloth": _part("cloth", visible=model == CLOTHES),
        "prompt": _part("prompt", visible=model == SAM, **words),
    }
    with gr.Accordion(
        "More on finding", open=False, visible=model == SAM, elem_classes=["group"]
    ) as finer:
        settings |= {name: _part(name) for name in _FINER}
    needed = island("mask_needed.js", "mask_needed", value={}, classes=("part", "needed"))
    button = gr.Button("Find the mask", elem_id=BUTTON)
    news = island("mask_note.js", "mask_news", value={}, classes=("part", "mask_note"))
    return MaskPanel(settings, finer, button, needed, news)


def usual_model() -> str:
    """Name the model that the page starts from: one that runs here."""
    default = MaskFrom.model_fields["model"].default
    return str(default) if _has_onnx() else SAM


def is_used(name: str, model: str) -> bool:
    """Say whether a field of `MaskFrom` matters to a model."""
    if name == "cloth":
        return model == CLOTHES
    return model == SAM if name in _BY_WORDS else True


def missing(library: Library, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Say what has to be there before a mask can be found.

    Args:
        library: What there is.
        settings: What the parts hold, by field of `MaskFrom`.

    Returns:
        ``uses``, of which `ui.helpers` lists the files that are to be fetched; or ``wrong``, where it takes more than a
        press of the button, with a ``text`` about it.
    """
    model, offers = settings["model"], [DETECTOR]
    if model != SAM:
        if not _has_onnx():
            return {"text": f"{model} needs a library: pip install {ONNX_LIBRARY}", "wrong": True}
        offers = [MASK_NETWORKS[model]]
    elif not settings["boxes_only"]:
        offers.append(SAM_NETWORKS[settings["sam_model"]])
    absent = [it for it in offers if not library.catalog.has(it.kind, it.file)]
    try:
        for it in absent:
            library.catalog.weights(it.kind, it.file, "mask_from.model")
    except ModelNotFound:
        places = " and ".join(f"{it.file} in models/{FOLDERS[it.kind]}" for it in absent)
        return {"text": f"It takes {places}", "wrong": True}
    return {
        "uses": mask_uses(model, settings["sam_model"], boxes_only=settings["boxes_only"]),
    }


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check what the parts hold, by field of `MaskFrom`.

    Raises:
        InvalidRequest: a field breaks its rule.
    """
    _request(_NO_IMAGE, settings)


def submit_mask(studio: Studio, sketch: object, settings: Mapping[str, Any], owner: str) -> str:
    """Submit the search for a mask in the sketcher's picture.

    Args:
        studio: Its queue does it.
        sketch: What the sketcher holds.
        settings: What the parts hold, by field of `MaskFrom`.
        owner: Whose picture it is.

    Returns:
        The job's id; its one picture is the mask, white on black, a PNG.

    Raises:
        EngineError: there is no picture, a field breaks its rule, or what finds the mask is not to be had.
    """
    image = _sketched(studio.uploads, sketch, owner).image
    asked = _request(image.name, settings)
    if settings["model"] != SAM and not _has_onnx():
        raise ModelNotFound(f"{settings['model']}: {ONNX_MISSING}")
    wanted = plan(asked, studio.library, seed=0)
    return studio.jobs.submit(wanted, owner=owner, inputs={image.name: image.path.read_bytes()})


async def found_mask(studio: Studio, job: str, sketch: object, owner: str) -> str | None:
    """Wait for a mask, and write what the sketcher holds then; the mask is no picture of the history any more.

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
    mask = None
    async for _, event in studio.jobs.events(job, owner=owner):
        if isinstance(event, Failed):
            raise EngineError(event.message)
        if isinstance(event, ImageReady):
            mask = event.data
    if mask is None:
        return None
    return await asyncio.to_thread(_take, studio, job, sketch, mask, owner)


def in_words(error: EngineError) -> str:
    """Name the part that an error is about as the page does."""
    found = _FIELD.fullmatch(str(error))
    if found is None:
        return str(error)
    field, problem = found.groups()
    return f"{knob(MaskFrom, field).label}: {problem}"


def _take(studio: Studio, job: str, sketch: object, mask: bytes, owner: str) -> str:
    held = _sketched(studio.uploads, sketch, owner)
    assert studio.uploads is not None
    shown = write_sketch(held.image, studio.uploads.save(mask, owner), is_late=True)
    found = studio.jobs.job(job, owner=owner)
    studio.jobs.delete([image.id for image in found.images], owner=owner)
    return shown


def _request(image: str, settings: Mapping[str, Any]) -> TextRequest:
    model = str(settings["model"])
    used = {name: value for name, value in settings.items() if is_used(name, model)}
    return TextRequest.parse({"mask_from": {**used, "image": image}})


def _sketched(uploads: Uploads | None, sketch: object, owner: str) -> Sketch:
    field = "mask_from.image"
    try:
        held = None if uploads is None else read_sketch(sketch, uploads, owner)
    except InvalidRequest as error:
        raise InvalidRequest(field, error.problem) from error
    if held is None:
        raise InvalidRequest(field, "choose a picture first")
    return held


def _has_onnx() -> bool:
    return importlib.util.find_spec(ONNX_LIBRARY) is not None


def _part(name: str, **look: Any) -> Part:
    return component(MaskFrom, name, {}, **{"elem_id": f"mask_{name}", **look})
