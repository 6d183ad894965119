"""How parts of our own hold the value of their field: as lists, which Gradio hands on as they are.

A notation turns a field's value into what its part holds and back. No part holds a ``path``: Gradio takes what has one for
an upload of its own. Knows no components and no files.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.image_inputs import SLOT_DEFAULTS, ImagePrompt
from engine.knobs import bounds
from engine.requests import MAX_IMAGE_PROMPTS, MAX_LORAS, MAX_STYLES, LoraWeight

SLOTS = 4
"""Slots for image prompts that the page shows."""
ROWS = 5
"""Rows for LoRAs that the page shows at least."""
_LOWEST, _HIGHEST = bounds(LoraWeight, "scale")


@dataclass(frozen=True, slots=True)
class Notation:
    """From field to part and back."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    """Takes whatever a browser sends; what means nothing is left out."""


def rows_of(loras: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write LoRAs as rows of the page, all of them on, with empty ones below."""
    rows = [{"on": True, "file": item["path"], "scale": item["scale"]} for item in loras]
    return [*rows, *(_empty_row() for _ in range(ROWS - len(rows)))]


def good_rows(stored: object) -> list[dict[str, Any]]:
    """Keep of stored rows what can be shown; a row that is none becomes an empty one."""
    rows = stored if isinstance(stored, list) else []
    good = [_good_row(row) for row in rows[:MAX_LORAS]]
    return [*good, *(_empty_row() for _ in range(ROWS - len(good)))]


def loras_of(stored: object) -> list[dict[str, Any]]:
    """Read the LoRAs that are asked for: those of the rows that are on and not empty."""
    return [
        {"path": row["file"], "scale": row["scale"]}
        for row in good_rows(stored)
        if row["on"] and row["file"]
    ]


def _good_row(row: object) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        return _empty_row()
    file = row.get("file")
    return {
        "on": row.get("on") is not False,
        "file": file if isinstance(file, str) else "",
        "scale": _good_scale(row.get("scale")),
    }


def _good_scale(scale: object) -> float:
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or math.isnan(scale):
        return 1.0
    return min(max(float(scale), _LOWEST), _HIGHEST)


def _empty_row() -> dict[str, Any]:
    return {"on": True, "file": "", "scale": 1.0}


def empty_slot() -> dict[str, Any]:
    """Write a slot for an image prompt that has no picture."""
    kind = ImagePrompt.model_fields["type"].default
    stop_at, weight = SLOT_DEFAULTS[kind]
    return {"image": "", "type": kind, "stop_at": stop_at, "weight": weight}


def slots_of(prompts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write image prompts as slots of the page, with empty ones after them."""
    filled = []
    for item in prompts:
        stop_at, weight = ImagePrompt.model_validate(item).settled
        filled.append({**item, "stop_at": stop_at, "weight": weight})
    return [*filled, *(empty_slot() for _ in range(SLOTS - len(filled)))]


def prompts_of(stored: object) -> list[dict[str, Any]]:
    """Read the image prompts of the slots that have a picture."""
    slots = stored if isinstance(stored, list) else []
    return [
        {name: slot.get(name, usual) for name, usual in empty_slot().items()}
        for slot in slots[:MAX_IMAGE_PROMPTS]
        if isinstance(slot, Mapping) and slot.get("image")
    ]


def _names(stored: object) -> list[str]:
    names = stored if isinstance(stored, list) else []
    return [name for name in names[:MAX_STYLES] if isinstance(name, str)]


def _name(stored: object) -> str | None:
    """Read a choice of one file; none is the studio's own, or no file at all."""
    names = _names(stored)
    return names[0] if names and names[0] else None


_CHOICE = Notation(write=lambda name: [name] if name else [], read=_name)

NOTATIONS: Mapping[str, Notation] = {
    "styles": Notation(write=list, read=_names),
    "loras": Notation(write=rows_of, read=loras_of),
    "image_prompts": Notation(write=slots_of, read=prompts_of),
    "refiner_model": _CHOICE,
    "advanced.base_model": _CHOICE,
    "advanced.vae": _CHOICE,
}
"""Dotted field name to notation; all other parts hold the value itself."""
