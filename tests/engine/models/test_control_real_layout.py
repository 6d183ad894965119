"""ControlNets at full size, every weight with its real name and shape, but without memory."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import ModelIncompatible
from engine.families import ControlFamily, control_family_of
from engine.models.checkpoints import CONFIGS
from engine.models.control_layouts import original_modules
from engine.models.controlnets import ControlNet, build_controlnet
from tests import real_layout
from tests.real_layout import SDXL, SDXL_REFINER, Shapes, UNetLayout
from tests.toy_controls import Tensors, control_lora

pytestmark = pytest.mark.torch

FULL: Mapping[str, Any] = {
    "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
}
"""The settings of the SDXL ControlNets of the hub."""
PLAIN: Mapping[str, Mapping[str, Any]] = {
    "large": {},
    "mid": {"transformer_layers_per_block": (0, 0, 1)},
    "small": {
        "down_block_types": ("DownBlock2D",) * 3,
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": (0, 0, 0),
    },
}
"""What is different in the smaller ones."""
NEW = ("controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block")
"""Parts that no UNet has."""


@cache
def unet(folder: str = "sdxl") -> Any:
    from diffusers import UNet2DConditionModel

    settings = UNet2DConditionModel.load_config(CONFIGS / folder / "unet")
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(settings).requires_grad_(requires_grad=False)


def hollow(kind: str, **settings: Any) -> Any:
    import diffusers

    with torch.device("meta"):
        return getattr(diffusers, kind)(**settings)


def assert_as(net: ControlNet, network: Any) -> None:
    """Hold a net against the network it was written from."""
    weights = {**net.network.state_dict(), **prefixed(net)}
    ours = {
        key.replace(".layer.", ".", 1): tuple(value.shape) for key, value in weights.items()
    }  # rows of a Union are kept apart by a module around each of its layers
    assert ours == {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert comparable(net.network.config) == comparable(network.config)


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Bring settings to one form; how deep attention is in levels without any means nothing."""
    known = {
        key: tuple(value) if isinstance(value, list | tuple) else value
        for key, value in config.items()
        if not key.startswith("_")
    }
    pairs = zip(known["down_block_types"], known["transformer_layers_per_block"], strict=True)
    depths = [depth for kind, depth in pairs if kind == "CrossAttnDownBlock2D"]
    return known | {"transformer_layers_per_block": depths}


def prefixed(net: ControlNet) -> dict[str, Tensor]:
    return {f"{NEW[0]}.{key}": value for key, value in net.hint_encoder.state_dict().items()}


@pytest.mark.parametrize("size", list(PLAIN))
def test_controlnets_of_sdxl_are_known_by_their_shapes(size: str) -> None:
    network = hollow("ControlNetModel", **{**FULL, **PLAIN[size]})
    assert_as(build_controlnet(size, network.state_dict(), unet()), network)


@pytest.mark.parametrize("kinds", [6, 8])
def test_unions_of_sdxl_are_known_by_their_shapes(kinds: int) -> None:
    settings = {**FULL, "num_control_type": kinds}
    settings["conditioning_embedding_out_channels"] = (48, 96, 192, 384)
    network = hollow("ControlNetUnionModel", **settings)
    net = build_controlnet("union", network.state_dict(), unet())
    assert net.modes == kinds
    assert_as(net, network)
    assert family(network.state_dict()) == "union"


def family(file: Tensors) -> ControlFamily | None:
    return control_family_of({key: tuple(value.shape) for key, value in file.items()})


def original_shapes(layout: UNetLayout) -> Shapes:
    """List a ControlNet's original keys: the UNet's way down and its middle, and what is new."""
    kept = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
    shapes = {
        key: shape for key, shape in real_layout.unet_shapes(layout).items() if key.startswith(kept)
    }
    inputs = 3
    widths = (16, 16, 32, 32, 96, 96, 256, layout.channels[0])
    for number, width in enumerate(widths):
        shapes |= layer(f"input_hint_block.{2 * number}", width, inputs, 3, 3)
        inputs = width
    skips = [layout.channels[0]]
    for level, width in enumerate(layout.channels):
        skips += [width] * (2 if level == len(layout.channels) - 1 else 3)
    for number, width in enumerate(skips):
        shapes |= layer(f"zero_convs.{number}.0", width, width, 1, 1)
    return shapes | layer("middle_block_out.0", skips[-1], skips[-1], 1, 1)


def layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def meta_tensors(shapes: Shapes) -> Tensors:
    return {
        key: torch.empty(shape, device="meta", dtype=torch.float16) for key, shape in shapes.items()
    }


def test_original_files_of_sdxl_are_known() -> None:
    file = meta_tensors(original_shapes(SDXL))
    net = build_controlnet("old", file, unet())
    assert_as(net, hollow("ControlNetModel", **FULL))
    prefixed = {f"control_model.{key}": value for key, value in file.items()}
    assert_as(build_controlnet("old", prefixed, unet()), net_of(net))
    assert family(prefixed) == "controlnet"


def net_of(net: ControlNet) -> Any:
    return hollow("ControlNetModel", **net.network.config)


def test_sd15_names_are_those_of_diffusers_converter() -> None:
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    file = meta_tensors(original_shapes(real_layout.SD15))
    keys = {id(value): key for key, value in file.items()}
    converted = convert_controlnet_checkpoint(file, {"layers_per_block": 2})
    modules = {
        key.rpartition(".")[0]: keys[id(value)].rpartition(".")[0]
        for key, value in converted.items()
    }
    assert original_modules(unet("sd15").config, modules) == modules
    assert family(file) is None
    net = build_controlnet("sd15", file, unet("sd15"))
    weights = {**net.network.state_dict(), **prefixed(net)}
    assert {key: value.shape for key, value in weights.items()} == {
        key: value.shape for key, value in converted.items()
    }


@pytest.mark.parametrize(("rank", "megabytes"), [(128, 396), (256, 774)])
def test_control_loras_of_stability_are_known(rank: int, megabytes: int) -> None:
    file = control_lora(meta_tensors(original_shapes(SDXL)), rank)
    size = 2 * sum(math.prod(value.shape) for value in file.values())
    assert round(size / 1e6) == megabytes  # as the files on the hub
    assert family(file) == "controlnet"
    net = build_controlnet("lora", file, unet())
    assert_as(net, hollow("ControlNetModel", **FULL))
    assert len(net.merged) == sum(key.endswith(".up") for key in file)
    whole = {merged.weight for merged in net.merged}
    shared = set(unet().parameters())
    assert not whole & shared


def test_a_net_of_the_refiner_is_refused() -> None:
    for file in (
        meta_tensors(original_shapes(SDXL_REFINER)),
        control_lora(meta_tensors(original_shapes(SDXL_REFINER)), 8),
    ):
        with pytest.raises(
            ModelIncompatible, match="text is 2048 wide, got one for text 1280 wide$"
        ):
            build_controlnet("refiner", file, unet())
