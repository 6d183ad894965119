"""*Text*: a picture from words, and from pictures, as Fooocus paints it. Holds the form and its events."""

import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any

import gradio as gr

from engine import EngineError, TextRequest, plan
from ui.describe_panel import connect_describe
from ui.form import Form, Part, nested
from ui.form_events import RANDOM_SEEDS, remember, visitor
from ui.mask_events import connect_mask
from ui.picture_values import PICTURES, PicturesPanel
from ui.problems import as_toast
from ui.studio import Studio

STORED_FORM = "pochade.text"
"""Where the browser keeps the form."""


class TextTab:
    """The form of the tab, and its pictures."""

    def __init__(
        self,
        studio: Studio,
        demo: gr.Blocks,
        fields: Mapping[str, Part],
        panel: PicturesPanel,
    ) -> None:
        """Connect what is laid out.

        Args:
            studio: What the tab works on.
            demo: The page, for what happens when it is opened.
            fields: Components by dotted field name, but for the panel's.
            panel: The pictures.
        """
        self._studio = studio
        self._panel = panel
        every = {**fields, "image_prompts": panel.slots}
        self.form = Form(TextRequest, every, partial(_is_there, studio))
        self.keep = remember(self.form, demo, STORED_FORM)
        connect_mask(studio, demo, panel.mask, panel.sketch, partial(visitor, studio))
        connect_describe(studio, panel.describe, self.form, partial(visitor, studio))

    @property
    def parts(self) -> list[Part]:
        """What an event that fills the form answers."""
        return [*dict.fromkeys((*self.form.fields.values(), *self._panel.inputs))]

    def submit_on(self, generate: gr.Button, stage: gr.HTML) -> None:
        """Let a button queue what the form asks for."""
        generate.click(
            self._submit,
            {*self.form.inputs, *self._panel.inputs},
            stage,
            validator=self.form.check,
            show_progress="hidden",
            concurrency_limit=None,
            api_visibility="private",
        )

    def show(self, named: Mapping[str, Any], owner: str) -> dict[Any, Any]:
        """Find what shows a request by dotted names, with its pictures as far as they are here."""
        return {**self.form.show(named), **self._show_pictures(named, owner)}

    def _submit(self, values: Mapping[Part, Any], request: gr.Request) -> dict[str, Any]:
        studio, panel = self._studio, self._panel
        owner = visitor(studio, request)
        with as_toast(), panel.in_words(values):
            asked, files = panel.read(self.form.read(values), values, studio.uploads, owner)
            wanted = plan(asked, studio.library, seed=secrets.randbelow(RANDOM_SEEDS))
            job = studio.jobs.submit(wanted, owner=owner, inputs=files)
        return {"job": job, "notes": list(wanted.notes)}

    def _show_pictures(self, named: Mapping[str, Any], owner: str) -> dict[Part, Any]:
        """Find what shows the pictures; nothing where the request speaks of none."""
        given = nested({name: it for name, it in named.items() if name.split(".")[0] in PICTURES})
        if not given:
            return {}
        shown, lost = self._panel.show(given, self._studio.uploads, owner)
        if lost:
            gr.Warning("A picture that it was made from is not kept any more; choose it again")
        return shown


def _is_there(studio: Studio, name: str, value: Any) -> bool:
    """Say whether the file that a field names can be had."""
    find: dict[str, Any] = {
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
