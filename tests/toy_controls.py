"""ControlNets for the toy UNet with random weights, and files of them in the layouts of the field."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.golden_data import golden_model

HINT_WIDTHS = (8, 8, 16, 16)
NAMES: dict[str, str] = json.loads(golden_model("tiny_unet_names.json").read_text())[
    "original_to_diffusers"
]
Tensors = dict[str, Tensor]


def shake(network: Any, seed: int = 0) -> Any:
    """Give a network random weights throughout, so that its zero convolutions speak; without gradients."""
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data += 0.3 * noise * max(1, weight[0].numel()) ** -0.5
    return network.eval().requires_grad_(requires_grad=False)


def toy_controlnet(unet: Any, **changes: Any) -> Any:
    from diffusers import ControlNetModel

    plain = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_WIDTHS)
    return shake(ControlNetModel.from_config({**plain.config, **changes}))


def toy_union(unet: Any, kinds: int = 8) -> Any:
    from diffusers import ControlNetModel, ControlNetUnionModel

    plain = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_WIDTHS)
    known = {
        key: value
        for key, value in plain.config.items()
        if not key.startswith("_") and key != "mid_block_type"
    }
    sizes = {"num_trans_channel": 32, "num_proj_channel": 32, "num_control_type": kinds}
    torch.manual_seed(5)
    return shake(ControlNetUnionModel(**known, **sizes))


def original_layout(weights: Mapping[str, Tensor]) -> Tensors:
    """Give a toy ControlNet's weights their original names."""
    diffusers_to_original = {new: old for old, new in NAMES.items()}
    return {original_key(key, diffusers_to_original): value for key, value in weights.items()}


def original_key(key: str, names: Mapping[str, str]) -> str:
    module, _, kind = key.rpartition(".")
    part, _, number = module.rpartition(".")
    match part:
        case "controlnet_down_blocks":
            return f"zero_convs.{number}.0.{kind}"
        case "":
            return f"middle_block_out.0.{kind}" if number == "controlnet_mid_block" else names[key]
        case "controlnet_cond_embedding":
            return f"input_hint_block.{ {'conv_in': 0, 'conv_out': 14}[number] }.{kind}"
        case "controlnet_cond_embedding.blocks":
            return f"input_hint_block.{2 + 2 * int(number)}.{kind}"
    return names[key]


def control_lora(original: Mapping[str, Tensor], rank: int = 4, seed: int = 3) -> Tensors:
    """Make a file as Stability's: every matrix of the network low-rank, the rest and the new parts whole.

    Args:
        original: A ControlNet in the original layout; shapes may be those of any model, and without memory.
        rank: Of the changes.
        seed: Of their values.
    """
    generator = torch.Generator().manual_seed(seed)
    file: Tensors = {"lora_controlnet": torch.zeros(0)}
    for key, value in original.items():
        is_new = key.startswith(("input_hint_block.", "zero_convs.", "middle_block_out."))
        if is_new or value.ndim < 2:
            file[key] = value
            continue
        module = key.removesuffix(".weight")
        sizes = {"up": (value.shape[0], rank), "down": (rank, *value.shape[1:])}
        for factor, size in sizes.items():
            file[f"{module}.{factor}"] = (
                torch.empty(size, device="meta")
                if value.is_meta
                else 0.1 * torch.randn(size, generator=generator)
            )
    return file


def question(unet: Any, rows: int = 2, *, side: int = 8, seed: int = 7) -> dict[str, Any]:
    """Draw what a UNet could be asked: `rows` rows at different timesteps."""
    generator = torch.Generator(device="cpu").manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(unet.device, unet.dtype)

    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return {
        "x": draw(rows, 4, side, side),
        "timesteps": torch.linspace(900.0, 100.0, rows).to(unet.device),
        "context": draw(rows, 9, config.cross_attention_dim),
        "added": {
            "text_embeds": draw(rows, pooled),
            "time_ids": torch.full((rows, 6), 64.0).to(unet.device),
        },
    }


def hint(side: int = 8, seed: int = 11) -> Tensor:
    """Draw a drawing for latents of that side."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, 8 * side, 8 * side, generator=generator)
