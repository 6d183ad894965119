"""How parts of our own hold the value of their field: as lists, which Gradio hands on as they are.

A notation turns a field's value into what its part holds and back. No part holds a ``path``: Gradio takes what has one for
an upload of its own. Knows no components and no files.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.image_inputs import SLOT_DEFAULTS, ImagePrompt
from engine.knobs import bounds
from engine.requests import MAX_IMAGE_PROMPTS, MAX_LORAS, MAX_STYLES, LoraWeight
from engine.studio import MAX_ADDONS, Embedding, StudioAdapter, StudioControl, StudioLora
from engine.studio import MAX_LORAS as STUDIO_LORAS
from ui.rows import Rows

SLOTS = 4
"""Slots for image prompts that the page shows."""
ROWS = 5
"""Rows for LoRAs that the page shows at least."""


@dataclass(frozen=True, slots=True)
class Notation:
    """From field to part and back."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    """Takes whatever a browser sends; what means nothing is left out."""
    good: Callable[[object], Any] | None = None
    """Keeps of what a browser stored what can be shown, also where its field would refuse it; None asks the field."""
    told: Callable[[object, str, str], str] = lambda held, place, problem: problem
    """Words a problem, from what the part holds, the place in the field such as ``0.image``, and what is wrong there."""


@dataclass(frozen=True, slots=True)
class LoraRows:
    """The rows of LoRAs: a switch, a file and a weight each, with a few empty ones below."""

    low: float
    high: float
    """Range of a weight."""
    most: int
    """Most rows."""
    has_file: bool = False
    """Whether a LoRA may be a repository, of which a file is named."""

    def write(self, loras: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Write LoRAs as rows, all of them on."""
        return self._filled({**item, "on": True, "file": item["path"]} for item in loras)

    def good(self, stored: object) -> list[dict[str, Any]]:
        """Keep of stored rows what can be shown; a row that is none becomes an empty one."""
        rows = stored if isinstance(stored, list) else []
        return self._filled(row if isinstance(row, Mapping) else {} for row in rows[: self.most])

    def read(self, stored: object) -> list[dict[str, Any]]:
        """Read the LoRAs that are asked for: those of the rows that are on and not empty."""
        return [
            {
                "path": row["file"],
                "scale": row["scale"],
                **({"weight_name": row["weight_name"] or None} if self.has_file else {}),
            }
            for row in self.good(stored)
            if row["on"] and row["file"]
        ]

    def told(self, stored: object, place: str, problem: str) -> str:
        """Say of a problem in which row it is."""
        index = place.partition(".")[0]
        asked = [at for at, row in enumerate(self.good(stored)) if row["on"] and row["file"]]
        if not index.isdigit() or int(index) >= len(asked):
            return problem
        return f"LoRA {asked[int(index)] + 1}: {problem}"

    def _filled(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        good = [self._row(row) for row in rows]
        return [*good, *(self._row({}) for _ in range(ROWS - len(good)))]

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        file, name = row.get("file"), row.get("weight_name")
        return {
            "on": row.get("on") is not False,
            "file": file if isinstance(file, str) else "",
            "scale": self._scale(row.get("scale")),
            **({"weight_name": name if isinstance(name, str) else ""} if self.has_file else {}),
        }

    def _scale(self, scale: object) -> float:
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or math.isnan(scale):
            return 1.0
        return min(max(float(scale), self.low), self.high)


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


def _numbers(text: object) -> list[str]:
    """Read a list of numbers as it is typed, between commas or spaces; what they may be their field knows."""
    words = re.split(r"[][(),;\s]+", text) if isinstance(text, str) else []
    return [word for word in words if word]


def _list(numbers: Iterable[float] | None) -> str:
    return ", ".join(str(number).removesuffix(".0") for number in numbers or ())


_CHOICE = Notation(write=lambda name: [name] if name else [], read=_name)
_NUMBERS = Notation(write=_list, read=_numbers)


def _rows(rows: Rows | LoraRows) -> Notation:
    return Notation(write=rows.write, read=rows.read, good=rows.good, told=rows.told)


LORA_ROWS = LoraRows(*bounds(LoraWeight, "scale"), most=MAX_LORAS)
STUDIO_LORA_ROWS = LoraRows(*bounds(StudioLora, "scale"), most=STUDIO_LORAS, has_file=True)
EMBEDDING_ROWS = Rows(Embedding, MAX_ADDONS, "Embedding")
CONTROL_ROWS = Rows(
    StudioControl, MAX_ADDONS, "ControlNet", {"mode": "Of a Union: depth, canny, …"}
)
ADAPTER_ROWS = Rows(StudioAdapter, MAX_ADDONS, "IP-Adapter")

NOTATIONS: Mapping[str, Notation] = {
    "styles": Notation(write=list, read=_names),
    "loras": _rows(LORA_ROWS),
    "image_prompts": Notation(write=slots_of, read=prompts_of),
    "refiner_model": _CHOICE,
    "advanced.base_model": _CHOICE,
    "advanced.vae": _CHOICE,
    "studio.loras": _rows(STUDIO_LORA_ROWS),
    "studio.embeddings": _rows(EMBEDDING_ROWS),
    "studio.controlnets": _rows(CONTROL_ROWS),
    "studio.ip_adapters": _rows(ADAPTER_ROWS),
    "studio.unet_name": _CHOICE,
    "studio.image_encoder_path": _CHOICE,
    "studio.ic_light.path": _CHOICE,
    "studio.timesteps": _NUMBERS,
    "studio.sigmas": _NUMBERS,
}
"""Dotted field name to notation; all other parts hold the value itself."""
