"""Every way in which the tools of the field name a layer leads to the same weight, whatever the size of the network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.models.checkpoints import SDXL_CONFIG
from engine.models.patches.keys import split_key
from engine.models.patches.names import Names, Place
from engine.models.patches.unet_names import original_names
from tests.golden_data import golden_folder
from tests.tiny_model import write_tiny_model
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch
POCKET = Path(__file__).parents[4] / "models" / "pocket" / "unet"


def build(config: Any) -> Any:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


@pytest.fixture(scope="module")
def text_encoder() -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    small = CLIPTextConfig(
        vocab_size=9,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    return CLIPTextModelWithProjection(small)


@pytest.mark.parametrize("kind", ["sdxl", "pocket", "toy", "unequal blocks"])
def test_original_unet_names_are_those_that_diffusers_converts(kind: str) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    load = UNet2DConditionModel.load_config
    toy: Any = load_toy_unet(golden_folder()).config
    uneven = {
        "layers_per_block": (1, 3, 2),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    }
    unet = build(
        {
            "sdxl": lambda: load(SDXL_CONFIG / "unet"),
            "pocket": lambda: load(POCKET),
            "toy": lambda: toy,
            "unequal blocks": lambda: {**toy, **uneven},
        }[kind]()
    )
    parameters = [name for name, _ in unet.named_parameters()]
    modules = {name.rpartition(".")[0] for name in parameters}
    original = original_names(unet.config, modules)
    assert original.keys() == modules
    assert len(set(original.values())) == len(modules)
    if kind == "unequal blocks":  # diffusers' converter counts the same layers in each block
        assert original["down_blocks.1.resnets.2.conv1"] == "input_blocks.5.0.in_layers.2"
        assert original["down_blocks.1.downsamplers.0.conv"] == "input_blocks.6.0.op"
        assert original["up_blocks.0.upsamplers.0.conv"] == "output_blocks.2.2.conv"
        assert original["up_blocks.1.upsamplers.0.conv"] == "output_blocks.6.1.conv"
        assert original["up_blocks.2.attentions.1.proj_in"] == "output_blocks.8.1.proj_in"
        return
    keys = {}
    for name in parameters:
        module, _, weight = name.rpartition(".")
        keys[f"model.diffusion_model.{original[module]}.{weight}"] = name
    assert convert_ldm_unet_checkpoint({key: key for key in keys}, unet.config) == {
        name: key for key, name in keys.items()
    }


def test_a_network_of_other_depth_is_named_too(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = write_tiny_model(tmp_path)  # one layer a block
    names = Names({"unet": UNet2DConditionModel.from_pretrained(folder / "unet")})
    place = names.find("lora_unet_output_blocks_3_1_transformer_blocks_0_attn1_to_q")
    assert place == Place("unet", ("up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q",))


ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
UNET_NAMES = [
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0",
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0",
    "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0",
    ATTENTION,
    f"unet.{ATTENTION}",
    f"base_model.model.{ATTENTION}",
    f"base_model.model.unet.{ATTENTION}",
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out",
    "input_blocks.4.1.transformer_blocks.0.attn1.to_out.0",
    "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_out.0",
    "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_out.0",
]


@pytest.mark.parametrize("name", UNET_NAMES)
def test_names_of_a_unet_layer(name: str) -> None:
    names = Names({"unet": load_toy_unet(golden_folder())})
    assert names.find(name) == Place("unet", (ATTENTION,))


TEXT_NAMES = [
    ("lora_te1_text_model_encoder_layers_1_mlp_fc1", "text_encoder"),
    ("lora_te_text_model_encoder_layers_1_mlp_fc1", "text_encoder"),
    ("text_encoder.text_model.encoder.layers.1.mlp.fc1", "text_encoder"),
    ("text_encoder.encoder.layers.1.mlp.fc1", "text_encoder"),
    ("conditioner.embedders.0.transformer.text_model.encoder.layers.1.mlp.fc1", "text_encoder"),
    ("lora_te2_text_model_encoder_layers_1_mlp_fc1", "text_encoder_2"),
    ("text_encoder_2.text_model.encoder.layers.1.mlp.fc1", "text_encoder_2"),
    ("lora_te2_transformer_resblocks_1_mlp_c_fc", "text_encoder_2"),
    ("conditioner.embedders.1.model.transformer.resblocks.1.mlp.c_fc", "text_encoder_2"),
]


@pytest.mark.parametrize(("name", "network"), TEXT_NAMES)
def test_names_of_a_text_layer(name: str, network: str, text_encoder: nn.Module) -> None:
    names = Names({"text_encoder": text_encoder, "text_encoder_2": text_encoder})
    place = names.find(name)
    assert place is not None
    assert place.network == network
    assert place.modules[0].removeprefix("text_model.") == "encoder.layers.1.mlp.fc1"


def test_query_key_and_value_in_one(text_encoder: nn.Module) -> None:
    names = Names({"text_encoder_2": text_encoder})
    place = names.find("lora_te2_transformer_resblocks_0_attn_in_proj")
    assert place is not None
    layer = "text_model.encoder.layers.0.self_attn"
    assert place.modules == tuple(f"{layer}.{letter}_proj" for letter in "qkv")


def test_unknown_names_and_absent_networks_differ(text_encoder: nn.Module) -> None:
    names = Names({"text_encoder": text_encoder})
    for name in ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "unet.conv_in", "junk"):
        assert names.find(name) is None
        assert names.is_elsewhere(name)
    assert names.find("lora_te1_text_model_encoder_layers_99_mlp_fc1") is None
    assert not names.is_elsewhere("lora_te1_text_model_encoder_layers_99_mlp_fc1")


KEYS = {
    "lora_unet_x.lora_up.weight": ("lora_unet_x", "up"),
    "lora_unet_x.lora_down.weight": ("lora_unet_x", "down"),
    "lora_unet_x.lora_mid.weight": ("lora_unet_x", "mid"),
    "lora_unet_x.alpha": ("lora_unet_x", "alpha"),
    "a.processor.to_q_lora.up.weight": ("a.processor.to_q", "up"),
    "unet.a.to_q.lora.down.weight": ("unet.a.to_q", "down"),
    "text_encoder.a.q_proj.lora_linear_layer.up.weight": ("text_encoder.a.q_proj", "up"),
    "unet.a.to_q.lora_A.weight": ("unet.a.to_q", "down"),
    "unet.a.to_q.lora_B.default.weight": ("unet.a.to_q", "up"),
    "unet.a.to_q.lora_A.my_adapter.weight": ("unet.a.to_q", "down"),
    "unet.a.to_q.lora_magnitude_vector": ("unet.a.to_q", "magnitude"),
    "unet.a.to_q.lora_magnitude_vector.weight": ("unet.a.to_q", "magnitude"),
    "unet.a.to_q.lora_magnitude_vector.default.weight": ("unet.a.to_q", "magnitude"),
    "unet.a.to_q.lora_magnitude_vector.default": ("unet.a.to_q", "magnitude"),
    "x.dora_scale": ("x", "dora_scale"),
    "x.hada_w1_a": ("x", "hada_w1_a"),
    "x.lokr_t2": ("x", "lokr_t2"),
    "x.a1.weight": ("x", "a1"),
    "x.diff_b": ("x", "diff_b"),
    "diffusion_model.out.2.weight|lo": ("diffusion_model.out.2", "weight|lo"),
    "x.lora_B.bias": None,
    "x.weight": None,
    "junk": None,
}


@pytest.mark.parametrize(("key", "parts"), KEYS.items())
def test_ends_of_keys(key: str, parts: tuple[str, str] | None) -> None:
    assert split_key(key) == parts


def test_what_fooocus_does_not_know() -> None:
    for key in ("x.dora_scale", "x.lora_A.weight", "x.lora_B.default.weight"):
        assert split_key(key, "fooocus") is None
    assert split_key("x.lora_up.weight", "fooocus") == ("x", "up")
