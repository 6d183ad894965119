"""An IP-Adapter plus of real size beside SDXL's UNet: ours against diffusers' own, layer by layer and in a whole step."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.conditioning.image_attention import (
    ImageAttention,
    ImagePrompt,
    ImageTokens,
    attend_images,
    attention_kwargs,
    image_layers,
)
from engine.models.image_encoders import EncodedImage
from engine.models.ip_adapters import IPAdapter
from tests.tiny_adapters import Shapes, adapter_shapes, nested, plus_shapes

WIDTH, TOKENS, TOKEN_WIDTH = 1280, 16, 2048
"""Of ViT-H's states and of the tokens that the resampler makes of them."""
PATCHES = 257
QUERIES = 1024
"""Places in a picture that a layer is asked about."""


def shapes_for(unet: Any) -> Shapes:
    """List ``ip-adapter-plus_sdxl_vit-h``."""
    resampler = plus_shapes(WIDTH, WIDTH, TOKEN_WIDTH, count=TOKENS)
    return adapter_shapes(resampler, list(image_layers(unet).values()), TOKEN_WIDTH)


def some_picture() -> EncodedImage:
    """Draw what an encoder might say of a picture."""
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(1, PATCHES, WIDTH, generator=generator)
    return EncodedImage(states, torch.randn(1, 1024, generator=generator))


def our_kwargs(unet: Any, image: ImageTokens) -> dict[str, Any]:
    """Put our processors into a UNet, and say what a call is told about an image of weight 1."""
    attend_images(unet)
    prompt = ImagePrompt(positive=image, negative=image, weight=1.0, formula="separate")
    told = attention_kwargs([[(prompt, False)]])
    assert told is not None
    return told


@torch.inference_mode()
def projection_error(unet: Any, adapter: IPAdapter, tensors: Mapping[str, Tensor]) -> float:
    """Compare the tokens of a picture with diffusers' in float32: greatest difference over their spread."""
    weights = nested({key: value.float() for key, value in tensors.items() if "image_proj" in key})
    library = unet._convert_ip_adapter_image_proj_to_diffusers(
        weights["image_proj"], low_cpu_mem_usage=False
    )
    wanted = library(some_picture().hidden_states)
    return _error(adapter.project(some_picture()), wanted)


@torch.inference_mode()
def layer_errors(unet: Any, adapter: IPAdapter) -> list[float]:
    """Compare each layer with diffusers' `IPAdapterAttnProcessor2_0` on the same weights in float32.

    Returns:
        For each layer the greatest difference over the answer's spread.
    """
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    tokens = adapter.project(some_picture())
    told = our_kwargs(unet, dataclasses.replace(adapter, dtype=torch.float32).attend(tokens))
    generator, errors, start = torch.Generator().manual_seed(3), [], 0
    text = torch.randn(1, 77, TOKEN_WIDTH, generator=generator)
    pairs = zip(image_layers(unet).items(), adapter.matrices, strict=True)
    for (name, width), (keys, values) in pairs:
        layer = copy.deepcopy(unet.get_submodule(name.removesuffix(".processor"))).float()
        states = torch.randn(1, QUERIES, width, generator=generator)
        library: Any = IPAdapterAttnProcessor2_0(
            width, TOKEN_WIDTH, num_tokens=(TOKENS,), scale=1.0
        )
        library.to_k_ip[0].weight.data = keys.float()
        library.to_v_ip[0].weight.data = values.float()
        wanted = library(layer, states, encoder_hidden_states=(text, [tokens]))
        ours = ImageAttention(start)(layer, states, text, **told)
        errors.append(_error(ours, wanted))
        start += 2 * width
    return errors


def attach_library(unet: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Put diffusers' own adapter into a UNet, and say what a call is told besides."""
    unet._load_ip_adapter_weights([nested(tensors)], low_cpu_mem_usage=False)
    return {"image_embeds": [some_picture().hidden_states[:, None].to(unet.dtype)]}


def _error(ours: Tensor, wanted: Tensor) -> float:
    return float((ours - wanted).abs().max() / wanted.std())
