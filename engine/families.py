"""What kind of model a safetensors file holds, told from its tensor names and shapes alone.

Knows the layouts of the field's common files well enough to refuse each with a sentence that says what it is.
"""

from collections.abc import Mapping
from typing import Literal

from engine.errors import ModelIncompatible

Shapes = Mapping[str, tuple[int, ...]]
Family = Literal["sdxl", "sdxl-refiner", "sd15"]
"""What the engine can run: an SDXL base model, the SDXL refiner, a Stable Diffusion 1.5 model."""

REFINER_LABEL = 2560
"""Width of the added conditioning of the SDXL refiner; the base model's is 2816."""
SD15_CONTEXT = 768
"""Width of the text that a Stable Diffusion 1.x UNet attends to; 2.x has 1024."""
_CONTEXT_SD1 = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_CONTEXT = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_LABEL = "model.diffusion_model.label_emb.0.0.weight"
_CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
_TEXT_1 = "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
_TEXT_2 = "conditioner.embedders.1.model.token_embedding.weight"
_VAE = "first_stage_model.decoder.conv_in.weight"
_PARTS = {"attention over text": (_CONTEXT,), "text encoders": (_TEXT_1, _TEXT_2), "VAE": (_VAE,)}


def require_sdxl(name: str, shapes: Shapes) -> None:
    """Make sure that a single file is a whole SDXL base checkpoint.

    Args:
        name: File name, for the message.
        shapes: Tensor name to shape, as `engine.catalog.read_header` reads them.

    Raises:
        ModelIncompatible: it is something else; the sentence says what.
    """
    found = _foreign(shapes) or _incomplete(shapes)
    if found:
        raise ModelIncompatible(f"{name}: expected an SDXL base checkpoint, got {found}")


def family_of(shapes: Shapes) -> Family | None:
    """Tell which family a single file is of; None where it is of none that the engine can run."""
    if _foreign(shapes):
        return None
    label = shapes.get(_LABEL)
    if label is None:
        return "sd15" if shapes.get(_CONTEXT_SD1, (0, 0))[1] == SD15_CONTEXT else None
    return "sdxl-refiner" if label[1] == REFINER_LABEL else "sdxl"


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
        return "no diffusion model"
    return None


def _incomplete(shapes: Shapes) -> str | None:
    label = shapes.get(_LABEL)
    if label is None:
        return "a Stable Diffusion 1.x or 2.x model"
    if label[1] == REFINER_LABEL:
        return "an SDXL refiner; choose it as refiner, not as base"
    channels = shapes[_CONV_IN][1]
    if channels != 4:
        return f"a special SDXL model with {channels} input channels"
    for part, keys in _PARTS.items():
        if any(key not in shapes for key in keys):
            return f"an SDXL model without its {part}"
    return None
