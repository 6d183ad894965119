"""*Text*: a picture from words. Holds the form and its events; the stage and the queue are drawn by the browser."""

import json
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gradio as gr

from engine import EngineError, TextRequest, plan
from engine.records.literals import json_object
from ui.form import Form, Part, component, flat, nested
from ui.mask_events import connect_mask
from ui.picture_values import PICTURES, PicturesPanel
from ui.pictures_panel import pictures_panel
from ui.preset_events import choose_preset, connect_presets
from ui.problems import as_toast
from ui.reuse import reused
from ui.settings import settings
from ui.start import start_of
from ui.studio import Studio
from ui.theme import STATIC, island

STORED_FORM = "pochade.text"
"""Where the browser keeps the form."""
STORED_SECRET = "pochade"
"""Fixed, so that a restart of the server forgets nothing; what is stored is the visitor's own text."""
RANDOM_SEEDS = 2**53
"""Random seeds stay below, so that a program in JavaScript can repeat them (design D13)."""

Find = Callable[[gr.EventData, gr.Request], Mapping[str, Any]]
"""From an event of the page to what the form shows after it, by dotted field name."""


def text_tab(studio: Studio, demo: gr.Blocks, tabs: gr.Tabs) -> None:
    """Lay out the tab and connect it.

    Args:
        studio: What the tab works on.
        demo: The page, for what happens when it is opened.
        tabs: Holds the tab ``text``, which *reuse* switches to.
    """
    start = start_of(studio.library, studio.preset)
    fields: dict[str, Part] = {}
    with gr.Row(elem_id="desk"):
        with gr.Column(elem_id="easel", min_width=0):
            stage = island("stage.js", "stage", events=("reuse",))
            reader = island("dropped.js", "reader", events=("use",))
            with gr.Row(elem_id="bench"):
                fields["prompt"] = _prompt(start)
                with gr.Column(elem_id="actions", scale=0, min_width=0):
                    generate = gr.Button("Generate", variant="primary", elem_id="generate")
                    island("controls.js", "controls")
            panel = pictures_panel(start, can_bring=studio.uploads is not None)
            island("strip.js", "strip")
        with gr.Column(elem_id="settings", scale=0, min_width=0):
            column = settings(
                start,
                can_refresh=studio.read_library is not None,
                can_save=studio.presets_dir is not None,
            )
    fields["image_prompts"] = panel.slots
    form = Form(TextRequest, {**fields, **column.fields}, partial(_is_there, studio))
    _submit(studio, form, panel, generate, stage)
    connect_mask(studio, demo, panel.mask, panel.sketch, partial(_visitor, studio))
    keep = _remember(form, demo)

    def show(named: Mapping[str, Any], request: gr.Request) -> dict[Any, Any]:
        pictures = _pictures(studio, panel, named, _visitor(studio, request))
        return {**form.show(named), **pictures, tabs: gr.Tabs(selected="text")}

    parts = [*dict.fromkeys((*form.fields.values(), *panel.inputs)), tabs]
    fill = partial(_fill, show, parts, keep)
    fill(stage.reuse, partial(_reused, studio))
    fill(reader.use, partial(_dropped, form))
    fill(column.presets.choose, partial(choose_preset, studio, start))
    connect_presets(studio, form, column.presets)


def _prompt(start: Mapping[str, Any]) -> Part:
    return component(
        TextRequest,
        "prompt",
        start,
        lines=3,
        max_lines=8,
        show_label=False,
        info=None,
        container=False,
        autofocus=True,
        placeholder="Describe a picture",
        html_attributes=gr.InputHTMLAttributes(enterkeyhint="done"),
    )


def _submit(
    studio: Studio,
    form: Form[TextRequest],
    panel: PicturesPanel,
    generate: gr.Button,
    stage: gr.HTML,
) -> None:
    def submit(values: Mapping[Part, Any], request: gr.Request) -> dict[str, Any]:
        owner = _visitor(studio, request)
        with as_toast(), panel.in_words(values):
            asked, files = panel.read(form.read(values), values, studio.uploads, owner)
            wanted = plan(asked, studio.library, seed=secrets.randbelow(RANDOM_SEEDS))
            job = studio.jobs.submit(wanted, owner=owner, inputs=files)
        return {"job": job, "notes": list(wanted.notes)}

    generate.click(
        submit,
        {*form.inputs, *panel.inputs},
        stage,
        validator=form.check,
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
    )


def _fill(
    show: Callable[[Mapping[str, Any], gr.Request], dict[Any, Any]],
    parts: list[Any],
    keep: Callable[[Any], object],
    event: Callable[..., Any],
    find: Find,
) -> None:
    """Let an event of the page fill the form, and bring it to sight."""

    def fill(event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        with as_toast("The form cannot show this"):
            return show(find(event, request), request)

    filled = event(
        fill,
        None,
        parts,
        show_progress="hidden",
        concurrency_limit=None,  # in the queue: Gradio shows errors of such events alone
        api_visibility="private",
    )
    keep(filled.then)


def _pictures(
    studio: Studio, panel: PicturesPanel, named: Mapping[str, Any], owner: str
) -> dict[Part, Any]:
    """Find what shows the pictures of a request by dotted names; nothing where it speaks of none."""
    given = nested({name: it for name, it in named.items() if name.split(".")[0] in PICTURES})
    if not given:
        return {}
    shown, lost = panel.show(given, studio.uploads, owner)
    if lost:
        gr.Warning("A picture that it was made from is not kept any more; choose it again")
    return shown


def _reused(studio: Studio, event: gr.EventData, request: gr.Request) -> dict[str, Any]:
    image = studio.jobs.image(event.image, owner=_visitor(studio, request))
    return dict(flat(reused(image, event.what)))


def _dropped(form: Form[TextRequest], event: gr.EventData, request: gr.Request) -> dict[str, Any]:
    """Take what the page read out of a picture; it comes from a browser, so each value is looked at again."""
    given = json_object(str(event.fields)) or {}
    return {
        name: value
        for name, value in given.items()
        if name.split(".")[0] in PICTURES or form.fits(name, value)
    }


def _visitor(studio: Studio, request: gr.Request) -> str:
    assert request.request is not None  # none only outside of a server
    return studio.owner_of(request.request)


def _is_there(studio: Studio, name: str, value: Any) -> bool:
    """Say whether the file that a field names can be had."""
    find: dict[str, Callable[[str], object]] = {
        "advanced.base_model": studio.catalog.checkpoint,
        "refiner_model": studio.catalog.checkpoint,
        "advanced.vae": studio.catalog.vae,
    }
    if value is None or name not in find:
        return True
    try:
        find[name](value)
    except EngineError:
        return False
    return True


def _remember(form: Form[TextRequest], demo: gr.Blocks) -> Callable[[Any], object]:
    """Keep the form in the browser, so that a reload brings it back.

    Returns:
        What makes a further event keep it: parts that were never in sight tell of no change.
    """
    stored = gr.BrowserState(None, storage_key=STORED_FORM, secret=STORED_SECRET)
    names, parts = list(form.fields), list(form.fields.values())
    script = (STATIC / "keep.js").read_text(encoding="utf-8")

    def restore(kept: object) -> dict[Part, Any]:
        return form.show_kept(kept) or {parts[0]: gr.skip()}

    def keep(listen: Callable[..., object]) -> object:
        return listen(
            None,
            parts,
            stored,
            js=f"({script})({json.dumps(names)})",
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )

    demo.load(restore, stored, parts, show_progress="hidden", queue=False, api_visibility="private")
    keep(partial(gr.on, [part.change for part in parts]))
    return keep
