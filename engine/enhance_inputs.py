"""The part of a request that enhances finished pictures: what is found in them and repainted, and whether they are enlarged."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.image_inputs import (
    AtMost,
    Certainty,
    Cloth,
    FromNoiseSwitch,
    GrowMask,
    MaskFinder,
    Picture,
    RepaintEngine,
    RepaintMode,
    RepaintStrength,
    RespectiveField,
    SamSize,
    Sought,
    UpscaleOrVaryMethod,
)
from engine.knobs import Knob, RequestPart

EnhanceOrder = Literal["Before First Enhancement", "After Last Enhancement"]
EnhancePrompts = Literal["Original Prompts", "Last Filled Enhancement Prompts"]

MAX_REGIONS = 5
"""Most regions of a request, as in Fooocus; the page shows three."""
MAX_WORDS = 10_000
"""Longest prompt of a region in characters."""


class Region(RequestPart):
    """Something that is looked for in a picture and painted anew.

    The four settings from `disable_initial_latent` to `respective_field` are the mode's own where they are not set.
    """

    model: MaskFinder = "sam"
    look_for: Sought = ""
    prompt: Annotated[
        str,
        Field(max_length=MAX_WORDS),
        Knob("Prompt", "What is painted there; empty takes the picture's own."),
    ] = ""
    negative_prompt: Annotated[
        str,
        Field(max_length=MAX_WORDS),
        Knob("Negative prompt", "What must not be there; empty takes the picture's own."),
    ] = ""
    cloth: Cloth = "full"
    sam_model: SamSize = "vit_b"
    box_threshold: Certainty = 0.3
    max_detections: AtMost = 0
    mode: RepaintMode = "Inpaint or Outpaint (default)"
    disable_initial_latent: FromNoiseSwitch = None
    engine: RepaintEngine = None
    strength: RepaintStrength = None
    respective_field: RespectiveField = None
    erode_or_dilate: GrowMask = 0
    invert_mask: Annotated[bool, Knob("Invert the mask", "Repaint what was not found.")] = False

    @field_validator("look_for")
    @classmethod
    def _names_something(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("model") == "sam" and not value.strip(" .\n"):
            raise ValueError("expected words for what to find, got none")
        return value


class Enhance(RequestPart):
    """What is done to each finished picture, one after the other; or to a picture that is given."""

    image: Annotated[
        Picture | None, Knob("Picture", "What is enhanced; empty paints pictures first.")
    ] = None
    upscale_or_vary: Annotated[
        UpscaleOrVaryMethod | None, Knob("Upscale or vary", "Done to the whole picture.")
    ] = None
    strength: Annotated[
        float | None,
        Field(gt=0, le=1),
        Knob("Strength", "Share of its noise; empty leaves it to the method.", 0.001),
    ] = None
    order: Annotated[
        EnhanceOrder,
        Knob("When", "Before helps small details, after suits large areas."),
    ] = "Before First Enhancement"
    prompts: Annotated[
        EnhancePrompts,
        Knob("With", "Whose words it paints with; those of the regions only after the last."),
    ] = "Original Prompts"
    regions: Annotated[
        tuple[Region, ...],
        Field(max_length=MAX_REGIONS, validate_default=True),
        Knob("Regions", "What is found and repainted, in this order."),
    ] = ()
    final_only: Annotated[
        bool, Knob("Only the last", "Keep no pictures from between; else each step is kept.")
    ] = False

    @field_validator("regions")
    @classmethod
    def _does_something(cls, value: tuple[Region, ...], info: ValidationInfo) -> tuple[Region, ...]:
        if not value and info.data.get("upscale_or_vary") is None:
            raise ValueError("expected a region, or a way to upscale or vary, got neither")
        return value
