"""The desk: stage, prompt and queue, which the tabs *Text* and *LoRA* share, and beside it the settings of either."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from engine import TextRequest
from engine.records.literals import json_object
from jobs import ImageView, Jobs, JobView
from ui.cost import connect_costs, cost_lines
from ui.form import Part, component, flat
from ui.form_events import appear_on, visitor
from ui.lora_settings import lora_settings
from ui.lora_tab import LoraTab
from ui.picture_values import PICTURES
from ui.pictures_panel import pictures_panel
from ui.preset_events import choose_preset, connect_presets
from ui.problems import as_toast
from ui.reuse import reused, reused_job
from ui.settings import settings
from ui.sheet_panel import connect_sheet, sheet_panel
from ui.start import lora_start_of, start_of
from ui.studio import Studio
from ui.text_tab import TextTab
from ui.theme import island

TEXT, LORA = "text", "lora"
"""The tabs, as Gradio knows them."""
Named = Mapping[str, Any]
"""What a form shows, by dotted field name."""


def desk(studio: Studio, demo: gr.Blocks, tabs: gr.Tabs) -> None:
    """Lay out the desk and connect it.

    Args:
        studio: What the page works on.
        demo: The page, for what happens when it is opened.
        tabs: Holds the tabs ``text`` and ``lora``, between which *reuse* chooses.
    """
    start = start_of(studio.library, studio.preset)
    lora_start = lora_start_of(studio.library, start)
    can_bring = studio.uploads is not None
    with gr.Row(elem_id="desk"):
        with gr.Column(elem_id="easel", min_width=0):
            stage = island("stage.js", "stage", events=("reuse",))
            mode = island("mode.js", "mode", events=("open",))
            reader = island("dropped.js", "reader", events=("use",))
            with gr.Row(elem_id="bench"):
                prompt = _prompt(start)
                with gr.Column(elem_id="actions", scale=0, min_width=0):
                    generate = _generate("generate", "for_text")
                    generate_lora = _generate("lora_generate", "for_lora")
                    island("controls.js", "controls")
            costs = cost_lines(studio, "for_text", "for_lora")
            panel = pictures_panel(start, can_bring=can_bring)
            sheet = sheet_panel()
            island("strip.js", "strip")
        with gr.Column(elem_id="settings", scale=0, min_width=0):
            column = settings(
                start,
                can_refresh=studio.read_library is not None,
                can_save=studio.presets_dir is not None,
            )
            with gr.Column(elem_id="lora_settings", min_width=0, visible=False) as lora_column:
                lora_fields = lora_settings(
                    lora_start,
                    can_bring=can_bring,
                    can_refresh=studio.read_library is not None,
                )
    appear_on(mode, lora_column)
    text = TextTab(studio, demo, {"prompt": prompt, **column.fields}, panel)
    text.submit_on(generate, stage)
    lora = LoraTab(studio, demo, {"prompt": prompt, **lora_fields})
    lora.submit_on(generate_lora, stage)
    connect_sheet(studio, lora, sheet)
    connect_costs(studio, demo, costs, text.form, lora.form)
    connect_presets(studio, text.form, column.presets)
    parts = [*dict.fromkeys((*text.parts, *lora.parts)), tabs]

    def fill_on(event: Any, find: Any) -> None:
        """Let an event of the page fill the form that it is about, and bring that to sight."""

        def fill(event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
            with as_toast("The form cannot show this"):
                chosen, named = find(event, request)
                tab = lora if chosen == LORA else text
                return {**tab.show(named, visitor(studio, request)), tabs: gr.Tabs(selected=chosen)}

        filled = event(
            fill,
            None,
            parts,
            show_progress="hidden",
            concurrency_limit=None,  # in the queue: Gradio shows errors of such events alone
            api_visibility="private",
        )
        text.keep(filled.then)
        lora.keep(filled.then)

    def find_reused(event: gr.EventData, request: gr.Request) -> tuple[str, Named]:
        return _reused(studio.jobs, event, visitor(studio, request))

    def find_dropped(event: gr.EventData, request: gr.Request) -> tuple[str, Named]:
        # It comes from a browser, so each value is looked at again.
        given = json_object(str(event.fields)) or {}
        chosen = LORA if any(name.startswith("studio.") for name in given) else TEXT
        form = lora.form if chosen == LORA else text.form
        return chosen, {
            name: value
            for name, value in given.items()
            if name.split(".")[0] in PICTURES or form.fits(name, value)
        }

    def find_preset(event: gr.EventData, request: gr.Request) -> tuple[str, Named]:
        return TEXT, choose_preset(studio, start, event, request)

    fill_on(stage.reuse, find_reused)
    fill_on(reader.use, find_dropped)
    fill_on(column.presets.choose, find_preset)


def _reused(jobs: Jobs, event: gr.EventData, owner: str) -> tuple[str, Named]:
    """Find what a picture asked for, or, of a picture grid, all of its job; and the tab that it comes from."""
    if event.job:
        job = jobs.job(event.job, owner=owner)
        return _tab_of(job), dict(flat(reused_job(job)))
    image = jobs.image(event.image, owner=owner)
    return _tab_of(image), dict(flat(reused(image, event.what)))


def _tab_of(made: ImageView | JobView) -> str:
    """Say which tab a picture or a job comes from."""
    return LORA if made.plan is not None and made.plan.studio is not None else TEXT


def _generate(elem_id: str, used: str) -> gr.Button:
    return gr.Button(
        "Generate", variant="primary", elem_id=elem_id, elem_classes=["generate", used]
    )


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
