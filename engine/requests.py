"""What a person may ask for: names, ranges, defaults and their meaning, each in one place.

Fields carry fal's names. A `Knob` on each says what the page shows and, where fal's own range or default is another, what
the wire binds. Requests are frozen; `engine.settle.plan` turns one into a `Plan`. Knows nothing of models or files.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from engine.describe_inputs import Describe
from engine.enhance_inputs import Enhance
from engine.errors import InvalidRequest
from engine.geometry import LATENT_FACTOR, parse_size
from engine.image_inputs import ImagePrompt, Inpaint, MaskFrom, UpscaleOrVary
from engine.knobs import Knob, RequestPart
from engine.studio import Studio

Performance = Literal["Quality", "Speed", "Extreme Speed", "Lightning", "Hyper-SD"]
OutputFormat = Literal["png", "jpeg", "webp"]
SamplerName = Literal[
    "euler",
    "euler_ancestral",
    "heun",
    "heunpp2",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "tcd",
    "restart",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
]
SchedulerName = Literal[
    "normal",
    "karras",
    "exponential",
    "sgm_uniform",
    "simple",
    "ddim_uniform",
    "lcm",
    "turbo",
    "align_your_steps",
    "tcd",
    "edm_playground_v2.5",
]
SwapMethod = Literal["joint", "separate", "vae"]
MetadataScheme = Literal["pochade", "fooocus", "a1111"]
Compat = Literal["pochade", "fooocus"]
ImageAttention = Literal["joint", "separate"]

MAX_SEED = 2**63 - 1
"""Largest seed, as in Fooocus."""
MAX_PROMPT = 10_000
"""Longest prompt in characters."""
MAX_STYLES = 32
"""Most styles of a request; each adds a text of 77 tokens at least."""
MAX_LORAS = 32
"""Most LoRAs of a request, those named in the prompt among them."""
MAX_IMAGE_PROMPTS = 8
"""Most images that a request may follow; the page shows four."""
MAX_AREA = 2048 * 2048
"""Largest picture in pixels that may be asked for."""
MAX_SIDE = 4096
"""Longest side in pixels that may be asked for."""


class LoraWeight(RequestPart):
    """One LoRA and how strongly it acts."""

    path: Annotated[
        str,
        Field(min_length=1, max_length=400),
        Knob("LoRA", "A file of the loras folder."),
    ]
    scale: Annotated[
        float,
        Field(ge=-2, le=2),
        Knob("Weight", "0 is off, 1 as trained; below 0 pushes away.", 0.01, 0.1, (0, 1)),
    ] = 1.0


class FreeU(RequestPart):
    """FreeU, version 2 (Si et al. 2023, https://arxiv.org/abs/2309.11497): the decoder's features against its skips."""

    b1: Annotated[
        float, Field(ge=0, le=2), Knob("B1", "Features of the deepest blocks; 1 is off.", 0.01)
    ] = 1.01
    b2: Annotated[
        float, Field(ge=0, le=2), Knob("B2", "Features of the middle blocks; 1 is off.", 0.01)
    ] = 1.02
    s1: Annotated[
        float, Field(ge=0, le=4), Knob("S1", "Skips of the deepest blocks; 1 is off.", 0.01)
    ] = 0.99
    s2: Annotated[
        float, Field(ge=0, le=4), Knob("S2", "Skips of the middle blocks; 1 is off.", 0.01)
    ] = 0.95


class Advanced(RequestPart):
    """What Fooocus can do beyond fal's fields. Unknown keys are refused."""

    base_model: Annotated[
        str | None,
        Field(max_length=400),
        Knob("Base model", "The checkpoint that paints; empty takes the studio's own."),
    ] = None
    vae: Annotated[
        str | None,
        Field(max_length=400),
        Knob("VAE", "What turns latents into pixels; empty takes the base model's."),
    ] = None
    refiner_swap_method: Annotated[
        SwapMethod,
        Knob("Refiner swap", "'joint' keeps the sampler going, the others start it anew."),
    ] = "joint"
    refiner_switch_step: Annotated[
        int | None,
        Field(ge=1, le=200),
        Knob("Refiner from step", "Overrules the share above; empty leaves it.", 1),
    ] = None
    sampler: Annotated[
        SamplerName, Knob("Sampler", "The method that turns noise into a picture.")
    ] = "dpmpp_2m_sde_gpu"
    scheduler: Annotated[
        SchedulerName, Knob("Scheduler", "How the noise levels are spread over the steps.")
    ] = "karras"
    adaptive_cfg: Annotated[
        float,
        Field(ge=1, le=30),
        Knob("Adaptive guidance", "Above this guidance, early steps are held back to it.", 0.01),
    ] = 7.0
    adm_scaler_positive: Annotated[
        float,
        Field(ge=0.1, le=3),
        Knob("Positive size scale", "How large the picture is told to be; 1 is off.", 0.001),
    ] = 1.5
    adm_scaler_negative: Annotated[
        float,
        Field(ge=0.1, le=3),
        Knob("Negative size scale", "The same for the negative prompt; 1 is off.", 0.001),
    ] = 0.8
    adm_scaler_end: Annotated[
        float,
        Field(ge=0, le=1),
        Knob("Size scale end", "Share of the noise after which the true size is told.", 0.001),
    ] = 0.3
    clip_skip: Annotated[
        int,
        Field(ge=1, le=12),
        Knob(
            "CLIP skip", "Which layer of the text encoders is read, from the end; 2 is SDXL's.", 1
        ),
    ] = 2
    num_inference_steps: Annotated[
        int | None,
        Field(ge=1, le=200),
        Knob("Steps", "Number of steps; empty leaves it to the performance mode.", 1),
    ] = None
    freeu: Annotated[
        FreeU | None, Knob("FreeU", "Weighs the UNet's features against its skips.")
    ] = None
    skip_preprocessors: Annotated[
        bool,
        Knob("Skip preprocessors", "Image prompts are outlines, or cropped faces, already."),
    ] = False
    canny_low_threshold: Annotated[
        int,
        Field(ge=1, le=255),
        Knob("Canny low threshold", "Weaker edges than this are never drawn.", 1),
    ] = 64
    canny_high_threshold: Annotated[
        int,
        Field(ge=1, le=255),
        Knob("Canny high threshold", "Stronger edges than this are always drawn.", 1),
    ] = 128
    controlnet_softness: Annotated[
        float,
        Field(ge=0, le=1),
        Knob("Softness of controls", "0 follows outlines strictly, 1 leaves most freedom.", 0.001),
    ] = 0.25
    image_attention: Annotated[
        ImageAttention,
        Knob(
            "Image attention",
            "'joint' lets words and images compete, as in Fooocus; 'separate' adds the images.",
        ),
    ] = "joint"
    seed_increment: Annotated[
        bool, Knob("Count seeds up", "Each further image takes the next seed; else all take one.")
    ] = True
    wildcards_in_order: Annotated[
        bool, Knob("Wildcards in order", "Take the entries of a list one after another.")
    ] = False
    save_metadata: Annotated[
        bool, Knob("Settings in the file", "Write into each picture how it was made.")
    ] = True
    metadata_scheme: Annotated[
        MetadataScheme,
        Knob(
            "Written as",
            "Pochade's own form restores everything; the others are for other programs.",
        ),
    ] = "pochade"
    previews: Annotated[bool, Knob("Previews", "Show the picture while it appears.")] = True
    picture_grid: Annotated[
        bool, Knob("Picture grid", "On the page: also one picture of all pictures of a job.")
    ] = False
    deterministic: Annotated[
        bool,
        Knob("Bit-exact repeats", "Paint alone, so that a repeat is equal to the last bit."),
    ] = False
    compat: Annotated[Compat, Knob("Compatibility", "'fooocus' keeps Fooocus' known defects.")] = (
        "pochade"
    )


class TextRequest(RequestPart):
    """A picture from words alone."""

    prompt: Annotated[
        str,
        Field(max_length=MAX_PROMPT),
        Knob("Prompt", "What the picture shows. Each further line is read on its own."),
    ] = ""
    negative_prompt: Annotated[
        str,
        Field(max_length=MAX_PROMPT),
        Knob("Negative prompt", "What the picture must not show."),
    ] = ""
    styles: Annotated[
        tuple[Annotated[str, Field(max_length=100)], ...],
        Field(max_length=MAX_STYLES),
        Knob("Styles", "Ready-made words around the prompt, in this order."),
    ] = ("Fooocus V2", "Fooocus Enhance", "Fooocus Sharp")
    performance: Annotated[
        Performance,
        Knob(
            "Performance",
            "Quality takes 60 steps, Speed 30, Extreme Speed 8, Lightning and Hyper-SD 4.",
            wire_default="Extreme Speed",
        ),
    ] = "Speed"
    guidance_scale: Annotated[
        float,
        Field(ge=1, le=30),
        Knob("Guidance scale", "How strongly to follow the prompt; 1 ignores the negative.", 0.01),
    ] = 4.0
    sharpness: Annotated[
        float,
        Field(ge=0, le=30),
        Knob("Sharpness", "More texture as the value grows; 0 is off.", 0.001),
    ] = 2.0
    aspect_ratio: Annotated[
        str,
        Field(max_length=16),
        Knob("Size", "Width x height in pixels.", wire_default="1024x1024"),
    ] = "1152x896"
    num_images: Annotated[
        int,
        Field(ge=1, le=32),
        Knob("Images", "How many pictures, each from its own seed.", 1, 1, (1, 4)),
    ] = 2
    loras: Annotated[
        tuple[LoraWeight, ...],
        Field(max_length=MAX_LORAS),
        Knob("LoRAs", "Small files that teach the base model a style or a subject."),
    ] = ()
    refiner_model: Annotated[
        str | None,
        Field(max_length=400),
        Knob(
            "Refiner",
            "A second checkpoint for the last steps; SDXL or SD 1.5.",
            wire_default="None",
        ),
    ] = None
    refiner_switch: Annotated[
        float,
        Field(ge=0, le=1),
        Knob(
            "Refiner from",
            "0.4 for SD 1.5 realistic, 0.667 for SD 1.5 anime, 0.8 for SDXL refiners.",
            0.0001,
            wire_default=0.8,
        ),
    ] = 0.5
    output_format: Annotated[
        OutputFormat, Knob("Format", "File type of the picture.", wire_default="jpeg")
    ] = "png"
    enable_safety_checker: Annotated[
        bool,
        Knob(
            "Safety checker",
            "Finished pictures that it takes for unsafe become black; there are no previews then.",
            wire_default=True,
        ),
    ] = False
    image_prompts: Annotated[
        tuple[ImagePrompt, ...],
        Field(max_length=MAX_IMAGE_PROMPTS),
        Knob("Image prompts", "Images that the picture follows."),
    ] = ()
    inpaint: Annotated[Inpaint | None, Knob("Inpaint", "A picture that is repainted in part.")] = (
        None
    )
    upscale_or_vary: Annotated[
        UpscaleOrVary | None, Knob("Upscale or vary", "A picture that is varied or enlarged.")
    ] = None
    mask_from: Annotated[
        MaskFrom | None,
        Knob("Mask from the picture", "A mask is made in place of pictures, for Inpaint."),
    ] = None
    describe: Annotated[
        Describe | None,
        Knob("Describe", "A picture is put into words; nothing is painted."),
    ] = None
    enhance: Annotated[
        Enhance | None,
        Knob("Enhance", "Finished pictures are enlarged, and what is found in them repainted."),
    ] = None
    studio: Annotated[
        Studio | None,
        Knob("LoRA studio", "Painted as diffusers does it, with any add-ons, not as Fooocus."),
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=0, le=MAX_SEED),
        Knob("Seed", "Same seed, same picture; empty draws one."),
    ] = None
    advanced: Annotated[Advanced, Knob("Advanced", "Settings beyond the common ones.")] = Advanced()

    @field_validator("refiner_model")
    @classmethod
    def _is_named(cls, value: str | None) -> str | None:
        """Read fal's and Fooocus' word for none."""
        return None if value in ("", "None") else value

    @field_validator("aspect_ratio")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        size = parse_size(value)
        if size.width % LATENT_FACTOR or size.height % LATENT_FACTOR:
            raise ValueError(f"expected multiples of {LATENT_FACTOR}, got {value!r}")
        if min(size) < 64 or max(size) > MAX_SIDE or size.area > MAX_AREA:
            raise ValueError(
                f"expected sides from 64 to {MAX_SIDE} and at most {MAX_AREA} pixels, got {value!r}"
            )
        return str(size)

    @field_validator("upscale_or_vary")
    @classmethod
    def _starts_once(
        cls, value: UpscaleOrVary | None, info: ValidationInfo
    ) -> UpscaleOrVary | None:
        if value is not None and info.data.get("inpaint") is not None:
            raise ValueError("expected nothing beside inpaint, got both")
        return value

    @field_validator("mask_from", "describe")
    @classmethod
    def _is_alone(
        cls, value: MaskFrom | Describe | None, info: ValidationInfo
    ) -> MaskFrom | Describe | None:
        others = ("inpaint", "upscale_or_vary", "mask_from")
        other = next(
            (it for it in others if it != info.field_name and info.data.get(it) is not None), None
        )
        if value is not None and other is not None:
            raise ValueError(f"expected nothing beside {other}, got both")
        return value

    @field_validator("enhance")
    @classmethod
    def _has_pictures(cls, value: Enhance | None, info: ValidationInfo) -> Enhance | None:
        others = ["mask_from", "describe"]
        if value is not None and value.image is not None:
            others += ["inpaint", "upscale_or_vary"]
        other = next((it for it in others if info.data.get(it) is not None), None)
        if value is not None and other is not None:
            raise ValueError(f"expected nothing beside {other}, got both")
        return value

    @field_validator("studio")
    @classmethod
    def _paints_from_noise(cls, value: Studio | None, info: ValidationInfo) -> Studio | None:
        others = ("loras", "refiner_model", "image_prompts", "inpaint", "upscale_or_vary")
        other = next(
            (name for name in (*others, "mask_from", "describe", "enhance") if info.data.get(name)),
            None,
        )
        if value is not None and other is not None:
            raise ValueError(f"expected nothing beside {other}, got both")
        return value

    @classmethod
    def parse(cls, values: object) -> Self:
        """Check `values` (a mapping of field names) and freeze them.

        Raises:
            InvalidRequest: naming the first field at fault, its rule and the value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _first_problem(error) from error


def _first_problem(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "request"
    if first["type"] == "value_error":
        return InvalidRequest(field, str(first["ctx"]["error"]))
    if first["type"] == "extra_forbidden":
        return InvalidRequest(field, "no such field")
    rule = first["msg"].removeprefix("Input should be ")
    shown = repr(first["input"])
    return InvalidRequest(field, f"expected {rule}, got {shown[:80]}")
