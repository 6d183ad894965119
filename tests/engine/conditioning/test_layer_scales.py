"""Weights by layer are those that diffusers' own expansion gives, and what is wrong is named."""

from pathlib import Path
from typing import Any

import pytest

from engine import InvalidRequest
from engine.conditioning.image_attention import image_layers
from engine.conditioning.layer_scales import read_layer_scales

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def unet() -> Any:
    """SDXL's layout: blocks of two and three transformers, some of them deep; without memory."""
    import torch
    from diffusers import UNet2DConditionModel

    folder = Path(__file__).parents[3] / "engine" / "models" / "configs"
    config = folder / "sdxl" / "unet" / "config.json"
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(config))


@pytest.mark.parametrize(
    "scales",
    [
        0.7,
        1,
        {},
        {"up": {"block_0": [0.0, 1.0, 0.0]}},
        {"down": {"block_2": [0.0, 1.0]}, "up": {"block_0": [0.0, 1.0, 0.0]}},
        {"down": 0.2, "mid": 0.3, "up": [0.1, 0.2, 0.3]},
        {"mid": [0.5], "down": {"block_1": [0.4]}},
    ],
)
def test_weights_are_those_of_diffusers(unet: Any, scales: Any) -> None:
    import json

    from diffusers.loaders.unet_loader_utils import _maybe_expand_lora_scales

    (expanded,) = _maybe_expand_lora_scales(unet, [scales], default_scale=0.0)
    layers = list(image_layers(unet))
    expected = [
        next((scale for name, scale in expanded.items() if layer.startswith(name)), None)
        if isinstance(expanded, dict)
        else expanded
        for layer in layers
    ]
    assert list(read_layer_scales(json.dumps(scales), layers, "x")) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected JSON"),
        ("[" * 10_000, "expected JSON"),
        ('"1"', "expected an object, or -10 to 10"),
        ("true", "expected an object, or -10 to 10"),
        ("1e3", "expected an object, or -10 to 10"),
        ("1" * 400, "expected an object, or -10 to 10"),
        ("NaN", "expected an object, or -10 to 10"),
        ('{"top": 1}', 'expected down or mid or up, got "top"'),
        ('{"up": {"block_9": 1}}', "expected of up block_0 or block_1"),
        ('{"up": {"block_0": [1, 2]}}', r"expected of up\.block_0 a number, or 3 of them, got \[1"),
        ('{"mid": [1, 2]}', "expected of mid a number, or 1 of them"),
        ('{"mid": {"block_0": 1}}', "expected of mid a number of -10 to 10"),
        ('{"down": {"block_1": ["a"]}}', r"expected of down\.block_1 a number of -10 to 10"),
        ('{"down": {"block_1": null}}', r"expected of down\.block_1 a number of -10 to 10"),
        ('{"down": {"block_1": []}}', r"expected of down\.block_1 a number, or 2 of them"),
        ('{"down": {"block_1": -Infinity}}', r"expected of down\.block_1 a number of -10 to 10"),
    ],
)
def test_what_is_wrong_is_named(unet: Any, text: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^a.b: {problem}"):
        read_layer_scales(text, list(image_layers(unet)), "a.b")
