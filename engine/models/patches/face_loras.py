"""The LoRA that FaceID adapters carry: changes of a UNet's attention, numbered as its layers are.

All layers count, those of the picture itself too: way down, way up, middle, as in `image_attention.image_layers`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

_KEY = re.compile(r"(?:ip_adapter\.)?(\d+)\.(to_(?:q|k|v|out)_lora\.(?:up|down)\.weight)")


def is_face_lora(key: str) -> bool:
    """Whether a key of an adapter's file is of the LoRA that it carries."""
    return _KEY.fullmatch(key) is not None


def attention_names(unet: Any) -> tuple[str, ...]:
    """List a UNet's attention layers in the order of those numbers; empty for another network."""
    return tuple(getattr(unet, "attn_processors", ()))


def without_adapter(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Mapping[str, Tensor]:
    """Take the LoRA out of an adapter's file, under the names that files of LoRAs have; other files stay as they are.

    Args:
        tensors: Of the file.
        names: From `attention_names`; what has a number beyond them keeps its key, which belongs to nothing.
    """
    matches = {key: match for key in tensors if (match := _KEY.fullmatch(key))}
    if not matches:
        return tensors
    return {
        f"unet.{names[int(match[1])]}.{match[2]}" if int(match[1]) < len(names) else key: tensors[
            key
        ]
        for key, match in matches.items()
    }
