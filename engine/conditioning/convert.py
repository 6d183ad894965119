"""What a refiner is told of the words that were encoded for the base model."""

from typing import Any

import torch
from torch import Tensor

from engine.conditioning.text import TextConditioning
from engine.families import Family


def convert_text(
    text: TextConditioning, family: Family, final_norm: Any
) -> tuple[Tensor, Tensor | None]:
    """Turn SDXL's conditioning into that of a refiner.

    A base model of SDXL is told the same; SDXL's refiner knows the second text encoder alone; SD 1.5 the first, after the
    last layer norm that SDXL leaves out.

    Args:
        text: What the base model is told; context (1, tokens, 2048).
        family: What the refiner is.
        final_norm: The last `LayerNorm` of the base model's first text encoder, as wide as its part of the context.

    Returns:
        Context (1, tokens, C) float32, and the pooled vector (1, P), None where the refiner takes none.
    """
    context, pooled = text.prompt_embeds, text.pooled_prompt_embeds
    weight, bias = (part.detach().float().cpu() for part in (final_norm.weight, final_norm.bias))
    first, second = context.tensor_split([len(weight)], -1)
    match family:
        case "sdxl":
            return context, pooled
        case "sdxl-refiner":
            return second, pooled
        case "sd15":
            norm = torch.nn.functional.layer_norm
            return norm(first.float(), weight.shape, weight, bias, final_norm.eps), None
