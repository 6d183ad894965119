"""Components named after the request fields they fill.

Labels, help, ranges and choices come from the request model; this file only chooses the kind of component. Knows nothing
of what a field means.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

import gradio as gr
from gradio.blocks import Block
from pydantic import BaseModel

from engine import InvalidRequest, TextRequest
from engine.knobs import bounds, choices, knob
from ui.notations import NOTATIONS
from ui.theme import island

R = TypeVar("R", bound=TextRequest)
Part = gr.Textbox | gr.Radio | gr.Dropdown | gr.Checkbox | gr.CheckboxGroup | gr.Slider | gr.HTML
"""A component that can stand for a field."""

USUAL = "Usual"
"""What is chosen where a choice is left open."""
FEW = 3
"""A choice of at most so many values is shown as buttons, a longer one as a list."""


@dataclass(frozen=True)
class Form(Generic[R]):
    """The components of one request; a field of the nested part is named ``advanced.sampler``.

    A nested part that may be none has a switch of its own name, such as ``advanced.freeu`` beside ``advanced.freeu.b1``.
    """

    model: type[R]
    fields: Mapping[str, Part]
    is_there: Callable[[str, Any], bool] = lambda name, value: True
    """Says of a field's name and value whether what is named is there; asked for what a browser stored."""

    @property
    def inputs(self) -> set[Block]:
        """What an event that reads the form takes."""
        return set(self.fields.values())

    def read(self, values: Mapping[Part, Any]) -> R:
        """Turn what the components hold into a request.

        Raises:
            InvalidRequest: a field breaks its rule.
        """
        return self._parse({name: _read(name, values[part]) for name, part in self.fields.items()})

    def check(self, values: Mapping[Part, Any]) -> dict[Part, Any]:
        """Say of each component whether it holds what its field allows; a Gradio validator."""
        verdict = {part: gr.validate(is_valid=True, message="") for part in self.fields.values()}
        try:
            self.read(values)
        except InvalidRequest as error:
            verdict |= self.complain(error, values)
        return verdict

    def complain(self, error: InvalidRequest, values: Mapping[Part, Any]) -> dict[Part, Any]:
        """Say what is wrong at the part that an error is about; nothing where there is no such part."""
        name = self.part_of(error.field)
        if name is None:
            return {}
        part, place = self.fields[name], error.field[len(name) + 1 :]
        problem = error.problem
        if name in NOTATIONS:
            problem = NOTATIONS[name].told(values[part], place, problem)
        return {part: gr.validate(is_valid=False, message=problem)}

    def part_of(self, field: str) -> str | None:
        """Name the part that stands for a field, or for what holds it: ``loras`` for ``loras.0.path``."""
        while field and field not in self.fields:
            field = field.rpartition(".")[0]
        return field or None

    def show(self, named: Mapping[str, Any]) -> dict[Part, Any]:
        """Find the values that show a request by dotted names; what it lacks stays as it is."""
        shown = dict(named)
        for switch in self._switches:
            if any(name.startswith(f"{switch}.") for name in named):
                shown[switch] = True
            elif switch in named:
                shown[switch] = bool(named[switch])
        return {
            part: gr.update(value=_written(name, part, value))
            for name, value in shown.items()
            if (part := self.fields.get(name)) is not None
        }

    def show_kept(self, stored: object) -> dict[Part, Any]:
        """Find the values that show a form again that a browser stored."""
        return {
            self.fields[name]: gr.update(value=value) for name, value in self.kept(stored).items()
        }

    def kept(self, stored: object) -> dict[str, Any]:
        """Keep what still is a value of its field from a form that a browser stored, by dotted name.

        A newer studio may have other fields and ranges; what no longer fits is dropped and the rest is kept.
        """
        good: dict[str, Any] = {}
        for name, value in stored.items() if isinstance(stored, Mapping) else ():
            if name not in self.fields:
                continue
            notation = NOTATIONS.get(name)
            if notation is not None and notation.good is not None:
                good[name] = notation.good(value)
            elif self.fits(name, _read(name, value)):
                good[name] = value
        return good

    def fits(self, name: str, value: Any) -> bool:
        """Say whether a value may stand in a field, by dotted name."""
        part = self.fields.get(name)
        if part is None:
            return False
        if name in self._switches:
            return value is None or isinstance(value, bool | Mapping)
        try:
            self._parse({name: value})
        except InvalidRequest as error:
            # A part may need more than this field.
            if self.part_of(error.field) == name:
                return False
        return _is_offered(part, value) and self.is_there(name, value)

    @property
    def _switches(self) -> list[str]:
        parents = {name.rpartition(".")[0] for name in self.fields}
        return [name for name in self.fields if name in parents]

    def _parse(self, named: Mapping[str, Any]) -> R:
        """Check values by dotted name; a box that was emptied gives none where its field may have none."""
        given = {
            name: None if value == "" and _may_be_none(self.model, name) else value
            for name, value in named.items()
        }
        for switch in self._switches:
            if given.get(switch) is True:
                given[switch] = {}
            elif given.get(switch, True) in (None, False):
                kept = (name for name in given if not name.startswith(f"{switch}."))
                given = {**{name: given[name] for name in kept}, switch: None}
        return self.model.parse(nested(given))


def _read(name: str, held: Any) -> Any:
    """Turn what a part holds into the value of its field."""
    return NOTATIONS[name].read(held) if name in NOTATIONS else held


def _written(name: str, part: Part, value: Any) -> Any:
    """Turn a field's value into what its part holds."""
    if name in NOTATIONS:
        return NOTATIONS[name].write(value)
    if value is None and isinstance(part, gr.Dropdown):
        return ""
    return as_text(value) if isinstance(part, gr.Textbox) else value


def _is_offered(part: Part, value: object) -> bool:
    """Say whether a component can hold a value: one with fixed choices holds only these."""
    if not isinstance(part, gr.Dropdown) or part.allow_custom_value:
        return True
    return ("" if value is None else value) in [choice for _, choice in part.choices]


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``{"advanced.sampler": x}`` into ``{"advanced": {"sampler": x}}``; a part stands before its own fields."""
    tree: dict[str, Any] = {}
    for name, value in sorted(named.items(), key=lambda item: item[0].count(".")):
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
    facts = knob(owner, leaf)
    usual, arguments = _usual(owner, leaf)
    chosen = kind or usual
    value = _first(owner, name, preset)
    if name in NOTATIONS:
        value = NOTATIONS[name].write(value)
    elif chosen is gr.Textbox or (chosen is gr.Dropdown and value is None):
        value = as_text(value)
    return chosen(
        **{
            **arguments,
            "label": facts.label,
            "info": facts.help,
            "value": value,
            "elem_id": leaf,
            **look,
        }
    )


def drawn(
    model: type[BaseModel],
    name: str,
    preset: Mapping[str, Any],
    module: str,
    *,
    elem_id: str | None = None,
    classes: tuple[str, ...] = (),
    events: tuple[str, ...] = (),
    **facts: Any,
) -> gr.HTML:
    """Make the component of one field that one of our modules draws.

    Args:
        model: Holds the field.
        name: Of the field, dotted where it is nested.
        preset: Values by dotted name that win over the field's own default.
        module: File in ``ui/static``.
        elem_id: Name of the part, where it is another than the field's.
        classes: CSS classes.
        events: Gradio events that the module triggers.
        facts: What the module needs to know; nothing that a visitor wrote.
    """
    owner, leaf = _owner(model, name)
    told = knob(owner, leaf)
    value = _first(owner, name, preset)
    return island(
        module,
        elem_id or leaf,
        label=told.label,
        value=NOTATIONS[name].write(value) if name in NOTATIONS else value,
        classes=("part", *classes),
        events=events,
        facts={"label": told.label, "help": told.help, **facts},
    )


def _first(owner: type[BaseModel], name: str, preset: Mapping[str, Any]) -> Any:
    """Find what a field shows at first; the switch of a part is on where the preset has one of its fields."""
    if any(other.startswith(f"{name}.") for other in preset):
        return True
    field = owner.model_fields[name.rpartition(".")[2]]
    value = preset.get(name, None if field.is_required() else field.default)
    return False if value is None and _inner(owner, name.rpartition(".")[2]) else value


def _usual(owner: type[BaseModel], leaf: str) -> tuple[type[Part], dict[str, Any]]:
    """Choose a component by the type of a field, with the arguments that only this component has."""
    annotation = owner.model_fields[leaf].annotation
    kinds = set(get_args(annotation) or (annotation,))
    if get_origin(annotation) is Literal:
        values = choices(owner, leaf)
        return gr.Radio if len(values) <= FEW else gr.Dropdown, {"choices": values}
    optional = next((it for it in kinds if get_origin(it) is Literal), None)
    if optional is not None:
        return gr.Dropdown, {"choices": [(USUAL, ""), *get_args(optional)]}
    if kinds == {bool} or _inner(owner, leaf):
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
        inner = _inner(model, parent)
        assert inner is not None
        model = inner
    return model, leaf


def _inner(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Find the model of a nested part, also of one that may be none; None where the field is no such part."""
    annotation = model.model_fields[name].annotation
    kinds = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    return next((it for it in kinds if isinstance(it, type) and issubclass(it, BaseModel)), None)


def _may_be_none(model: type[BaseModel], name: str) -> bool:
    owner, leaf = _owner(model, name)
    return NoneType in get_args(owner.model_fields[leaf].annotation)
