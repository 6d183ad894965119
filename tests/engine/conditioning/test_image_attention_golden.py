"""The joint formula gives Fooocus' numbers: one attention layer, the order of the layers, and whole walks of the toy UNet."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.conditioning.image_attention import (
    ImageAttention,
    ImagePrompt,
    ImageTokens,
    attention_kwargs,
    image_layers,
)
from engine.models.checkpoints import SDXL_CONFIG
from tests.golden_data import golden_arrays, golden_json

pytestmark = pytest.mark.torch

FACTS = golden_json("ip_adapter.json")
ARRAYS = golden_arrays("ip_adapter.npz")


def tensor(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name]).float()


def attention_layer(channels: int, heads: int) -> Any:
    """A layer that hands queries, keys and values through: its text is keys and values side by side."""
    from diffusers.models.attention_processor import Attention

    layer = Attention(
        query_dim=channels,
        cross_attention_dim=2 * channels,
        heads=heads,
        dim_head=channels // heads,
    )
    same, nothing = torch.eye(channels), torch.zeros(channels, channels)
    with torch.no_grad():
        layer.to_q.weight.copy_(same)
        layer.to_k.weight.copy_(torch.cat([same, nothing], 1))
        layer.to_v.weight.copy_(torch.cat([nothing, same], 1))
        layer.to_out[0].weight.copy_(same)
        layer.to_out[0].bias.zero_()
    layer.set_processor(ImageAttention(0))
    return layer.eval()


def image_prompts(case: Mapping[str, Any]) -> list[ImagePrompt]:
    def tokens(image: int, side: str) -> ImageTokens:
        name = f"att{case['i']}_ip{image}_{side}"
        return ImageTokens((tensor(f"{name}_k"),), (tensor(f"{name}_v"),))

    return [
        ImagePrompt(positive=tokens(i, "pos"), negative=tokens(i, "neg"), **task)
        for i, task in enumerate(case["tasks"])
    ]


def is_seen(prompt: ImagePrompt, progress: float) -> bool:
    """Whether Fooocus looks at it: at weight 0 too, where we leave it out."""
    return prompt.is_active(progress) or (prompt.weight == 0 and progress < prompt.stop)


@pytest.mark.parametrize("case", FACTS.get("attention", []), ids=lambda case: str(case["i"]))
@torch.inference_mode()
def test_attention_golden(case: dict[str, Any]) -> None:
    name = f"att{case['i']}"
    layer = attention_layer(case["channels"], case["heads"])
    seen = [prompt for prompt in image_prompts(case) if is_seen(prompt, case["progress"])]
    rows = [[(prompt, half == "negative") for prompt in seen] for half in case["halves"]]
    text = torch.cat([tensor(f"{name}_k"), tensor(f"{name}_v")], -1)
    attended = layer(tensor(f"{name}_q"), text, **attention_kwargs(rows) or {})
    torch.testing.assert_close(attended, tensor(f"{name}_out"), rtol=0, atol=1e-5)


def original_place(name: str) -> list[Any]:
    """Say where a layer is in the original UNet: kind of block, its number, and the transformer in it."""
    part, *numbers = re.findall(r"down|up|mid|\d+", name)[:-1]  # without that of attn2
    *block, layer = map(int, numbers)
    match part:
        case "down":
            return ["input", 3 * block[0] + block[1] + 1, layer]
        case "up":
            return ["output", 3 * block[0] + block[1], layer]
    return ["middle", 0, layer]


def test_layer_order_golden() -> None:
    from diffusers import UNet2DConditionModel

    if not FACTS:
        pytest.skip("the golden data has no order of layers")
    config = UNet2DConditionModel.load_config(SDXL_CONFIG / "unet")
    with torch.device("meta"):
        layers = image_layers(UNet2DConditionModel.from_config(config))
    assert [original_place(name) for name in layers] == FACTS["layer_order"]
    widths = [width for width in layers.values() for _ in ("key", "value")]
    assert widths == FACTS["layer_channels_kv"]
