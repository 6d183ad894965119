"""Rows of a list field: what the page needs to know to draw them, and the way from rows to the field and back.

Everything comes from the model of one item: its fields, their `Knob`s, types and ranges. A row is a plain mapping by field
name; ``path`` is called ``file`` there, since Gradio takes what has a ``path`` for an upload of its own.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from engine.image_inputs import Picture
from engine.knobs import bounds, knob

Shape = Literal["file", "picture", "pictures", "words", "text", "whole", "slide", "switch"]
"""How a field is drawn."""
MAX_TEXT = 4000
"""Longest text of a row's field in characters."""
_PICTURE = re.compile(r"[0-9a-f]{64}")
_PICTURE_RULES = get_args(Picture)[1].metadata
"""What pydantic keeps of `Picture` where a field is nothing else."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one list field."""

    item: type[BaseModel]
    """Model of what a row stands for."""
    most: int
    """Most rows."""
    word: str
    """What a row is called, for messages: ``ControlNet 2``."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """What stands in a box that is empty, by field."""

    def facts(self, files: str, rare: Collection[str] = ()) -> dict[str, Any]:
        """Write what the page needs to draw the rows.

        Args:
            files: The list of files to choose from, as `ui.lists` calls it.
            rare: Fields that are folded away.
        """
        return {
            "word": self.word,
            "most": self.most,
            "files": files,
            "empty": self.empty(),
            "fields": [self._field(name, is_rare=name in rare) for name in self.item.model_fields],
        }

    def empty(self) -> dict[str, Any]:
        """Write a row that nobody filled in."""
        written = {
            _held(name): self._written(name, _default(field))
            for name, field in self.item.model_fields.items()
        }
        return {"on": True, **written}

    def write(self, items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Write items as rows, all of them on."""
        return [
            {"on": True, **{_held(name): self._written(name, value) for name, value in it.items()}}
            for it in items
        ]

    def good(self, stored: object) -> list[dict[str, Any]]:
        """Keep of stored rows what can be shown; what is none of a field's kind becomes its default."""
        rows = stored if isinstance(stored, list) else []
        return [self._good(row) for row in rows[: self.most] if isinstance(row, Mapping)]

    def read(self, stored: object) -> list[dict[str, Any]]:
        """Read the items that are asked for: the rows that are on and in which something was filled in."""
        return [self._item(row) for row in self.good(stored) if self._is_asked(row)]

    def told(self, stored: object, place: str, problem: str) -> str:
        """Say of a problem in which row it is, and at which of its fields.

        Args:
            stored: The rows.
            place: Of the problem in the field, such as ``0.image``.
            problem: What is wrong there.
        """
        index, _, rest = place.partition(".")
        asked = [at for at, row in enumerate(self.good(stored)) if self._is_asked(row)]
        if not index.isdigit() or int(index) >= len(asked):
            return problem
        name = rest.partition(".")[0]
        at = asked[int(index)]
        word = f"{self.word} {at + 1}"
        if name not in self.item.model_fields:
            return f"{word}: {problem}"
        shape = self._shape(name)
        if not self.good(stored)[at][_held(name)]:
            problem = _NEEDED.get(shape, problem)
        label = "" if shape == "file" else f", {knob(self.item, name).label.lower()}"
        return f"{word}{label}: {problem}"

    def pictures(self, item: BaseModel) -> list[tuple[str, str]]:
        """List the pictures of an item: field and name of each."""
        found: list[tuple[str, str]] = []
        for name in self.item.model_fields:
            value = getattr(item, name)
            if self._shape(name) == "picture" and value is not None:
                found.append((name, value))
            elif self._shape(name) == "pictures":
                found += [(name, it) for it in value]
        return found

    def _is_asked(self, row: Mapping[str, Any]) -> bool:
        shapes = ("file", "picture", "pictures")
        filled = (name for name in self.item.model_fields if self._shape(name) in shapes)
        return bool(row["on"]) and any(row[_held(name)] for name in filled)

    def _item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        values = {name: row[_held(name)] for name in self.item.model_fields}
        for name, value in values.items():
            if self._shape(name) == "words":
                values[name] = value.split()
            elif value == "" and _may_be_none(self.item.model_fields[name]):
                values[name] = None
        # What is required and left out is missing, not empty.
        return {
            name: value
            for name, value in values.items()
            if value not in ("", []) or not self.item.model_fields[name].is_required()
        }

    def _good(self, row: Mapping[str, Any]) -> dict[str, Any]:
        empty = self.empty()
        good = {
            _held(name): self._fit(name, row.get(_held(name)), empty[_held(name)])
            for name in self.item.model_fields
        }
        return {"on": row.get("on") is not False, **good}

    def _fit(self, name: str, value: object, usual: Any) -> Any:
        """Keep a value that its part can hold, else take the usual one."""
        match self._shape(name):
            case "switch":
                return value if isinstance(value, bool) else usual
            case "slide":
                if (
                    isinstance(value, bool)
                    or not isinstance(value, int | float)
                    or math.isnan(value)
                ):
                    return usual
                low, high = bounds(self.item, name)
                return min(max(float(value), low), high)
            case "pictures":
                names = value if isinstance(value, list) else []
                return [it for it in names if _is_picture(it)]
            case "picture":
                return value if _is_picture(value) else ""
            case _:
                return value[:MAX_TEXT] if isinstance(value, str) else usual

    def _written(self, name: str, value: Any) -> Any:
        shape = self._shape(name)
        if shape == "words":
            return " ".join(value or ())
        if shape == "pictures":
            return list(value or ())
        if shape == "whole":
            return "" if value is None else str(value)
        return "" if value is None else value

    def _field(self, name: str, *, is_rare: bool) -> dict[str, Any]:
        facts, shape = knob(self.item, name), self._shape(name)
        range_: dict[str, Any] = {}
        if shape == "slide":
            low, high = bounds(self.item, name)
            range_ = {"low": low, "high": high, "step": facts.step}
        return {
            "name": _held(name),
            "shape": shape,
            "label": facts.label,
            "help": facts.help,
            "rare": is_rare,
            "hint": self.hints.get(name),
            **range_,
        }

    def _shape(self, name: str) -> Shape:
        field = self.item.model_fields[name]
        kinds = _kinds(field)
        if name == "path":
            return "file"
        if bool in kinds:
            return "switch"
        if int in kinds or float in kinds:
            return "whole" if NoneType in kinds else "slide"
        if get_origin(field.annotation) is tuple:
            return "pictures" if Picture in kinds else "words"
        is_picture = Picture in kinds or any(it in _PICTURE_RULES for it in field.metadata)
        return "picture" if is_picture else "text"


_NEEDED: Mapping[Shape, str] = {
    "file": "choose one",
    "picture": "choose a picture",
    "pictures": "choose a picture",
    "words": "expected at least one word",
}
"""What is said where a field that is needed was left out."""


def _held(name: str) -> str:
    return "file" if name == "path" else name


def _default(field: FieldInfo) -> Any:
    return None if field.default is PydanticUndefined else field.default


def _kinds(field: FieldInfo) -> Sequence[Any]:
    return get_args(field.annotation) or (field.annotation,)


def _may_be_none(field: FieldInfo) -> bool:
    return NoneType in _kinds(field)


def _is_picture(value: object) -> bool:
    return isinstance(value, str) and _PICTURE.fullmatch(value) is not None
