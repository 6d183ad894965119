"""Components named after the request fields they fill.

Labels, help, ranges and choices come from the request model; this file only chooses the kind of component. Knows nothing
of what a field means.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

import gradio as gr
from gradio.blocks import Block
from pydantic import BaseModel

from engine import InvalidRequest, TextRequest
from engine.requests import bounds, choices, knob

R = TypeVar("R", bound=TextRequest)
Part = gr.Textbox | gr.Radio | gr.Dropdown | gr.Checkbox | gr.Slider
"""A component that can stand for a field."""

FEW = 3
"""A choice of at most so many values is shown as buttons, a longer one as a list."""


@dataclass(frozen=True)
class Form(Generic[R]):
    """The components of one request; a field of the nested part is named ``advanced.sampler``."""

    model: type[R]
    fields: Mapping[str, Part]

    @property
    def inputs(self) -> set[Block]:
        """What an event that reads the form takes."""
        return set(self.fields.values())

    def read(self, values: Mapping[Part, Any]) -> R:
        """Turn what the components hold into a request.

        Raises:
            InvalidRequest: a field breaks its rule.
        """
        return self._parse({name: values[part] for name, part in self.fields.items()})

    def check(self, values: Mapping[Part, Any]) -> dict[Part, Any]:
        """Say of each component whether it holds what its field allows; a Gradio validator."""
        verdict = {part: gr.validate(is_valid=True, message="") for part in self.fields.values()}
        try:
            self.read(values)
        except InvalidRequest as error:
            if error.field in self.fields:
                verdict[self.fields[error.field]] = gr.validate(
                    is_valid=False, message=error.problem
                )
        return verdict

    def show(self, named: Mapping[str, Any]) -> dict[Part, Any]:
        """Find the values that show a request by dotted names; what it lacks stays as it is."""
        return {
            part: gr.update(value=as_text(value) if isinstance(part, gr.Textbox) else value)
            for name, value in named.items()
            if (part := self.fields.get(name)) is not None
        }

    def kept(self, stored: object) -> dict[str, Any]:
        """Keep what still is a value of its field from a form that a browser stored, by dotted name.

        A newer studio may have other fields and ranges; what no longer fits is dropped and the rest is kept.
        """
        good: dict[str, Any] = {}
        for name, value in stored.items() if isinstance(stored, Mapping) else ():
            if name not in self.fields:
                continue
            try:
                self._parse({name: value})
            except InvalidRequest:
                continue
            if _is_offered(self.fields[name], value):
                good[name] = value
        return good

    def _parse(self, named: Mapping[str, Any]) -> R:
        """Check values by dotted name; a box that was emptied gives none where its field may have none."""
        return self.model.parse(
            nested(
                {
                    name: None if value == "" and _may_be_none(self.model, name) else value
                    for name, value in named.items()
                }
            )
        )


def _is_offered(part: Part, value: object) -> bool:
    """Say whether a component can hold a value: one with fixed choices holds only these."""
    if not isinstance(part, gr.Dropdown) or part.allow_custom_value:
        return True
    return value in [choice for _, choice in part.choices]


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``{"advanced.sampler": x}`` into ``{"advanced": {"sampler": x}}``."""
    tree: dict[str, Any] = {}
    for name, value in named.items():
        *parents, leaf = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return tree


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk a nested request as dotted names and values; the opposite of `nested`."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def as_text(value: Any) -> str:
    """Write a value for a text box; none is an empty one."""
    return "" if value is None else str(value)


def component(
    model: type[BaseModel],
    name: str,
    preset: Mapping[str, Any],
    *,
    kind: type[Part] | None = None,
    **look: Any,
) -> Part:
    """Make the component of one field.

    Args:
        model: Holds the field.
        name: Of the field, dotted where it is nested.
        preset: Values by dotted name that win over the field's own default.
        kind: The component's class, where it is not the usual one of the field's type.
        look: Further arguments of the component.
    """
    owner, leaf = _owner(model, name)
    facts, field = knob(owner, leaf), owner.model_fields[leaf]
    usual, arguments = _usual(owner, leaf)
    chosen = kind or usual
    value = preset.get(name, field.default)
    return chosen(
        **{
            **arguments,
            "label": facts.label,
            "info": facts.help,
            "value": as_text(value) if chosen is gr.Textbox else value,
            "elem_id": leaf,
            **look,
        }
    )


def _usual(owner: type[BaseModel], leaf: str) -> tuple[type[Part], dict[str, Any]]:
    """Choose a component by the type of a field, with the arguments that only this component has."""
    annotation = owner.model_fields[leaf].annotation
    kinds = set(get_args(annotation) or (annotation,))
    if get_origin(annotation) is Literal:
        values = choices(owner, leaf)
        return gr.Radio if len(values) <= FEW else gr.Dropdown, {"choices": values}
    if kinds == {bool}:
        return gr.Checkbox, {}
    step = knob(owner, leaf).step
    if step is None or NoneType in kinds:
        # A number that may be left out is text too: Gradio's own number box turns an empty value into 0.
        return gr.Textbox, {}
    low, high = bounds(owner, leaf)
    return gr.Slider, {"minimum": low, "maximum": high, "step": step}


def _owner(model: type[BaseModel], name: str) -> tuple[type[BaseModel], str]:
    """Find the model that holds a dotted field, and the field's own name there."""
    *parents, leaf = name.split(".")
    for parent in parents:
        inner = model.model_fields[parent].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return model, leaf


def _may_be_none(model: type[BaseModel], name: str) -> bool:
    owner, leaf = _owner(model, name)
    return NoneType in get_args(owner.model_fields[leaf].annotation)
