"""The parts of a request that bring pictures: to follow, to repaint, to vary or to enlarge.

A picture is named by the sha256 of its file, which is sent along with the request. Of two pictures in one place a mask may
have any size; it is stretched to its picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from engine.knobs import Knob, RequestPart

FooocusType = Literal["ImagePrompt", "PyraCanny", "CPDS", "FaceSwap"]
"""What Fooocus takes from a picture; programs on the wire have these alone."""
FurtherType = Literal["Depth", "Normal", "Pose", "SoftEdge", "Scribble", "Lineart", "StraightLines"]
"""What controlnet-aux draws of a picture."""
ImagePromptType = Literal[FooocusType, FurtherType]
InpaintMode = Literal[
    "Inpaint or Outpaint (default)",
    "Improve Detail (face, hand, eyes, etc.)",
    "Modify Content (add objects, change background, etc.)",
]
InpaintEngine = Literal["None", "v1", "v2.5", "v2.6"]
Side = Literal["Left", "Right", "Top", "Bottom"]
UpscaleOrVaryMethod = Literal[
    "Vary (Subtle)", "Vary (Strong)", "Upscale (1.5x)", "Upscale (2x)", "Upscale (Fast 2x)"
]
MaskModel = Literal[
    "u2net",
    "u2netp",
    "u2net_human_seg",
    "u2net_cloth_seg",
    "silueta",
    "isnet-general-use",
    "isnet-anime",
    "sam",
]
ClothCategory = Literal["full", "upper", "lower"]
SamModel = Literal["vit_b", "vit_l", "vit_h"]
Picture = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""The sha256, in hex, of a file that is sent along."""
NO_PICTURE = "0" * 64
"""Stands for one while a request is looked over before its pictures are there."""

MAX_ADDITIONAL = 10_000
"""Longest additional prompt in characters."""
MAX_SOUGHT = 1_000
"""Longest detection prompt in characters; the detector reads 256 tokens."""
SLOT_DEFAULTS: Mapping[ImagePromptType, tuple[float, float]] = {
    "ImagePrompt": (0.5, 0.6),
    "PyraCanny": (0.5, 1.0),
    "CPDS": (0.5, 1.0),
    "FaceSwap": (0.9, 0.75),
    **dict.fromkeys(get_args(FurtherType), (0.5, 1.0)),
}
"""What `ImagePrompt.stop_at` and `ImagePrompt.weight` are where nobody sets them, as in Fooocus."""
FURTHER: Mapping[str, str] = {
    "Depth": "depth",
    "Normal": "normal",
    "Pose": "pose",
    "SoftEdge": "soft_edge",
    "Scribble": "scribble",
    "Lineart": "lineart",
    "StraightLines": "straight_lines",
}
"""Kinds of drawings, as `engine.models.controlnets.UNION_MODES` names them, by type."""
DRAWN: Mapping[str, str] = {"PyraCanny": "canny", "CPDS": "depth", **FURTHER}
"""Kinds of drawings of all types that a ControlNet is shown, in the order in which they steer."""

FACTORS: Mapping[UpscaleOrVaryMethod, float] = {
    "Upscale (1.5x)": 1.5,
    "Upscale (2x)": 2.0,
    "Upscale (Fast 2x)": 2.0,
}
"""How many times as long the sides become with each method that enlarges."""
STRENGTHS: Mapping[UpscaleOrVaryMethod, float] = {
    "Vary (Subtle)": 0.5,
    "Vary (Strong)": 0.85,
    "Upscale (1.5x)": 0.382,
    "Upscale (2x)": 0.382,
}
"""Share of the noise with which each method that paints begins, where nobody sets it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InpaintSettings:
    """What an inpaint mode sets where a request does not."""

    disable_initial_latent: bool
    engine: InpaintEngine
    strength: float
    respective_field: float


INPAINT_MODES: Mapping[InpaintMode, InpaintSettings] = {
    "Inpaint or Outpaint (default)": InpaintSettings(
        disable_initial_latent=False, engine="v2.6", strength=1.0, respective_field=0.618
    ),
    "Improve Detail (face, hand, eyes, etc.)": InpaintSettings(
        disable_initial_latent=False, engine="None", strength=0.5, respective_field=0.0
    ),
    "Modify Content (add objects, change background, etc.)": InpaintSettings(
        disable_initial_latent=True, engine="v2.6", strength=1.0, respective_field=0.0
    ),
}
"""As in Fooocus."""

# What an `Inpaint`, a `MaskFrom` and the regions of *Enhance* have in common.
MaskFinder = Annotated[
    MaskModel,
    Knob("Model", "What finds it: 'sam' goes by words, the others take what stands out."),
]
Cloth = Annotated[ClothCategory, Knob("Clothes", "Which clothes 'u2net_cloth_seg' looks for.")]
SamSize = Annotated[SamModel, Knob("SAM", "Larger ones draw finer outlines and take longer.")]
Certainty = Annotated[
    float,
    Field(ge=0, le=1),
    Knob("Certainty", "What is less certain than this is left out.", 0.05),
]
AtMost = Annotated[int, Field(ge=0, le=10), Knob("At most", "How many things; 0 takes all.", 1)]
RepaintMode = Annotated[InpaintMode, Knob("Method", "What the repainting is for.")]
FromNoiseSwitch = Annotated[bool | None, Knob("Start from noise", "Forget what was there before.")]
RepaintEngine = Annotated[
    InpaintEngine | None, Knob("Inpaint engine", "The patch that helps to repaint.")
]
RepaintStrength = Annotated[
    float | None,
    Field(gt=0, le=1),
    Knob("Strength", "Share of the noise: 1 paints anew, less keeps more.", 0.001),
]
RespectiveField = Annotated[
    float | None,
    Field(ge=0, le=1),
    Knob("Respective field", "How much around the mask is looked at; 1 is all.", 0.001),
]
GrowMask = Annotated[
    int,
    Field(ge=-64, le=64),
    Knob("Grow the mask", "Pixels by which it grows; below 0 it shrinks.", 1),
]
Sought = Annotated[
    str,
    Field(max_length=MAX_SOUGHT, validate_default=True),
    Knob("Look for", "What 'sam' is to find, in the singular, such as 'face' or 'hand'."),
]


class ImagePrompt(RequestPart):
    """One image that the picture follows."""

    image: Annotated[Picture, Knob("Image", "What the picture follows.")]
    type: Annotated[
        ImagePromptType,
        Knob(
            "Type",
            "ImagePrompt takes look and content, PyraCanny outlines, CPDS light and depth, FaceSwap the face; "
            "the others what their names say.",
        ),
    ] = "ImagePrompt"
    stop_at: Annotated[
        float | None,
        Field(ge=0, le=1),
        Knob("Stop at", "Share of the steps after which it is let go.", 0.001, 0.5),
    ] = None
    weight: Annotated[
        float | None,
        Field(ge=0, le=2),
        Knob("Weight", "How strongly it is followed; 0 is off.", 0.001, 1.0),
    ] = None

    @property
    def settled(self) -> tuple[float, float]:
        """`stop_at` and `weight`, the type's own where they are not set."""
        stop_at, weight = SLOT_DEFAULTS[self.type]
        return (
            stop_at if self.stop_at is None else self.stop_at,
            weight if self.weight is None else self.weight,
        )


class Inpaint(RequestPart):
    """A picture that is repainted in part, or painted beyond its sides.

    The four settings from `disable_initial_latent` to `respective_field` are the mode's own where they are not set.
    """

    image: Annotated[Picture, Knob("Picture", "What is repainted.")]
    mask: Annotated[
        Picture | None, Knob("Mask", "Where it is repainted: white; stretched to the picture.")
    ] = None
    mode: RepaintMode = "Inpaint or Outpaint (default)"
    additional_prompt: Annotated[
        str,
        Field(max_length=MAX_ADDITIONAL),
        Knob("Additional prompt", "What to paint there; stands before the prompt."),
    ] = ""
    outpaint: Annotated[
        tuple[Side, ...],
        Field(max_length=4),
        Knob("Paint beyond", "Sides at which the picture grows by three tenths."),
    ] = ()
    disable_initial_latent: FromNoiseSwitch = None
    engine: RepaintEngine = None
    strength: RepaintStrength = None
    respective_field: RespectiveField = None
    erode_or_dilate: GrowMask = 0
    invert_mask: Annotated[bool, Knob("Invert the mask", "Repaint what is black in it.")] = False

    @field_validator("outpaint")
    @classmethod
    def _are_unlike(cls, value: tuple[Side, ...]) -> tuple[Side, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected each side once, got {', '.join(value)}")
        return value


class UpscaleOrVary(RequestPart):
    """A picture that is varied or enlarged."""

    image: Annotated[Picture, Knob("Picture", "What is varied or enlarged.")]
    method: Annotated[
        UpscaleOrVaryMethod,
        Knob("Method", "Vary paints it again; Upscale makes it larger, Fast without painting."),
    ] = "Vary (Strong)"
    strength: Annotated[
        float | None,
        Field(gt=0, le=1),
        Knob("Strength", "Share of the noise; empty leaves it to the method.", 0.001),
    ] = None


class MaskFrom(RequestPart):
    """A mask that a model finds in a picture: of what stands out in it, or of what words name.

    Fooocus' text threshold is not here: it changes no mask there either.
    """

    image: Annotated[Picture, Knob("Picture", "Where something is looked for.")]
    model: MaskFinder = "isnet-general-use"
    cloth: Cloth = "full"
    prompt: Sought = ""
    sam_model: SamSize = "vit_b"
    box_threshold: Certainty = 0.3
    max_detections: AtMost = 0
    grow_boxes: Annotated[
        int,
        Field(ge=-64, le=64),
        Knob("Grow the boxes", "Pixels around what was found, before its outline.", 1),
    ] = 0
    boxes_only: Annotated[bool, Knob("Boxes alone", "No outlines, whole boxes.")] = False

    @field_validator("prompt")
    @classmethod
    def _names_something(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("model") == "sam" and not value.strip(" .\n"):
            raise ValueError("expected words for what to find, got none")
        return value
