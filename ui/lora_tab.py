"""*LoRA*: a picture with any add-ons, as diffusers paints it. Holds the form of the LoRA studio and its events.

Everything it asks for lies in one request with a `studio` part, an ordinary job of the queue.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import gradio as gr

from engine import EngineError, InvalidRequest, TextRequest, plan
from engine.references import Reference, find_weights
from ui.form import Form, Part
from ui.form_events import RANDOM_SEEDS, remember, visitor
from ui.image_input import Upload, Uploads
from ui.notations import ADAPTER_ROWS, CONTROL_ROWS
from ui.problems import as_toast
from ui.studio import Studio

STORED_FORM = "pochade.lora"
"""Where the browser keeps the form."""
_FIELD = re.compile(r"((?:studio|advanced)\.[\w.]+|base_model): (.*)", re.DOTALL)
_NEEDED = {
    "studio.ic_light.path": "choose what lights the picture",
    "studio.ic_light.image": "choose the picture to light anew",
}
"""What is said where a part of IC-Light was left out."""
_FORM_FIELDS = {"base_model": "advanced.base_model"}
"""Fields that plans call otherwise."""


class LoraTab:
    """The form of the tab."""

    def __init__(self, studio: Studio, demo: gr.Blocks, fields: Mapping[str, Part]) -> None:
        """Connect what is laid out.

        Args:
            studio: What the tab works on.
            demo: The page, for what happens when it is opened.
            fields: Components by dotted field name.
        """
        self._studio = studio
        self.form = Form(TextRequest, fields, partial(_is_there, studio))
        # The prompt is that of the other tab too, which keeps it.
        self.keep = remember(self.form, demo, STORED_FORM, but=("prompt",))

    @property
    def parts(self) -> list[Part]:
        """What an event that fills the form answers."""
        return list(self.form.fields.values())

    def submit_on(self, generate: gr.Button, stage: gr.HTML) -> None:
        """Let a button queue what the form asks for."""
        generate.click(
            self._submit,
            self.form.inputs,
            stage,
            validator=self.check,
            show_progress="hidden",
            concurrency_limit=None,
            api_visibility="private",
        )

    def check(self, values: Mapping[Part, Any]) -> dict[Part, Any]:
        """Say of each component whether what it holds can be painted; a Gradio validator."""
        verdict = {it: gr.validate(is_valid=True, message="") for it in self.parts}
        try:
            plan(self.form.read(values), self._studio.library, seed=0)
        except EngineError as error:
            problem = _named(error)
            if problem is not None:
                verdict |= self._complain(problem, values)
        return verdict

    def show(self, named: Mapping[str, Any], owner: str) -> dict[Any, Any]:
        """Find what shows a request by dotted names; pictures are told of where they are gone."""
        lost = [name for name in _pictures_in(named) if self._find(name, owner) is None]
        if lost:
            gr.Warning("A picture that it was made with is not kept any more; choose it again")
        return self.form.show(named)

    def read(self, values: Mapping[Part, Any], owner: str) -> tuple[TextRequest, dict[str, bytes]]:
        """Read what the form asks for, and the files that it names.

        Raises:
            InvalidRequest: a field breaks its rule, or a picture is not here any more.
        """
        asked = self.form.read(values)
        return asked, {
            name: self._uploads(field).find(name, owner, field).path.read_bytes()
            for field, name in pictures_of(asked)
        }

    @contextmanager
    def in_words(self, values: Mapping[Part, Any]) -> Iterator[None]:
        """Name the part that an error is about as the page does: ``ControlNet 2, drawing``.

        Raises:
            InvalidRequest: in place of an error about a part of the form; other errors go on as they are.
        """
        try:
            yield
        except EngineError as error:
            problem = _named(error)
            told = {} if problem is None else self._complain(problem, values)
            for part, verdict in told.items():
                raise InvalidRequest(str(part.label), verdict["message"]) from error
            raise

    def _submit(self, values: Mapping[Part, Any], request: gr.Request) -> dict[str, Any]:
        studio, owner = self._studio, visitor(self._studio, request)
        with as_toast(), self.in_words(values):
            asked, files = self.read(values, owner)
            wanted = plan(asked, studio.library, seed=secrets.randbelow(RANDOM_SEEDS))
            job = studio.jobs.submit(wanted, owner=owner, inputs=files)
        return {"job": job, "notes": list(wanted.notes)}

    def _complain(self, error: InvalidRequest, values: Mapping[Part, Any]) -> dict[Part, Any]:
        name = self.form.part_of(error.field)
        if name in _NEEDED and not values[self.form.fields[name]]:
            return self.form.complain(InvalidRequest(error.field, _NEEDED[name]), values)
        return self.form.complain(error, values)

    def _uploads(self, field: str) -> Uploads:
        if self._studio.uploads is None:
            raise InvalidRequest(field, "this studio takes no pictures")
        return self._studio.uploads

    def _find(self, name: str, owner: str) -> Upload | None:
        try:
            return self._uploads("picture").find(name, owner)
        except InvalidRequest:
            return None


def pictures_of(asked: TextRequest) -> list[tuple[str, str]]:
    """List the pictures that a request of the studio names: the field and the name of each."""
    if asked.studio is None:
        return []
    lists = (
        ("controlnets", CONTROL_ROWS, asked.studio.controlnets),
        ("ip_adapters", ADAPTER_ROWS, asked.studio.ip_adapters),
    )
    found = [
        (f"studio.{field}.{place}.{leaf}", name)
        for field, rows, items in lists
        for place, item in enumerate(items)
        for leaf, name in rows.pictures(item)
    ]
    light = asked.studio.ic_light
    if light is not None:
        found.append(("studio.ic_light.image", light.image))
        if light.background is not None:
            found.append(("studio.ic_light.background", light.background))
    return found


def _pictures_in(named: Mapping[str, Any]) -> list[str]:
    """List the pictures that dotted fields name."""
    lists = (named.get("studio.controlnets") or (), named.get("studio.ip_adapters") or ())
    items = [item for items in lists for item in items if isinstance(item, Mapping)]
    single = [item.get(leaf) for item in items for leaf in ("image", "mask")]
    single += [named.get(f"studio.ic_light.{leaf}") for leaf in ("image", "background")]
    several = [name for item in items for name in item.get("images") or ()]
    return [name for name in (*single, *several) if isinstance(name, str) and name]


def _named(error: EngineError) -> InvalidRequest | None:
    """Read which field of the form an error is about; None where it is about none."""
    if isinstance(error, InvalidRequest):
        field, problem = error.field, error.problem
    else:
        found = _FIELD.fullmatch(str(error))
        if found is None:
            return None
        field, problem = found.groups()
    return InvalidRequest(_FORM_FIELDS.get(field, field), problem)


def _is_there(studio: Studio, name: str, value: Any) -> bool:
    """Say whether what a field names can be had."""
    if name != "advanced.base_model" or value is None:
        return True
    try:
        find_weights(
            studio.catalog,
            "checkpoint",
            Reference(path=value),
            name,
            studio.library.may_fetch,
        )
    except EngineError:
        return False
    return True
