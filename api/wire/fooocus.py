"""The four Fooocus endpoints: what they take and what they answer."""

from typing import Literal

from pydantic import Field

from api.wire.fields import NULLABLE, TenThousandths, Thousandths, Wholes, WireModel, wire
from api.wire.shared import Image
from engine.image_inputs import FooocusType, InpaintEngine, InpaintMode, Side
from engine.requests import Advanced, OutputFormat
from engine.requests import LoraWeight as EngineLora

Performance = Literal["Speed", "Quality", "Extreme Speed", "Lightning"]
Change = Literal[
    "Disabled",
    "Vary (Subtle)",
    "Vary (Strong)",
    "Upscale (1.5x)",
    "Upscale (2x)",
    "Upscale (Fast 2x)",
]

OFFSET_LORA = (
    "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/"
    "sd_xl_offset_example-lora_1.0.safetensors"
)
"""The LoRA that fal puts on every picture unless others are asked for."""


class LoraWeight(WireModel):
    """One LoRA and how strongly it acts."""

    path: str = Field(description="A file of the loras folder, or an address.")
    scale: float = wire("scale", EngineLora)


class ImagePrompt(WireModel):
    """A picture that tells what to paint."""

    type: FooocusType = Field("ImagePrompt", description="What is taken from the picture.")
    image_url: str | None = Field(None, description="The picture.")
    stop_at: float = Field(0.5, ge=0, le=1, description="Share of the steps it acts on.")
    weight: float = Field(1.0, ge=0, le=2, description="How strongly it acts.")


SAFETY = "Paint over what is not fit for every eye."


class _Painting(WireModel):
    """What every Fooocus endpoint takes."""

    prompt: str = wire("prompt")
    negative_prompt: str = wire("negative_prompt")
    styles: tuple[str, ...] = wire(
        "styles", default=("Fooocus Enhance", "Fooocus V2", "Fooocus Sharp")
    )
    performance: Performance = wire("performance")
    guidance_scale: float = wire("guidance_scale")
    sharpness: float = wire("sharpness")
    aspect_ratio: str = wire("aspect_ratio")
    num_images: int = wire("num_images")
    loras: tuple[LoraWeight, ...] = wire("loras", default=(LoraWeight(path=OFFSET_LORA),))
    refiner_model: str = wire("refiner_model")
    refiner_switch: TenThousandths = wire("refiner_switch")
    output_format: OutputFormat = wire("output_format")
    sync_mode: bool = Field(
        default=False, description="Answer with the pictures themselves as data URIs."
    )
    seed: int | None = wire("seed", ge=None, le=None, json_schema_extra=NULLABLE)

    advanced: Advanced | None = wire("advanced", default=None)


class FooocusInput(_Painting):
    """Pictures from words."""

    control_image_url: str | None = Field(
        None, description="A picture to follow.", json_schema_extra=NULLABLE
    )
    control_type: FooocusType = Field("PyraCanny", description="What is taken from it.")
    control_image_weight: float = Field(1.0, ge=0, le=2, description="How strongly it acts.")
    control_image_stop_at: float = Field(
        1.0, ge=0, le=1, description="Share of the steps it acts on."
    )
    inpaint_image_url: str | None = Field(
        None, description="A picture to repaint.", json_schema_extra=NULLABLE
    )
    mask_image_url: str | None = Field(
        None, description="Where to repaint it.", json_schema_extra=NULLABLE
    )
    mixing_image_prompt_and_inpaint: bool = Field(
        default=False, description="Follow the control picture while repainting."
    )
    enable_safety_checker: bool = Field(default=True, description=SAFETY)


class FooocusImagePromptInput(_Painting):
    """Pictures from pictures, and words."""

    image_prompt_1: ImagePrompt = Field(description="A picture to follow.")
    image_prompt_2: ImagePrompt | None = Field(None, description="A picture to follow.")
    image_prompt_3: ImagePrompt | None = Field(None, description="A picture to follow.")
    image_prompt_4: ImagePrompt | None = Field(None, description="A picture to follow.")
    inpaint_image_url: str | None = Field(None, description="A picture to repaint.")
    mask_image_url: str | None = Field(None, description="Where to repaint it.")
    inpaint_mode: InpaintMode = Field(
        "Inpaint or Outpaint (default)", description="How to repaint."
    )
    inpaint_additional_prompt: str = Field("", description="What to paint there.")
    outpaint_selections: tuple[Side, ...] = Field((), description="Sides to paint beyond.")
    mixing_image_prompt_and_inpaint: bool = Field(
        default=False, description="Follow the pictures while repainting."
    )
    uov_image_url: str | None = Field(None, description="A picture to vary or to enlarge.")
    uov_method: Change = Field("Disabled", description="What becomes of it.")
    mixing_image_prompt_and_vary_upscale: bool = Field(
        default=False, description="Follow the pictures while varying or enlarging."
    )
    enable_safety_checker: bool = Field(default=True, description=SAFETY)


class FooocusInpaintInput(_Painting):
    """A picture, repainted in part or painted beyond its sides."""

    inpaint_image_url: str = Field(description="The picture.")
    mask_image_url: str | None = Field(None, description="Where to repaint it: white.")
    inpaint_mode: InpaintMode = Field(
        "Inpaint or Outpaint (default)", description="How to repaint."
    )
    inpaint_additional_prompt: str = Field("", description="What to paint there.")
    outpaint_selections: tuple[Side, ...] = Field((), description="Sides to paint beyond.")
    override_inpaint_options: bool = Field(
        default=False, description="Take the settings below instead of those of the mode."
    )
    inpaint_disable_initial_latent: bool = Field(
        default=False, description="Start from noise alone instead of a filled picture."
    )
    inpaint_engine: InpaintEngine = Field("v2.6", description="Which inpaint patch is put on.")
    inpaint_strength: Thousandths = Field(1.0, gt=0, le=1, description="Share of the noise.")
    inpaint_respective_field: Thousandths = Field(
        0.618, ge=0, le=1, description="How much around the mask is looked at: 1 is all of it."
    )
    inpaint_erode_or_dilate: Wholes = Field(
        0.0, ge=-64, le=64, description="Pixels by which the mask grows; below 0 it shrinks."
    )
    invert_mask: bool = Field(default=False, description="Repaint what is black in the mask.")
    image_prompt_1: ImagePrompt | None = Field(None, description="A picture to follow.")
    image_prompt_2: ImagePrompt | None = Field(None, description="A picture to follow.")
    image_prompt_3: ImagePrompt | None = Field(None, description="A picture to follow.")
    image_prompt_4: ImagePrompt | None = Field(None, description="A picture to follow.")
    mixing_image_prompt_and_inpaint: bool = Field(
        default=False, description="Follow the pictures while repainting."
    )
    enable_safety_checker: bool = Field(default=True, description=SAFETY)


class FooocusUpscaleOrVaryInput(_Painting):
    """A picture, varied or made larger."""

    uov_image_url: str = Field(description="The picture.")
    uov_method: Change = Field("Vary (Strong)", description="What becomes of it.")
    image_prompt_1: ImagePrompt | None = Field(None, description="A picture to follow.")
    image_prompt_2: ImagePrompt | None = Field(None, description="A picture to follow.")
    image_prompt_3: ImagePrompt | None = Field(None, description="A picture to follow.")
    image_prompt_4: ImagePrompt | None = Field(None, description="A picture to follow.")
    mixing_image_prompt_and_vary_upscale: bool = Field(
        default=False, description="Follow the pictures meanwhile."
    )
    enable_safety_checker: bool = Field(default=True, description=SAFETY)


class FooocusOutput(WireModel):
    """The pictures."""

    images: tuple[Image, ...] = Field(description="The pictures, in order.")
    timings: dict[str, float] = Field(description="Seconds by stage.")
    has_nsfw_concepts: tuple[bool, ...] = Field(
        description="One flag a picture: whether it was painted over."
    )
