"""LoRA files of every kind change the toy UNet as Fooocus changed it, and every name that Fooocus accepts means the same weight."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.errors import ModelIncompatible
from engine.models.checkpoints import SDXL_CONFIG
from engine.models.patches import Patch, WeightPatcher
from engine.models.patches.names import Names
from tests.golden_data import golden_arrays, golden_folder, golden_json, golden_model
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch
PREFIX = "diffusion_model."
CASES: dict[str, Any] = golden_json("lora/merged.json")
TARGETS: dict[str, dict[str, list[str]]] = golden_json("lora/key_aliases.json.gz")
ORIGINAL: dict[str, dict[str, list[int]]] = golden_json("lora/full_model_keys.json.gz")
TEXT_PREFIXES = {
    "clip_l.transformer.text_model.": "text_encoder",
    "clip_g.transformer.text_model.": "text_encoder_2",
}


@pytest.fixture(scope="module")
def diffusers_names() -> dict[str, str]:
    path = golden_model("tiny_unet_names.json", golden_folder())
    return json.loads(path.read_text())["original_to_diffusers"]


@pytest.fixture(scope="module")
def toy() -> nn.Module:
    return load_toy_unet(golden_folder())


@pytest.fixture(scope="module")
def sdxl() -> dict[str, nn.Module]:
    """SDXL's networks at full size, without memory for their weights."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        config = UNet2DConditionModel.load_config(SDXL_CONFIG / "unet")
        first = CLIPTextConfig.from_pretrained(SDXL_CONFIG / "text_encoder")
        second = CLIPTextConfig.from_pretrained(SDXL_CONFIG / "text_encoder_2")
        return {
            "unet": UNet2DConditionModel.from_config(config),
            "text_encoder": CLIPTextModel(first),
            "text_encoder_2": CLIPTextModelWithProjection(second),
        }


def golden_file(name: str) -> Path:
    """A file of the golden data; the inpaint patch is pickled, and is called ``patch`` in the case list."""
    named = f"lora/{name}.safetensors"
    path = golden_model(named, golden_folder())
    return path if path.exists() else golden_model(f"lora/toy.fooocus.{name}", golden_folder())


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("case", CASES)
def test_merged_weights_golden(
    case: str, toy: nn.Module, diffusers_names: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    expected = golden_arrays("lora/merged.npz")
    wanted = {key: diffusers_names[key.removeprefix(PREFIX)] for key in CASES[case]["changed_keys"]}
    before = weights_of(toy)
    patcher = WeightPatcher({"unet": toy}, compat="fooocus", allow_pickle=True)
    try:
        patcher.use([Patch(golden_file(name), scale) for name, scale in CASES[case]["stack"]])
    except ModelIncompatible:
        assert not wanted  # Fooocus leaves such a file out
    after = weights_of(toy)
    assert {key for key in before if not torch.equal(before[key], after[key])} == set(
        wanted.values()
    )
    for key, name in wanted.items():
        numbers = expected[f"{case}|{key}"]
        flat = after[name].numpy().reshape(-1)[: numbers.size]
        assert np.abs(flat - numbers.reshape(-1)).max() <= 1e-6
    assert ("another shape" in caplog.text) == CASES[case]["shape_mismatch_reported"]
    patcher.use([])
    assert all(torch.equal(before[key], value) for key, value in weights_of(toy).items())


def test_every_name_of_a_unet_layer_golden(sdxl: dict[str, nn.Module]) -> None:
    names, shapes = Names(sdxl), shapes_of(sdxl["unet"])
    for target, aliases in TARGETS.get("unet", {}).items():
        place = names.find(target.removesuffix(".weight"))
        if target not in ORIGINAL["unet_keys"]:  # Fooocus' list has shortcuts that SDXL has not
            assert place is None
            continue
        assert place is not None, target
        assert place.network == "unet"
        assert list(shapes[f"{place.modules[0]}.weight"]) == ORIGINAL["unet_keys"][target]
        assert {alias: names.find(alias) for alias in aliases} == dict.fromkeys(aliases, place)


def test_every_name_of_a_text_layer_golden(sdxl: dict[str, nn.Module]) -> None:
    names = Names(sdxl)
    for target, aliases in TARGETS.get("text_encoders", {}).items():
        place = names.find(target.removesuffix(".weight"))
        assert place is not None, target
        assert target.startswith(next(p for p, n in TEXT_PREFIXES.items() if n == place.network))
        assert {alias: names.find(alias) for alias in aliases} == dict.fromkeys(aliases, place)


def test_every_key_of_the_whole_model_golden(sdxl: dict[str, nn.Module]) -> None:
    """All 1680 of the UNet, each another weight; of the text encoders all that transformers has."""
    names = Names(sdxl)
    for keys, parts in (("unet_keys", ["unet"]), ("clip_keys", ["text_encoder", "text_encoder_2"])):
        shapes = {
            (part, name): shape for part in parts for name, shape in shapes_of(sdxl[part]).items()
        }
        found = set()
        for key, shape in ORIGINAL.get(keys, {}).items():
            module, _, kind = key.rpartition(".")
            place = names.find(module)
            if place is None:
                assert key.endswith((".text_projection", ".logit_scale")), key
                continue
            spot = (place.network, f"{place.modules[0]}.{kind}")
            assert list(shapes[spot]) == shape
            found.add(spot)
        expected = {spot for spot in shapes if spot[1] != "text_projection.weight"}
        assert not ORIGINAL or found == expected


def shapes_of(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.named_parameters()}
