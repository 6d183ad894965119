"""The pictures of a call: which of them act, by fal's fields, and their files.

As in Fooocus, a picture that is not what its endpoint is for acts only where the call says that they are to be mixed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from api.answers import Refused, problem, unprocessable
from api.images import load_image
from api.lora import studio_part, studio_wire_name
from api.settings import Api
from api.wire.fields import WireModel
from api.wire.fooocus import (
    FooocusImagePromptInput,
    FooocusInpaintInput,
    FooocusInput,
    FooocusUpscaleOrVaryInput,
)
from api.wire.lora import LoraInput

SLOTS = tuple(f"image_prompt_{number}" for number in (1, 2, 3, 4))
PLAIN = ("control_image_url", "uov_method")
"""Fields of a call that stand for a whole part of the engine's request."""


@dataclass(eq=False)
class Pictures:
    """What the pictures of a call come to."""

    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the engine's request."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The files, by the names that these fields use."""
    origins: dict[str, str] = field(default_factory=dict)
    """The engine's fields and fal's, such as ``image_prompts.0`` and ``image_prompt_2``."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what has no effect, for whoever called."""
    is_studio: bool = False
    """Whether the call is one of the LoRA endpoint."""

    def wire_name(self, named: str) -> str:
        """Turn a field of the engine's request into the caller's own."""
        for ours, theirs in self.origins.items():
            if named == ours or named.startswith(f"{ours}."):
                return theirs if theirs in PLAIN else theirs + named.removeprefix(ours)
        return studio_wire_name(named) if self.is_studio else named


def read_pictures(api: Api, values: WireModel) -> Pictures:
    """Choose and fetch the pictures of a call. Blocks: for threads only.

    Raises:
        Refused: 422, pictures are missing that the call cannot do without.
        InputRefused: one cannot be had.
    """
    reader = _Reader(api, values)
    match values:
        case FooocusInput():
            reader.text()
        case FooocusImagePromptInput():
            reader.image_prompt()
        case FooocusInpaintInput():
            reader.inpaint_alone()
        case FooocusUpscaleOrVaryInput():
            reader.upscale_or_vary_alone()
        case LoraInput():
            reader.studio()
        case _:
            pass
    return reader.pictures


class _Slot(NamedTuple):
    """A picture to follow, as the call has it."""

    field: str
    url: str
    type: str
    stop_at: float
    weight: float


class _Reader:
    """Reads one call."""

    def __init__(self, api: Api, values: Any) -> None:
        self.pictures = Pictures(is_studio=isinstance(values, LoraInput))
        self._api, self._values = api, values

    def text(self) -> None:
        """Read the text endpoint: a picture to follow, or to repaint, or both where they are mixed."""
        values = self._values
        if values.control_image_url:
            self._follow(
                [
                    _Slot(
                        "control_image_url",
                        values.control_image_url,
                        values.control_type,
                        values.control_image_stop_at,
                        values.control_image_weight,
                    )
                ]
            )
        if values.inpaint_image_url:
            flag = "mixing_image_prompt_and_inpaint"
            if not values.control_image_url or self._is_on(flag, "inpaint_image_url"):
                self._inpaint()

    def image_prompt(self) -> None:
        """Read the endpoint of image prompts."""
        values = self._values
        self._follow(self._slots())
        if values.inpaint_image_url and self._is_on(
            "mixing_image_prompt_and_inpaint", "inpaint_image_url"
        ):
            self._inpaint()
        is_changed = values.uov_image_url and values.uov_method != "Disabled"
        if is_changed and self._is_on("mixing_image_prompt_and_vary_upscale", "uov_image_url"):
            self._upscale_or_vary()

    def inpaint_alone(self) -> None:
        """Read the endpoint that repaints."""
        self._inpaint()
        self._mix_slots("mixing_image_prompt_and_inpaint")

    def upscale_or_vary_alone(self) -> None:
        """Read the endpoint that varies and enlarges; where that is disabled it paints from words."""
        if self._values.uov_method != "Disabled":
            self._upscale_or_vary()
        self._mix_slots("mixing_image_prompt_and_vary_upscale")

    def studio(self) -> None:
        """Read the LoRA endpoint: every picture acts."""
        part = studio_part(self._values, self._load)
        if self.pictures.files:
            self.pictures.fields["studio"] = part

    def _mix_slots(self, flag: str) -> None:
        slots = self._slots()
        if slots and self._is_on(flag, *(slot.field.partition(".")[0] for slot in slots)):
            self._follow(slots)

    def _is_on(self, flag: str, *names: str) -> bool:
        """Whether pictures are to be mixed; notes which have no effect where they are not."""
        is_on: bool = getattr(self._values, flag)
        if not is_on:
            self.pictures.notes += [f"{name} has no effect without {flag}." for name in names]
        return is_on

    def _slots(self) -> list["_Slot"]:
        given = [(name, getattr(self._values, name)) for name in SLOTS]
        return [
            _Slot(f"{name}.image_url", slot.image_url, slot.type, slot.stop_at, slot.weight)
            for name, slot in given
            if slot is not None and slot.image_url
        ]

    def _follow(self, slots: Sequence["_Slot"]) -> None:
        for index, slot in enumerate(slots):
            self.pictures.origins[f"image_prompts.{index}"] = slot.field.partition(".")[0]
        self.pictures.fields["image_prompts"] = [
            {
                "image": self._take(slot.url, slot.field),
                "type": slot.type,
                "stop_at": slot.stop_at,
                "weight": slot.weight,
            }
            for slot in slots
        ]

    def _inpaint(self) -> None:
        values = self._values
        sides = getattr(values, "outpaint_selections", ())
        if not values.mask_image_url and not sides:
            missing = "expected a mask, or sides to paint beyond, got neither"
            raise Refused(unprocessable([problem(["mask_image_url"], missing, "missing")]))
        asked = {
            "image": self._take(values.inpaint_image_url, "inpaint_image_url"),
            "mask": self._take(values.mask_image_url, "mask_image_url"),
            "outpaint": sides,
        }
        for ours, theirs in _INPAINT.items():
            if hasattr(values, theirs):
                asked[ours] = getattr(values, theirs)
        if getattr(values, "override_inpaint_options", False):
            asked |= {ours: getattr(values, theirs) for ours, theirs in _OVERRIDDEN.items()}
            asked["erode_or_dilate"] = int(values.inpaint_erode_or_dilate)
        self.pictures.fields["inpaint"] = asked
        self.pictures.origins |= {
            "inpaint.image": "inpaint_image_url",
            "inpaint.mask": "mask_image_url",
            "inpaint.outpaint": "outpaint_selections",
        }

    def _upscale_or_vary(self) -> None:
        values = self._values
        self.pictures.fields["upscale_or_vary"] = {
            "image": self._take(values.uov_image_url, "uov_image_url"),
            "method": values.uov_method,
        }
        self.pictures.origins |= {
            "upscale_or_vary.image": "uov_image_url",
            "upscale_or_vary": "uov_method",
        }

    def _take(self, url: str | None, name: str) -> str | None:
        """Fetch a picture; returns what the engine calls it."""
        return self._load(url, name) if url else None

    def _load(self, url: str, name: str) -> str:
        data = load_image(url, name, self._api)
        digest = hashlib.sha256(data).hexdigest()
        self.pictures.files[digest] = data
        return digest


_INPAINT: Mapping[str, str] = {
    "mode": "inpaint_mode",
    "additional_prompt": "inpaint_additional_prompt",
    "invert_mask": "invert_mask",
}
"""The engine's fields of a picture to repaint, and fal's."""
_OVERRIDDEN: Mapping[str, str] = {
    "disable_initial_latent": "inpaint_disable_initial_latent",
    "engine": "inpaint_engine",
    "strength": "inpaint_strength",
    "respective_field": "inpaint_respective_field",
}
"""Those that, with the growth of the mask, act only where the call overrides those of its mode."""
