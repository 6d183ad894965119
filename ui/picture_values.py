"""What the pictures' panel holds: read into a request with its files, and shown again from one.

Knows the parts, not how they are laid out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr
from pydantic import BaseModel

from engine import EngineError, InvalidRequest, TextRequest
from engine.enhance_inputs import Enhance
from engine.image_inputs import FURTHER, ImagePrompt, Inpaint, UpscaleOrVary
from engine.knobs import knob
from engine.partners import require_aux
from ui.describe_panel import DescribePanel
from ui.enhance_panel import EnhancePanel
from ui.form import Part
from ui.image_input import Upload, Uploads
from ui.mask_from import MaskPanel
from ui.notations import NOTATIONS, SLOTS
from ui.sketcher import MASK_FIELD, read_sketch, write_sketch

PICTURES = ("image_prompts", "inpaint", "upscale_or_vary", "enhance")
"""Fields of a request that bring pictures."""
MIXES = ("inpaint", "upscale_or_vary")
"""What image prompts can be mixed with."""
DEFAULT_MODE = Inpaint.model_fields["mode"].default
FAST = "Upscale (Fast 2x)"
_FIELD = re.compile(rf"({'|'.join(PICTURES)})(?:\.(\d+))?(?:\.(\w+))?(?:\.\d+)?: (.*)", re.DOTALL)
_NAMES = {"inpaint": "Inpaint", "upscale_or_vary": "Upscale or vary", "enhance": "Enhance"}
_MODELS: Mapping[str, type[BaseModel]] = {
    "image_prompts": ImagePrompt,
    "inpaint": Inpaint,
    "upscale_or_vary": UpscaleOrVary,
    "enhance": Enhance,
}


@dataclass(frozen=True)
class PicturesPanel:
    """The parts of the panel."""

    choice: gr.HTML
    """Which panel acts, and what is mixed with it."""
    slots: Part
    """Stands for `TextRequest.image_prompts`."""
    sketch: gr.HTML
    inpaint: Mapping[str, Part]
    """By field of `Inpaint`."""
    mask: MaskPanel
    """Finds a mask for the sketch."""
    picture: gr.HTML
    """The one to vary or to enlarge."""
    change: Mapping[str, Part]
    """By field of `UpscaleOrVary`."""
    describe: DescribePanel
    """Puts a picture into the prompt; no part of the request."""
    enhance: EnhancePanel

    @property
    def inputs(self) -> set[Part]:
        """What an event that reads the panel takes, and one that shows something on it answers."""
        parts = {self.choice, self.slots, self.sketch, self.picture}
        return {*parts, *self.inpaint.values(), *self.change.values(), *self.enhance.inputs}

    def read(
        self, asked: TextRequest, values: Mapping[Any, Any], uploads: Uploads | None, owner: str
    ) -> tuple[TextRequest, dict[str, bytes]]:
        """Add what the panel holds to a request.

        Args:
            asked: What the rest of the form asks for; it has the pictures to follow.
            values: What the parts hold.
            uploads: Holds the pictures that visitors brought.
            owner: Whose they are.

        Returns:
            The request, and the files that it names.

        Raises:
            InvalidRequest: a picture is missing, or a field breaks its rule.
            ModelNotFound: what draws a picture is not installed.
        """
        acting = _acting(values[self.choice]) if uploads is not None else set()
        fields: dict[str, Any] = {**dict.fromkeys(PICTURES), "image_prompts": ()}
        files: dict[str, bytes] = {}
        if uploads is not None:
            if "image_prompts" in acting:
                fields["image_prompts"] = [slot.model_dump() for slot in asked.image_prompts]
                for index, slot in enumerate(asked.image_prompts):
                    field = f"image_prompts.{index}"
                    files[slot.image] = _bytes(uploads.find(slot.image, owner, f"{field}.image"))
                    if slot.type in FURTHER and not asked.advanced.skip_preprocessors:
                        require_aux(f"{field}.type")
            if "inpaint" in acting:
                fields["inpaint"] = self._read_inpaint(values, uploads, owner, files)
            if "upscale_or_vary" in acting:
                fields["upscale_or_vary"] = self._read_change(values, uploads, owner, files)
            if "enhance" in acting:
                fields["enhance"], image = self.enhance.read(values, uploads, owner)
                files |= {} if image is None else {image.name: _bytes(image)}
        return TextRequest.parse({**asked.model_dump(), **fields}), files

    def _read_inpaint(
        self, values: Mapping[Any, Any], uploads: Uploads, owner: str, files: dict[str, bytes]
    ) -> dict[str, Any]:
        try:
            sketch = read_sketch(values[self.sketch], uploads, owner)
        except InvalidRequest as error:
            leaf = "mask" if error.field == MASK_FIELD else "image"
            raise InvalidRequest(f"inpaint.{leaf}", error.problem) from error
        if sketch is None:
            raise InvalidRequest("inpaint.image", "choose a picture to repaint")
        given = _given(self.inpaint, values)
        # What the mode has no use for is out of sight.
        given.pop("additional_prompt" if given["mode"] == DEFAULT_MODE else "outpaint", None)
        if sketch.mask is None and not given.get("outpaint"):
            can_grow = given["mode"] == DEFAULT_MODE
            more = ", or choose sides to paint beyond" if can_grow else ""
            raise InvalidRequest("inpaint.mask", f"paint over what shall change{more}")
        for part in (sketch.image, sketch.mask):
            if part is not None:
                files[part.name] = _bytes(part)
        mask = None if sketch.mask is None else sketch.mask.name
        return {**given, "image": sketch.image.name, "mask": mask}

    def _read_change(
        self, values: Mapping[Any, Any], uploads: Uploads, owner: str, files: dict[str, bytes]
    ) -> dict[str, Any]:
        name, field = values[self.picture], "upscale_or_vary.image"
        if not name:
            raise InvalidRequest(field, "choose a picture to vary or to enlarge")
        files[name] = _bytes(uploads.find(name, owner, field))
        given = _given(self.change, values)
        if given["method"] == FAST:
            given.pop("strength", None)
        return {**given, "image": name}

    def show(
        self, given: Mapping[str, Any], uploads: Uploads | None, owner: str
    ) -> tuple[dict[Part, Any], bool]:
        """Find the values that show the pictures of a request, as far as they are still here.

        Args:
            given: Fields of a request; those that bring no pictures are not looked at.
            uploads: Holds the pictures that visitors brought.
            owner: Whose they are.

        Returns:
            The values, and whether a picture is not here any more.

        Raises:
            InvalidRequest: a field breaks its rule.
        """
        asked = TextRequest.parse({name: given[name] for name in PICTURES if name in given})
        slots = [it for it in asked.image_prompts if _find(uploads, it.image, owner)]
        lost = len(slots) < len(asked.image_prompts)
        acting = {"image_prompts"} if slots else set()
        written = NOTATIONS["image_prompts"].write([slot.model_dump() for slot in slots])
        shown: dict[Part, Any] = {self.slots: gr.update(value=written)}
        if asked.inpaint is not None:
            image = _find(uploads, asked.inpaint.image, owner)
            mask = _find(uploads, asked.inpaint.mask, owner)
            shown |= _shown(self.inpaint, asked.inpaint)
            lost |= image is None or (mask is None and asked.inpaint.mask is not None)
            if image is not None:
                acting.add("inpaint")
                shown[self.sketch] = gr.update(value=write_sketch(image, mask))
        if asked.upscale_or_vary is not None:
            image = _find(uploads, asked.upscale_or_vary.image, owner)
            shown |= _shown(self.change, asked.upscale_or_vary)
            lost |= image is None
            if image is not None:
                acting.add("upscale_or_vary")
                shown[self.picture] = gr.update(value=image.name)
        if asked.enhance is not None:
            acting.add("enhance")
            shown |= self.enhance.show(asked.enhance)
            lost |= bool(asked.enhance.image) and not _find(uploads, asked.enhance.image, owner)
        tab = next((name for name in PICTURES if name in acting), "words")
        mixes = {name: name in acting for name in MIXES}
        shown[self.choice] = gr.update(value={"tab": tab, **mixes})
        return shown, lost

    @contextmanager
    def in_words(self, values: Mapping[Any, Any]) -> Iterator[None]:
        """Name the part that an error is about as the page does: ``Image 3, type`` for ``image_prompts.1.type``.

        Raises:
            InvalidRequest: in place of an error about a part of the panel; other errors go on as they are.
        """
        try:
            yield
        except EngineError as error:
            if (told := self.enhance.in_words(str(error), values)) is not None:
                raise told from error
            found = _FIELD.match(str(error))
            if found is None:
                raise
            field, index, leaf, problem = found.groups()
            place = _NAMES.get(field, "Image prompts")
            if index is not None:
                place = f"Image {_filled(values[self.slots])[int(index)] + 1}"
            label = knob(_MODELS[field], leaf).label if leaf and leaf != "image" else ""
            raise InvalidRequest(
                f"{place}, {label.lower()}" if label else place, problem
            ) from error


def _acting(choice: object) -> set[str]:
    """Say which panels act."""
    if not isinstance(choice, Mapping) or choice.get("tab") not in PICTURES:
        return set()
    if choice["tab"] != "image_prompts":
        return {choice["tab"]}
    return {"image_prompts", *(name for name in MIXES if choice.get(name) is True)}


def _filled(slots: object) -> Sequence[int]:
    """List the places of the slots that have a picture, and those after them."""
    held = slots if isinstance(slots, list) else []
    full = [at for at, it in enumerate(held) if isinstance(it, Mapping) and it.get("image")]
    return [*full, *range(len(full), SLOTS)]


def _given(parts: Mapping[str, Part], values: Mapping[Any, Any]) -> dict[str, Any]:
    """Read the fields that are set; an empty box leaves its field to the mode."""
    held = {name: values[part] for name, part in parts.items()}
    return {name: value for name, value in held.items() if value not in ("", None)}


def _shown(parts: Mapping[str, Part], asked: BaseModel) -> dict[Part, Any]:
    values = asked.model_dump(mode="json")
    return {
        part: gr.update(value="" if values[name] is None else values[name])
        for name, part in parts.items()
    }


def _find(uploads: Uploads | None, name: str | None, owner: str) -> Upload | None:
    if uploads is None or name is None:
        return None
    try:
        return uploads.find(name, owner)
    except InvalidRequest:
        return None


def _bytes(upload: Upload) -> bytes:
    return upload.path.read_bytes()
