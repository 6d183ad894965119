"""What a refiner is told of the words that were encoded for the base model."""

from typing import Any

import torch
from torch import Tensor

from engine.conditioning.text import TextConditioning
from engine.families import Family

CLIP_L_WIDTH = 768
"""Columns of SDXL's context that come from its first text encoder; the second one's follow."""


def convert_text(
    text: TextConditioning, family: Family, final_norm: Any | None = None
) -> tuple[Tensor, Tensor | None]:
    """Turn SDXL's conditioning into that of a refiner.

    A base model of SDXL is told the same; SDXL's refiner knows the second text encoder alone; SD 1.5 the first, after the
    last layer norm that SDXL leaves out.

    Args:
        text: What the base model is told; context (1, tokens, 2048).
        family: What the refiner is.
        final_norm: The last `LayerNorm` of the first text encoder; SD 1.5 needs it.

    Returns:
        Context (1, tokens, C) float32, and the pooled vector (1, P), None where the refiner takes none.
    """
    context, pooled = text.prompt_embeds, text.pooled_prompt_embeds
    if family == "sdxl":
        return context, pooled
    if family == "sdxl-refiner":
        return context[..., CLIP_L_WIDTH:], pooled
    assert final_norm is not None, "SD 1.5 needs the first encoder's last norm"
    weight, bias = (part.detach().float().cpu() for part in (final_norm.weight, final_norm.bias))
    normed = torch.nn.functional.layer_norm(
        context[..., :CLIP_L_WIDTH].float(), weight.shape, weight, bias, final_norm.eps
    )
    return normed, None
