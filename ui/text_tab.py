"""*Text*: a picture from words. Holds the form and its events; the stage and the queue are drawn by the browser."""

import json
import secrets
from collections.abc import Mapping
from typing import Any

import gradio as gr

from engine import TextRequest, plan
from ui.form import Form, Part, component, flat
from ui.problems import as_toast
from ui.reuse import reused
from ui.settings import settings
from ui.studio import Studio
from ui.theme import STATIC, island

STORED_FORM = "pochade.text"
"""Where the browser keeps the form."""
STORED_SECRET = "pochade"
"""Fixed, so that a restart of the server forgets nothing; what is stored is the visitor's own text."""
RANDOM_SEEDS = 2**53
"""Random seeds stay below, so that a program in JavaScript can repeat them (design D13)."""


def text_tab(studio: Studio, demo: gr.Blocks, tabs: gr.Tabs) -> None:
    """Lay out the tab and connect it.

    Args:
        studio: What the tab works on.
        demo: The page, for what happens when it is opened.
        tabs: Holds the tab ``text``, which *reuse* switches to.
    """
    preset = dict(flat(studio.preset))
    fields: dict[str, Part] = {}
    with gr.Row(elem_id="desk"):
        with gr.Column(elem_id="easel", min_width=0):
            stage = island("stage.js", "stage", events=("reuse",))
            with gr.Row(elem_id="bench"):
                fields["prompt"] = _prompt(preset)
                with gr.Column(elem_id="actions", scale=0, min_width=0):
                    generate = gr.Button("Generate", variant="primary", elem_id="generate")
                    island("controls.js", "controls")
            island("strip.js", "strip")
        with gr.Column(elem_id="settings", scale=0, min_width=0):
            fields |= settings(studio.catalog, preset)
    form = Form(TextRequest, fields)
    _submit(studio, form, generate, stage)
    _reuse(studio, form, stage, tabs)
    _remember(form, demo)


def _prompt(preset: Mapping[str, Any]) -> Part:
    return component(
        TextRequest,
        "prompt",
        preset,
        lines=3,
        max_lines=8,
        show_label=False,
        info=None,
        container=False,
        autofocus=True,
        placeholder="Describe a picture",
        html_attributes=gr.InputHTMLAttributes(enterkeyhint="done"),
    )


def _submit(studio: Studio, form: Form[TextRequest], generate: gr.Button, stage: gr.HTML) -> None:
    def submit(values: Mapping[Part, Any], request: gr.Request) -> str:
        with as_toast():
            wanted = plan(form.read(values), studio.library, seed=secrets.randbelow(RANDOM_SEEDS))
            return studio.jobs.submit(wanted, owner=_visitor(studio, request))

    generate.click(
        submit,
        form.inputs,
        stage,
        validator=form.check,
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
    )


def _reuse(studio: Studio, form: Form[TextRequest], stage: gr.HTML, tabs: gr.Tabs) -> None:
    def reuse(event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        with as_toast():
            image = studio.jobs.image(event.image, owner=_visitor(studio, request))
            wanted = dict(flat(reused(image, event.what)))
        return {**form.show(wanted), tabs: gr.Tabs(selected="text")}

    stage.reuse(
        reuse,
        None,
        [*form.fields.values(), tabs],
        show_progress="hidden",
        queue=False,
        api_visibility="private",
    )


def _visitor(studio: Studio, request: gr.Request) -> str:
    assert request.request is not None  # none only outside of a server
    return studio.owner_of(request.request)


def _remember(form: Form[TextRequest], demo: gr.Blocks) -> None:
    """Keep the form in the browser, so that a reload brings it back."""
    stored = gr.BrowserState(None, storage_key=STORED_FORM, secret=STORED_SECRET)
    names, parts = list(form.fields), list(form.fields.values())
    keep = (STATIC / "keep.js").read_text(encoding="utf-8")

    def restore(kept: object) -> dict[Part, Any]:
        return form.show(form.kept(kept)) or {parts[0]: gr.skip()}

    demo.load(restore, stored, parts, show_progress="hidden", queue=False, api_visibility="private")
    gr.on(
        [part.change for part in parts],
        None,
        parts,
        stored,
        js=f"({keep})({json.dumps(names)})",
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
