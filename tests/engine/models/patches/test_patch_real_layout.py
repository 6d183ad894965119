"""A kohya LoRA with the names and shapes of full-size SDXL matches wholly, without weights in memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.models.checkpoints import SDXL_CONFIG
from engine.models.patches import WeightPatcher

pytestmark = pytest.mark.torch
BLOCKS = {
    **dict.fromkeys(("input_blocks_4_1", "input_blocks_5_1"), (640, 2)),
    **dict.fromkeys(("input_blocks_7_1", "input_blocks_8_1", "middle_block_1"), (1280, 10)),
    **dict.fromkeys(("output_blocks_0_1", "output_blocks_1_1", "output_blocks_2_1"), (1280, 10)),
    **dict.fromkeys(("output_blocks_3_1", "output_blocks_4_1", "output_blocks_5_1"), (640, 2)),
}
"""Blocks with attention: width and number of transformer layers."""
CONTEXT = 2048


def unet_layers() -> Iterator[tuple[str, int, int]]:
    """Name, outputs and inputs of each layer that kohya's scripts train."""
    for block, (width, depth) in BLOCKS.items():
        for name in ("proj_in", "proj_out"):
            yield f"lora_unet_{block}_{name}", width, width
        for layer in range(depth):
            start = f"lora_unet_{block}_transformer_blocks_{layer}"
            for attention, context in (("attn1", width), ("attn2", CONTEXT)):
                yield f"{start}_{attention}_to_q", width, width
                yield f"{start}_{attention}_to_k", width, context
                yield f"{start}_{attention}_to_v", width, context
                yield f"{start}_{attention}_to_out_0", width, width
            yield f"{start}_ff_net_0_proj", width * 8, width
            yield f"{start}_ff_net_2", width, width * 4


def text_layers() -> Iterator[tuple[str, int, int]]:
    for part, width, depth in (("te1", 768, 12), ("te2", 1280, 32)):
        for layer in range(depth):
            start = f"lora_{part}_text_model_encoder_layers_{layer}"
            for letter in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield f"{start}_self_attn_{letter}", width, width
            yield f"{start}_mlp_fc1", width * 4, width
            yield f"{start}_mlp_fc2", width, width * 4


@pytest.fixture(scope="module")
def sdxl() -> dict[str, nn.Module]:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    first, second = (
        CLIPTextConfig.from_pretrained(SDXL_CONFIG / part)
        for part in ("text_encoder", "text_encoder_2")
    )
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(SDXL_CONFIG / "unet")
        )
        encoders = CLIPTextModel(first), CLIPTextModelWithProjection(second)
    return {"unet": unet, "text_encoder": encoders[0], "text_encoder_2": encoders[1]}


def test_a_kohya_lora_matches_wholly(sdxl: dict[str, nn.Module], tmp_path: Path) -> None:
    layers = [*unet_layers(), *text_layers()]
    assert len(layers) == 722 + 72 + 192
    tensors = {}
    for name, rows, columns in layers:
        tensors[f"{name}.lora_up.weight"] = torch.zeros(rows, 1, dtype=torch.float16)
        tensors[f"{name}.lora_down.weight"] = torch.zeros(1, columns, dtype=torch.float16)
        tensors[f"{name}.alpha"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "a.safetensors")
    report = WeightPatcher(sdxl).check(tmp_path / "a.safetensors")
    assert (report.matched, report.unmatched, report.skipped) == (3 * len(layers), 0, 0)
    refiner = WeightPatcher({"unet": sdxl["unet"]}).check(tmp_path / "a.safetensors")
    assert (refiner.matched, refiner.unmatched, refiner.skipped) == (3 * 722, 0, 3 * 264)


def test_all_1680_weights_have_a_name(sdxl: dict[str, nn.Module]) -> None:
    from engine.models.patches.unet_names import original_names

    weights = [name for name, _ in sdxl["unet"].named_parameters()]
    modules = {name.rpartition(".")[0] for name in weights}
    named = original_names(sdxl["unet"].config, modules)  # type: ignore[arg-type]
    keys = {f"{named[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in weights}
    assert len(keys) == len(weights) == 1680
