"""The part of a request that sets the LoRA studio to work: weights by name, address or hub id, and diffusers' conventions.

Fields carry the names that fal's LoRA endpoint gives them, where it has them. Pictures are named as in
`engine.image_inputs`. Names of weights are those of the catalog, or addresses, or ids of the Hugging Face hub
(`engine.references`).
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.image_inputs import Picture
from engine.knobs import Knob, RequestPart

StudioScheduler = Literal[
    "DPM++ 2M",
    "DPM++ 2M Karras",
    "DPM++ 2M SDE",
    "DPM++ 2M SDE Karras",
    "Euler",
    "Euler A",
    "Euler (trailing timesteps)",
    "LCM",
    "LCM (trailing timesteps)",
    "DDIM",
    "TCD",
]
PredictionType = Literal["epsilon", "v_prediction"]

MAX_ADDONS = 16
"""Most ControlNets, and most IP-Adapters, of a request."""
MAX_TOKENS = 64
"""Most words that one embedding stands for."""
MAX_STEPS = 150
"""Most steps, and longest list of timesteps or noise levels."""
MAX_LORAS = 64
"""Most LoRAs of a request."""
MAX_SCALE = 10.0
"""Largest weight of an IP-Adapter; fal names no largest."""

Named = Annotated[str, Field(min_length=1, max_length=2000)]
"""A name of the catalog, an address, or a hub id."""
Word = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\S+$")]


class StudioLora(RequestPart):
    """One LoRA and how strongly it acts."""

    path: Annotated[Named, Knob("LoRA", "A file of the loras folder, an address, or a hub id.")]
    weight_name: Annotated[
        str | None,
        Field(max_length=400),
        Knob("File", "Of a hub id: which of its files; empty takes the usual one."),
    ] = None
    scale: Annotated[
        float,
        Field(ge=-4, le=4),
        Knob("Weight", "0 is off, 1 as trained; below 0 pushes away.", 0.01, wire_bounds=(0, 4)),
    ] = 1.0


class Embedding(RequestPart):
    """One textual inversion, and the words that stand for it."""

    path: Annotated[
        Named, Knob("Embedding", "A file of the embeddings folder, an address, or a hub id.")
    ]
    tokens: Annotated[
        tuple[Word, ...],
        Field(min_length=1, max_length=MAX_TOKENS),
        Knob("Words", "The words of the prompt that stand for it, a vector each."),
    ] = ("<s0>", "<s1>")


class StudioControl(RequestPart):
    """One ControlNet and the drawing that it follows; the drawing is taken as it is."""

    path: Annotated[
        Named, Knob("ControlNet", "A name of the controlnet folder, an address, or a hub id.")
    ]
    config_url: Annotated[
        str | None,
        Field(max_length=2000),
        Knob("Configuration", "Address of its config.json, where it has none beside it."),
    ] = None
    variant: Annotated[
        str | None, Field(max_length=40), Knob("Variant", "Of a hub id, such as 'fp16'.")
    ] = None
    image: Annotated[Picture, Knob("Drawing", "What is followed.")]
    mask: Annotated[
        Picture | None, Knob("Mask", "Where it is followed: white; stretched to the drawing.")
    ] = None
    mode: Annotated[
        str | None,
        Field(max_length=40),
        Knob("Mode", "Of a ControlNet Union: the kind of drawing, such as 'depth'."),
    ] = None
    conditioning_scale: Annotated[
        float, Field(ge=0, le=2), Knob("Weight", "How strongly it is followed; 0 is off.", 0.01)
    ] = 1.0
    start_percentage: Annotated[
        float, Field(ge=0, le=1), Knob("From", "Share of the steps before it begins.", 0.01)
    ] = 0.0
    end_percentage: Annotated[
        float, Field(ge=0, le=1), Knob("Until", "Share of the steps after which it ends.", 0.01)
    ] = 1.0
    ip_adapter_index: Annotated[
        int | None,
        Field(ge=0, lt=MAX_ADDONS),
        Knob("IP-Adapter", "Of InstantID: number of the adapter that it reads, from 0.", 1),
    ] = None

    @field_validator("end_percentage")
    @classmethod
    def _ends_later(cls, value: float, info: ValidationInfo) -> float:
        start = info.data.get("start_percentage", 0.0)
        if value <= start:
            raise ValueError(f"expected more than start_percentage, {start}, got {value}")
        return value


class StudioAdapter(RequestPart):
    """One IP-Adapter and the pictures that it shows the model."""

    images: Annotated[
        tuple[Picture, ...],
        Field(min_length=1, max_length=MAX_ADDONS),
        Knob("Pictures", "What the picture follows; several are shown together."),
    ]
    mask: Annotated[Picture | None, Knob("Mask", "Where in the picture it acts: white.")] = None
    path: Annotated[
        Named, Knob("IP-Adapter", "A name of the controlnet folder, an address, or a hub id.")
    ]
    model_subfolder: Annotated[
        str | None, Field(max_length=400), Knob("Folder", "Of a hub id: where its file lies.")
    ] = None
    weight_name: Annotated[
        str | None, Field(max_length=400), Knob("File", "Of a hub id: which of its files.")
    ] = None
    insight_face_model_path: Annotated[
        str | None,
        Field(max_length=2000),
        Knob("Face model", "Of FaceID: a folder of models/insightface."),
    ] = None
    scale: Annotated[
        float, Field(ge=0, le=MAX_SCALE), Knob("Weight", "How strongly it acts; 0 is off.", 0.01)
    ] = 1.0
    layer_scales: Annotated[
        str | None,
        Field(max_length=4000),
        Knob("Weights by layer", "As JSON, by diffusers' names; replaces the weight."),
    ] = None
    unconditional_noising_factor: Annotated[
        float,
        Field(ge=0, le=1),
        Knob("Noise", "How much noise the negative side is shown instead of nothing.", 0.01),
    ] = 0.0
    image_projection_shortcut: Annotated[
        bool, Knob("Shortcut", "Of FaceID Plus: off for version 1, on for version 2.")
    ] = True


class IcLight(RequestPart):
    """IC-Light: a picture is lit anew, by words or by a background."""

    path: Annotated[Named, Knob("Model", "A name of the ic_light folder, an address, or a hub id.")]
    image: Annotated[Picture, Knob("Picture", "What is lit anew.")]
    background: Annotated[Picture | None, Knob("Background", "Where the light comes from.")] = None


class Tiles(RequestPart):
    """The tiles that a large picture is painted in; sizes in pixels of a model that was trained at 1024."""

    width: Annotated[int, Field(ge=128, le=4096), Knob("Tile width", "Pixels.", 64)] = 4096
    height: Annotated[int, Field(ge=128, le=4096), Knob("Tile height", "Pixels.", 64)] = 4096
    stride_width: Annotated[
        int, Field(ge=64, le=2048), Knob("Stride", "Pixels from one tile to the next.", 64)
    ] = 2048
    stride_height: Annotated[
        int, Field(ge=64, le=2048), Knob("Stride downwards", "Pixels to the next row.", 64)
    ] = 2048

    @field_validator("stride_width", "stride_height")
    @classmethod
    def _overlaps(cls, value: int, info: ValidationInfo) -> int:
        side = info.field_name.removeprefix("stride_") if info.field_name else ""
        tile = info.data.get(side, value)
        if value > tile:
            raise ValueError(f"expected at most the tile's {side}, {tile}, got {value}")
        return value


class Studio(RequestPart):
    """What the LoRA studio can do beyond a text request. With it nothing is done as Fooocus does it."""

    loras: Annotated[
        tuple[StudioLora, ...],
        Field(max_length=MAX_LORAS),
        Knob("LoRAs", "Small files that teach the base model a style or a subject."),
    ] = ()
    unet_name: Annotated[
        str | None,
        Field(max_length=2000),
        Knob("UNet", "Another UNet for the base model: a name, an address, or a hub id."),
    ] = None
    variant: Annotated[
        str | None,
        Field(max_length=40),
        Knob("Variant", "Of a base model of the hub, such as 'fp16'."),
    ] = None
    prompt_weighting: Annotated[
        bool,
        Knob("Prompt weighting", "Read (words:1.2) as weights, and more than 77 tokens."),
    ] = False
    embeddings: Annotated[
        tuple[Embedding, ...],
        Field(max_length=MAX_ADDONS),
        Knob("Embeddings", "Textual inversions."),
    ] = ()
    controlnets: Annotated[
        tuple[StudioControl, ...],
        Field(max_length=MAX_ADDONS),
        Knob("ControlNets", "Drawings that the picture follows."),
    ] = ()
    controlnet_guess_mode: Annotated[
        bool, Knob("Guess mode", "Drawings steer the positive side only, so no prompt is needed.")
    ] = False
    ip_adapters: Annotated[
        tuple[StudioAdapter, ...],
        Field(max_length=MAX_ADDONS),
        Knob("IP-Adapters", "Pictures that the picture follows."),
    ] = ()
    image_encoder_path: Annotated[
        str | None,
        Field(max_length=2000),
        Knob("Image encoder", "Reads pictures for the adapters; empty takes the usual one."),
    ] = None
    image_encoder_subfolder: Annotated[
        str | None, Field(max_length=400), Knob("Folder", "Of a hub id: where the encoder lies.")
    ] = None
    image_encoder_weight_name: Annotated[
        str, Field(max_length=400), Knob("File", "Of a hub id: the encoder's file.")
    ] = "pytorch_model.bin"
    ic_light: Annotated[IcLight | None, Knob("IC-Light", "Lights a picture anew.")] = None
    num_inference_steps: Annotated[
        int, Field(ge=1, le=MAX_STEPS), Knob("Steps", "Number of steps.", 1)
    ] = 30
    guidance_scale: Annotated[
        float,
        Field(ge=0, le=20),
        Knob("Guidance scale", "How strongly to follow the prompt; up to 1 is off.", 0.1),
    ] = 7.5
    clip_skip: Annotated[
        int,
        Field(ge=0, le=2),
        Knob("CLIP skip", "Layers of the text encoders left out, beyond the usual one.", 1),
    ] = 0
    scheduler: Annotated[
        StudioScheduler | None,
        Knob("Scheduler", "The method and its noise levels; Euler where none is chosen."),
    ] = None
    timesteps: Annotated[
        tuple[Annotated[int, Field(ge=0, le=999)], ...],
        Field(max_length=MAX_STEPS),
        Knob("Timesteps", "Falling, from 999 to 0; replaces steps and spacing. Empty is off."),
    ] = ()
    sigmas: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1e5, allow_inf_nan=False)], ...],
        Field(max_length=MAX_STEPS + 1),
        Knob("Noise levels", "Falling; replaces steps and spacing. Empty is off."),
    ] = ()
    eta: Annotated[
        float,
        Field(ge=0, le=1),
        Knob("Eta", "New noise at each step, with DDIM and TCD; 0 is none.", 0.01),
    ] = 0.0
    prediction_type: Annotated[
        PredictionType | None,
        Knob("Prediction", "What the base model predicts; empty takes its own."),
    ] = None
    rescale_betas_snr_zero: Annotated[
        bool, Knob("Zero signal", "Let the first noise level be all noise.")
    ] = False
    tiles: Annotated[Tiles, Knob("Tiles", "Large pictures are painted in tiles.")] = Tiles()
    debug_latents: Annotated[bool, Knob("Latents", "Keep the finished latents as a file.")] = False
    debug_per_pass_latents: Annotated[
        bool, Knob("Latents of each step", "Keep them as a file.")
    ] = False

    @field_validator("ip_adapters")
    @classmethod
    def _are_read(
        cls, value: tuple[StudioAdapter, ...], info: ValidationInfo
    ) -> tuple[StudioAdapter, ...]:
        for place, control in enumerate(info.data.get("controlnets", ())):
            index = control.ip_adapter_index
            if index is not None and index >= len(value):
                problem = f"expected an adapter for controlnets.{place}.ip_adapter_index"
                raise ValueError(f"{problem}, {index}, got {len(value)} adapters")
        return value
