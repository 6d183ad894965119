"""The LoRA endpoint: any SDXL model, LoRAs and add-ons of diffusers."""

from typing import Any, Literal

from pydantic import Field

from api.wire.fields import WireModel
from api.wire.shared import File, Image
from engine.requests import Advanced
from engine.studio import StudioScheduler

NamedSize = Literal[
    "square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"
]
Method = Literal["default", "array"]


class ImageSize(WireModel):
    """A size in pixels."""

    width: int = Field(512, gt=0, le=14142, description="Width in pixels.")
    height: int = Field(512, gt=0, le=14142, description="Height in pixels.")


class LoraWeight(WireModel):
    """One LoRA and how strongly it acts."""

    path: str = Field(description="A file of the loras folder, an address, or a hub id.")
    scale: float = Field(1.0, ge=0, le=4, description="0 is off, 1 as trained.")


class Embedding(WireModel):
    """One textual inversion."""

    path: str = Field(description="A file of the embeddings folder, or an address.")
    tokens: tuple[str, ...] = Field(
        ("<s0>", "<s1>"), description="The words of the prompt that it stands for."
    )


class ControlNet(WireModel):
    """One ControlNet and its picture."""

    path: str = Field(description="A name, an address, or a hub id.")
    config_url: str | None = Field(None, description="Its configuration.")
    variant: str | None = Field(None, description="Its variant on the hub.")
    image_url: str = Field(description="The picture to follow.")
    mask_url: str | None = Field(None, description="Where to follow it.")
    conditioning_scale: float = Field(1.0, ge=0, le=2, description="How strongly it acts.")
    start_percentage: float = Field(0.0, ge=0, le=1, description="Share of the steps it waits.")
    end_percentage: float = Field(1.0, ge=0, le=1, description="Share of the steps it ends at.")
    ip_adapter_index: int | None = Field(None, description="The IP-Adapter that goes with it.")


class IPAdapter(WireModel):
    """One IP-Adapter and its pictures."""

    ip_adapter_image_url: str | tuple[str, ...] = Field(description="The picture or pictures.")
    ip_adapter_mask_url: str | None = Field(None, description="Where it acts.")
    path: str = Field(description="A name, an address, or a hub id.")
    model_subfolder: str | None = Field(None, description="Where on the hub it is.")
    weight_name: str | None = Field(None, description="Its file on the hub.")
    insight_face_model_path: str | None = Field(None, description="The face model it needs.")
    scale: float = Field(1.0, ge=0, description="How strongly it acts.")
    scale_json: dict[str, Any] | None = Field(None, description="The same by block.")
    unconditional_noising_factor: float = Field(
        0.0, ge=0, le=1, description="Noise on the picture of the negative branch."
    )
    image_projection_shortcut: bool = Field(default=True, description="Which projection of faces.")


class TimestepsInput(WireModel):
    """Timesteps by hand."""

    method: Method = Field("default", description="'array' takes those below.")
    array: tuple[int, ...] = Field((), description="The timesteps.")


class SigmasInput(WireModel):
    """Noise levels by hand."""

    method: Method = Field("default", description="'array' takes those below.")
    array: tuple[float, ...] = Field((), description="The noise levels.")


class LoraInput(WireModel):
    """Pictures from words, by any SDXL model and add-ons."""

    model_name: str = Field(description="A base model: its name, an address, or a hub id.")
    unet_name: str | None = Field(None, description="Another UNet for it.")
    variant: str | None = Field(None, description="Its variant on the hub.")
    prompt: str = Field(description="What the picture shows.")
    negative_prompt: str = Field("", description="What the picture must not show.")
    prompt_weighting: bool = Field(default=False, description="Read (words:1.2) as weights.")
    loras: tuple[LoraWeight, ...] = Field((), description="LoRAs, merged one after another.")
    embeddings: tuple[Embedding, ...] = Field((), description="Textual inversions.")
    controlnets: tuple[ControlNet, ...] = Field((), description="ControlNets.")
    controlnet_guess_mode: bool = Field(default=False, description="Follow them without a prompt.")
    ip_adapter: tuple[IPAdapter, ...] = Field((), description="IP-Adapters.")
    image_encoder_path: str | None = Field(None, description="The encoder they need.")
    image_encoder_subfolder: str | None = Field(None, description="Where on the hub it is.")
    image_encoder_weight_name: str = Field("pytorch_model.bin", description="Its file.")
    ic_light_model_url: str | None = Field(None, description="Weights of IC-Light.")
    ic_light_model_background_image_url: str | None = Field(
        None, description="The background that gives the light."
    )
    ic_light_image_url: str | None = Field(None, description="The picture to light anew.")
    seed: int | None = Field(None, description="Same seed, same picture.")
    image_size: ImageSize | NamedSize = Field("square_hd", description="Size of the picture.")
    num_inference_steps: int = Field(30, ge=1, le=150, description="Number of steps.")
    guidance_scale: float = Field(
        7.5, ge=0, le=20, description="How strongly to follow the prompt."
    )
    clip_skip: int = Field(0, ge=0, le=2, description="Layers of CLIP that are left out.")
    scheduler: StudioScheduler | None = Field(None, description="Sampler and noise levels.")
    timesteps: TimestepsInput = Field(TimestepsInput(), description="Timesteps by hand.")
    sigmas: SigmasInput = Field(SigmasInput(), description="Noise levels by hand.")
    prediction_type: Literal["v_prediction", "epsilon"] = Field(
        "epsilon", description="What the model predicts."
    )
    rescale_betas_snr_zero: bool = Field(
        default=False, description="Let the last level be all noise."
    )
    image_format: Literal["jpeg", "png"] = Field("png", description="File type of the picture.")
    num_images: int = Field(1, ge=1, le=8, description="How many pictures.")
    enable_safety_checker: bool = Field(
        default=False, description="Paint over what is not fit for every eye."
    )
    tile_width: int = Field(4096, ge=128, le=4096, description="Width of a tile.")
    tile_height: int = Field(4096, ge=128, le=4096, description="Height of a tile.")
    tile_stride_width: int = Field(2048, ge=64, le=2048, description="Step from tile to tile.")
    tile_stride_height: int = Field(2048, ge=64, le=2048, description="The same, downwards.")
    eta: float = Field(0.0, ge=0, le=1, description="Share of new noise at each step.")
    debug_latents: bool = Field(default=False, description="Answer with the latents too.")
    debug_per_pass_latents: bool = Field(
        default=False, description="Answer with those of each step too."
    )
    advanced: Advanced | None = Field(None, description="Settings beyond fal's.")


class LoraOutput(WireModel):
    """The pictures."""

    images: tuple[Image, ...] = Field(description="The pictures, in order.")
    seed: int = Field(description="The seed of the first picture; each further one counts up.")
    has_nsfw_concepts: tuple[bool, ...] = Field(
        description="One flag a picture: whether it was painted over."
    )
    debug_latents: File | None = Field(None, description="The latents.")
    debug_per_pass_latents: File | None = Field(None, description="Those of each step.")
