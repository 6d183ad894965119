"""What the page does to find a mask in the sketcher's picture."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import gradio as gr

from engine import EngineError, InvalidRequest
from ui.form import Part
from ui.mask_from import (
    CLOTHES,
    SAM,
    MaskPanel,
    check_settings,
    found_mask,
    in_words,
    missing,
    submit_mask,
)
from ui.studio import Studio

FOUND = "The mask is on the picture; Undo takes it off"
Values = Mapping[Any, Any]
"""What the parts hold."""


def connect_mask(
    studio: Studio,
    demo: gr.Blocks,
    panel: MaskPanel,
    sketch: gr.HTML,
    owner_of: Callable[[gr.Request], str],
) -> None:
    """Let the button put a mask into the sketcher, and say what that takes.

    Args:
        studio: Its queue finds the mask.
        demo: The page, for what happens when it is opened.
        panel: The parts that ask for it.
        sketch: The sketcher.
        owner_of: Names the visitor.
    """
    parts = panel.settings

    def settings(values: Values) -> dict[str, Any]:
        return {name: values[part] for name, part in parts.items()}

    def need(held: Mapping[str, Any]) -> dict[Any, Any]:
        needed = missing(studio.library, held)
        return {panel.needed: needed, panel.button: gr.update(interactive="wrong" not in needed)}

    def show(values: Values) -> dict[Any, Any]:
        held = settings(values)
        shown = {
            parts["cloth"]: gr.update(visible=held["model"] == CLOTHES),
            parts["prompt"]: gr.update(visible=held["model"] == SAM),
            panel.finer: gr.update(visible=held["model"] == SAM),
        }
        is_looking = "job" in (values[panel.news] or {})
        return shown if is_looking else {**shown, **need(held), panel.news: {}}

    def check(values: Values) -> dict[Part, Any]:
        verdict = {
            part: gr.validate(is_valid=True, message="") for part in (sketch, *parts.values())
        }
        if not values[sketch]:
            no_picture = gr.validate(is_valid=False, message="Choose a picture first")
            return {**verdict, sketch: no_picture}
        try:
            check_settings(settings(values))
        except InvalidRequest as error:
            part = parts[error.field.removeprefix("mask_from.")]
            verdict[part] = gr.validate(is_valid=False, message=error.problem)
        return verdict

    async def find(values: Values, request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
        owner, held = owner_of(request), settings(values)
        try:
            job = await asyncio.to_thread(submit_mask, studio, values[sketch], held, owner)
            yield {panel.news: {"job": job}, panel.button: gr.update(interactive=False)}
            found = await found_mask(studio, job, values[sketch], owner)
            ended = (
                {panel.news: {}} if found is None else {panel.news: {"text": FOUND}, sketch: found}
            )
        except EngineError as error:
            ended = {panel.news: {"text": in_words(error), "wrong": True}}
        yield {**ended, **await asyncio.to_thread(need, held)}

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    told = [panel.button, panel.needed, panel.news]
    gr.on(
        [*(parts[name].change for name in ("model", "sam_model", "boxes_only")), demo.load],
        show,
        {*parts.values(), panel.news},
        [parts["cloth"], parts["prompt"], panel.finer, *told],
        queue=False,
        **quiet,
    )
    panel.button.click(
        find,
        {sketch, *parts.values()},
        [sketch, *told],
        validator=check,
        concurrency_limit=None,
        **quiet,
    )
