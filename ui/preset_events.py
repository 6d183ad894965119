"""What the page does with presets: choosing, saving and deleting them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from engine import InvalidRequest, TextRequest
from ui.form import Form, Part
from ui.form_events import visitor
from ui.problems import as_toast
from ui.saved_presets import remove, save
from ui.start import after_preset
from ui.studio import Studio


def choose_preset(
    studio: Studio, start: Mapping[str, Any], event: gr.EventData, request: gr.Request
) -> dict[str, Any]:
    """Find what the form shows once a preset is chosen.

    Raises:
        InvalidRequest: there is no such preset.
        ModelNotFound: its base model is neither there nor to be fetched.
    """
    presets = studio.library_of(visitor(studio, request)).presets
    if event.preset not in presets:
        raise InvalidRequest("preset", f"expected one of the list, got {event.preset!r:.80}")
    return after_preset(studio.library, start, presets[event.preset])


def connect_presets(studio: Studio, form: Form[TextRequest], presets: gr.HTML) -> None:
    """Let the page save what is on the form, and delete what was saved.

    The part's value tells the page what happened.
    """
    if studio.presets_dir is None:
        return

    def folder_of(owner: str) -> Path:
        folder = studio.presets_of(owner)
        assert folder is not None  # it is below the one there is
        return folder

    def save_form(
        values: Mapping[Part, Any], event: gr.EventData, request: gr.Request
    ) -> dict[str, Any]:
        owner = visitor(studio, request)
        with as_toast("This preset cannot be saved"):
            key, preset = save(
                folder_of(owner),
                str(event.name),
                form.read(values),
                taken=studio.library_of(owner).presets,
                replaces=event.replaces is True,
            )
        studio.put_preset(owner, key, preset)
        return {"saved": key, "at": time.time_ns()}

    def discard(event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        owner = visitor(studio, request)
        with as_toast("This preset cannot be deleted"):
            remove(folder_of(owner), str(event.preset))
        studio.put_preset(owner, str(event.preset), None)
        return {"discarded": str(event.preset), "at": time.time_ns()}

    usual: dict[str, Any] = {
        "show_progress": "hidden",
        "concurrency_limit": None,  # in the queue: Gradio shows errors of such events alone
        "api_visibility": "private",
    }
    presets.save(save_form, form.inputs, presets, validator=form.check, **usual)
    presets.discard(discard, None, presets, **usual)
