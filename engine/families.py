"""What kind of model a safetensors file holds, told from its tensor names and shapes alone.

Knows the layouts of the field's common files well enough to refuse each with a sentence that says what it is.
"""

from collections.abc import Mapping
from typing import Literal

from engine.errors import ModelIncompatible

Shapes = Mapping[str, tuple[int, ...]]
Family = Literal["sdxl", "sdxl-refiner", "sd15"]
"""What the engine can run: an SDXL base model, the SDXL refiner, a Stable Diffusion 1.5 model."""
BaseFamily = Literal["sdxl", "sd15"]
"""What can paint a whole picture."""

ControlFamily = Literal["controlnet", "union"]
"""What can steer an SDXL model by a drawing: a net for one kind of drawing, or for several."""

SDXL_CONTEXT = 2048
"""Width of the text that an SDXL base model attends to."""
REFINER_LABEL = 2560
"""Width of the added conditioning of the SDXL refiner; the base model's is 2816."""
SD15_CONTEXT = 768
"""Width of the text that a Stable Diffusion 1.x UNet attends to."""
SD2_CONTEXT = 1024
"""The same of 2.x, which is built alike."""
_CONTEXT_SD1 = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_CONTEXT = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_LABEL = "model.diffusion_model.label_emb.0.0.weight"
_CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
_TEXT_1 = "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
_TEXT_2 = "conditioner.embedders.1.model.token_embedding.weight"
_TEXT_SD1 = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
_VAE = "first_stage_model.decoder.conv_in.weight"
_VAE_PREFIX = "first_stage_model."
_VAE_SIDES = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_PARTS: Mapping[BaseFamily, Mapping[str, tuple[str, ...]]] = {
    "sdxl": {
        "attention over text": (_CONTEXT,),
        "text encoders": (_TEXT_1, _TEXT_2),
        "VAE": (_VAE,),
    },
    "sd15": {"text encoder": (_TEXT_SD1,), "VAE": (_VAE,)},
}
NAMES: Mapping[BaseFamily, str] = {"sdxl": "SDXL", "sd15": "Stable Diffusion 1.5"}
"""What people call them."""

PIPELINES: Mapping[str, Family] = {
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLImg2ImgPipeline": "sdxl-refiner",
    "StableDiffusionPipeline": "sd15",
}
"""What a diffusers folder is, by the pipeline that its index names."""


def require_base(name: str, shapes: Shapes) -> BaseFamily:
    """Make sure that a single file is a whole base checkpoint, and tell its family.

    Args:
        name: File name, for the message.
        shapes: Tensor name to shape, as `engine.catalog.read_header` reads them.

    Raises:
        ModelIncompatible: it is something else; the sentence says what.
    """
    family = family_of(shapes)
    found = _foreign(shapes) or _unfit_to_paint(family, shapes)
    if found or family is None or family == "sdxl-refiner":
        wanted = "an SDXL or Stable Diffusion 1.5 base checkpoint"
        raise ModelIncompatible(f"{name}: expected {wanted}, got {found}")
    return family


def require_refiner(name: str, shapes: Shapes) -> Family:
    """Make sure that a single file can refine, and tell its family.

    Args:
        name: File name, for the message.
        shapes: Tensor name to shape, as `engine.catalog.read_header` reads them.

    Raises:
        ModelIncompatible: it cannot; the sentence says what it is.
    """
    family = family_of(shapes)
    found = _foreign(shapes) or _unfit_to_refine(family, shapes)
    if found or family is None:
        wanted = "an SDXL base model, an SDXL refiner or a Stable Diffusion 1.5 model as refiner"
        raise ModelIncompatible(f"{name}: expected {wanted}, got {found}")
    return family


def family_of(shapes: Shapes) -> Family | None:
    """Tell which family a single file is of; None where it is of none that the engine can run."""
    if _foreign(shapes):
        return None
    label = _inputs(shapes, _LABEL)
    if label is None:
        context = _inputs(shapes, _CONTEXT_SD1)
        own = _inputs(shapes, _TEXT_SD1)  # of another width in models smaller than the real ones
        return "sd15" if context is not None and context in (SD15_CONTEXT, own) else None
    return "sdxl-refiner" if label == REFINER_LABEL else "sdxl"


def control_family_of(shapes: Shapes) -> ControlFamily | None:
    """Tell what kind of ControlNet for SDXL a file holds, a control-LoRA being one; None where it holds none."""
    parts = {key.removeprefix("control_model.").partition(".")[0] for key in shapes}
    if not parts & {"controlnet_cond_embedding", "input_hint_block", "lora_controlnet"}:
        return None
    if text_width(shapes) not in (None, SDXL_CONTEXT):
        return None
    return "union" if "task_embedding" in parts else "controlnet"


def text_width(shapes: Shapes) -> int | None:
    """Tell how wide the text is that the file's network attends to; None where it attends to none."""
    for key, shape in shapes.items():
        if key.endswith((".attn2.to_k.weight", ".attn2.to_k.down")) and len(shape) > 1:
            return shape[1]
    return None


def is_v_prediction(shapes: Shapes) -> bool:
    """Say whether the checkpoint carries the marker of v-prediction training."""
    return "v_pred" in shapes


def _foreign(shapes: Shapes) -> str | None:
    if any("lora_" in key or ".lora" in key for key in shapes):
        return "a LoRA; it belongs into the loras folder"
    if any(
        key.startswith(("double_blocks.", "model.diffusion_model.double_blocks.")) for key in shapes
    ):
        return "a Flux model"
    if any("joint_blocks." in key for key in shapes):
        return "a Stable Diffusion 3 model"
    if any(key.startswith(("down_blocks.", "mid_block.")) for key in shapes):
        return "a network in diffusers' own layout; put its whole folder, with model_index.json, there instead"
    if _CONV_IN not in shapes:
        is_vae = bool(shapes) and all(
            key.removeprefix(_VAE_PREFIX).startswith(_VAE_SIDES) for key in shapes
        )
        return "a VAE; it belongs into the vae folder" if is_vae else "no diffusion model"
    return None


def _unfit_to_paint(family: Family | None, shapes: Shapes) -> str | None:
    if family is None:
        return "a Stable Diffusion 2.x model"
    if family == "sdxl-refiner":
        return "an SDXL refiner; choose it as refiner, not as base"
    channels = _inputs(shapes, _CONV_IN)
    if channels != 4:
        return f"a special {NAMES[family]} model with {channels} input channels"
    for part, keys in _PARTS[family].items():
        if any(key not in shapes for key in keys):
            article = "an" if family == "sdxl" else "a"
            return f"{article} {NAMES[family]} model without its {part}"
    return None


def _unfit_to_refine(family: Family | None, shapes: Shapes) -> str | None:
    if family is None:
        return "a Stable Diffusion 2.x model"
    channels = _inputs(shapes, _CONV_IN)
    if channels != 4:
        return f"a special model with {channels} input channels"
    if family == "sd15" and _VAE not in shapes:
        return "a Stable Diffusion 1.5 model without its VAE"
    return None


def _inputs(shapes: Shapes, key: str) -> int | None:
    """Read how wide the input of a layer is; None where there is no such layer."""
    shape = shapes.get(key, ())
    return shape[1] if len(shape) > 1 else None
