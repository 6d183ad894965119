"""What every form on the page does: fill itself from an event, and stay in the browser over a reload."""

import json
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import gradio as gr

from ui.form import Form, Part
from ui.studio import Studio
from ui.theme import STATIC

STORED_SECRET = "pochade"
"""Fixed, so that a restart of the server forgets nothing; what is stored is the visitor's own text."""
RANDOM_SEEDS = 2**53
"""Random seeds stay below, so that a program in JavaScript can repeat them (design D13)."""

Keep = Callable[[Any], object]
"""Makes a further event keep a form: parts that were never in sight tell of no change."""


def visitor(studio: Studio, request: gr.Request) -> str:
    """Name whose jobs and pictures a visitor sees."""
    assert request.request is not None  # none only outside of a server
    return studio.owner_of(request.request)


def remember(form: Form[Any], demo: gr.Blocks, key: str, *, but: Collection[str] = ()) -> Keep:
    """Keep a form in the browser, so that a reload brings it back.

    Args:
        form: What is kept.
        demo: The page, for what happens when it is opened.
        key: Where the browser keeps it.
        but: Fields that another form keeps.
    """
    stored = gr.BrowserState(None, storage_key=key, secret=STORED_SECRET)
    kept = {name: part for name, part in form.fields.items() if name not in but}
    names, parts = list(kept), list(kept.values())
    script = (STATIC / "keep.js").read_text(encoding="utf-8")

    def restore(held: object) -> dict[Part, Any]:
        return form.show_kept(held) or {parts[0]: gr.skip()}

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


def appear_on(asks: gr.HTML, column: gr.Column) -> None:
    """Put a column on the page when a part of ours asks for it by ``open``."""
    script = (STATIC / "appear.js").read_text(encoding="utf-8")
    asks.open(None, None, column, js=script, show_progress="hidden", api_visibility="private")
