"""Stable Diffusion 1.5 as base model: read from files and folders, told in words as diffusers tells it, patched by LoRAs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import ModelIncompatible
from engine.catalog import Checkpoint
from engine.conditioning.text import PromptTexts, TextEncoders, encode_prompts, final_norm
from engine.models.checkpoints import LoadedModel, load_checkpoint
from engine.models.patches import Patch, WeightPatcher
from tests import real_layout
from tests.tiny_sd15 import UNET, WIDTH, pipeline_of, tiny_parts, write_single_sd15, write_tiny_sd15

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single file, and the settings of its networks beside it."""
    return tmp_path_factory.mktemp("sd15")


@pytest.fixture(scope="module")
def parts(folder: Path) -> dict[str, Any]:
    return write_single_sd15(folder / "toy.safetensors", folder / "config")


@pytest.fixture
def loaded(folder: Path, parts: dict[str, Any]) -> LoadedModel:
    checkpoint = Checkpoint(name="toy", path=folder / "toy.safetensors")
    return load_checkpoint(checkpoint, CPU, config=folder / "config")


def assert_holds(loaded: LoadedModel, parts: dict[str, Any]) -> None:
    for name, network in parts.items():
        weights = getattr(loaded.pipeline, name).state_dict()
        for key, value in network.state_dict().items():
            assert torch.equal(weights[key], value), f"{name}: {key}"
    assert loaded.family == "sd15"
    assert loaded.prediction_type == "epsilon"
    assert loaded.vae.config.scaling_factor == 0.18215


def test_a_single_file_is_read_whole(loaded: LoadedModel, parts: dict[str, Any]) -> None:
    assert_holds(loaded, parts)
    assert list(loaded.text_encoders) == ["text_encoder"]
    ids = loaded.pipeline.tokenizer("a photo of a cat")["input_ids"]
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    path = write_tiny_sd15(tmp_path / "tiny", seed=3)
    assert_holds(load_checkpoint(Checkpoint(name="tiny", path=path), CPU), tiny_parts(seed=3))


def test_the_marker_of_v_prediction_is_seen(folder: Path, parts: dict, tmp_path: Path) -> None:
    weights = load_file(folder / "toy.safetensors")
    save_file({**weights, "v_pred": torch.zeros(1)}, tmp_path / "v.safetensors")
    checkpoint = Checkpoint(name="v", path=tmp_path / "v.safetensors")
    loaded = load_checkpoint(checkpoint, CPU, config=folder / "config")
    assert loaded.prediction_type == "v_prediction"


def test_the_real_size_is_read_from_the_real_keys(tmp_path: Path) -> None:
    shapes = real_layout.sd15_shapes()
    path = real_layout.write_hollow(tmp_path / "base.safetensors", shapes)
    loaded = load_checkpoint(Checkpoint(name="base", path=path), CPU, dtype=torch.bfloat16)
    networks = [loaded.unet, loaded.vae, *loaded.text_encoders.values()]
    found = sum(weight.numel() for network in networks for weight in network.parameters())
    prefixes = (UNET, "first_stage_model.", "cond_stage_model.")
    expected = sum(
        torch.Size(shape).numel()
        for key, shape in shapes.items()
        if key.startswith(prefixes) and not key.endswith("position_ids")
    )
    assert found == expected


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"cross_attention_dim": 1024}, "a Stable Diffusion 2.x model"),
        ({"in_channels": 9}, "a special model with 9 input channels"),
    ],
)
def test_other_folders_of_its_pipeline_are_refused(
    changes: dict[str, int], found: str, tmp_path: Path
) -> None:
    path = write_tiny_sd15(tmp_path / "tiny")
    settings = json.loads((path / "unet" / "config.json").read_text())
    (path / "unet" / "config.json").write_text(json.dumps({**settings, **changes}))
    with pytest.raises(ModelIncompatible) as error:
        load_checkpoint(Checkpoint(name="tiny", path=path), CPU)
    wanted = "expected an SDXL or Stable Diffusion 1.5 base model"
    assert str(error.value) == f"tiny: {wanted}, got {found}"


def told_of(loaded: LoadedModel, text: str, clip_skip: int) -> torch.Tensor:
    encoders = TextEncoders.of_pipeline(loaded.pipeline)
    [told] = encode_prompts(encoders, [PromptTexts((text,), 1)], clip_skip=clip_skip)
    return told.prompt_embeds


def test_words_are_told_as_diffusers_tells_them(loaded: LoadedModel, parts: dict[str, Any]) -> None:
    text = "a red star on blue"
    pipeline = pipeline_of(parts)
    expected, _ = pipeline.encode_prompt(text, CPU, 1, do_classifier_free_guidance=False)
    told = told_of(loaded, text, 1)
    assert told.shape == (1, 77, WIDTH)
    torch.testing.assert_close(told, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_the_last_norm_comes_after_the_layer_that_is_read(
    clip_skip: int, loaded: LoadedModel
) -> None:
    model = loaded.text_encoders["text_encoder"]
    ids = loaded.pipeline.tokenizer("a star", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
        expected = final_norm(model)(states[-clip_skip])
    told = told_of(loaded, "a star", clip_skip)
    torch.testing.assert_close(told, expected, rtol=0, atol=1e-6)


def test_long_and_weighted_words_are_told_too(loaded: LoadedModel) -> None:
    encoders = TextEncoders.of_pipeline(loaded.pipeline)
    prompts = [PromptTexts((text,), 1) for text in ("a star " * 60, "a (star:1.4)", "a star")]
    long, weighted, plain = (told.prompt_embeds for told in encode_prompts(encoders, prompts))
    assert long.shape == (1, 2 * 77, WIDTH)
    assert weighted.shape == plain.shape
    assert not torch.allclose(weighted, plain, atol=1e-4)


KOHYA = (
    (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "unet",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    ),
    ("lora_unet_mid_block_resnets_0_conv1", "unet", "mid_block.resnets.0.conv1"),
    (
        "lora_te_text_model_encoder_layers_1_self_attn_q_proj",
        "text_encoder",
        "encoder.layers.1.self_attn.q_proj",
    ),
)
DIFFUSERS = (
    (
        "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
        "unet",
        "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    ),
    (
        "text_encoder.text_model.encoder.layers.0.mlp.fc1",
        "text_encoder",
        "encoder.layers.0.mlp.fc1",
    ),
)
ORIGINAL = (
    (
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
        "unet",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    ),
    ("diffusion_model.middle_block.0.in_layers.2", "unet", "mid_block.resnets.0.conv1"),
)


@pytest.mark.parametrize("names", [KOHYA, DIFFUSERS, ORIGINAL])
def test_loras_of_all_names_are_put_on_and_taken_off(
    names: tuple[tuple[str, str, str], ...], loaded: LoadedModel, tmp_path: Path
) -> None:
    networks = {"unet": loaded.unet, **loaded.text_encoders}
    before = {spot: value.clone() for spot, value in weights_of(networks).items()}
    torch.manual_seed(5)
    tensors, expected = {}, {}
    for key, part, module in names:
        spot = next(
            spot for spot in before if spot[0] == part and spot[1].endswith(f"{module}.weight")
        )
        weight = before[spot]
        up = torch.randn(weight.shape[0], 2, *(1 for _ in weight.shape[2:]))
        down = torch.randn(2, *weight.shape[1:])
        tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
        tensors[f"{key}.alpha"] = torch.tensor(1.0)
        change = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        expected[spot] = weight + 0.7 * change / 2
    path = tmp_path / "style.safetensors"
    save_file(tensors, path)
    patcher = WeightPatcher(networks)
    report = patcher.use([Patch(path, 0.7)])
    assert report.files[0].unmatched == report.files[0].skipped == 0
    after = weights_of(networks)  # which are changed in place
    for spot, value in before.items():
        torch.testing.assert_close(after[spot], expected.get(spot, value), rtol=1e-5, atol=1e-5)
    patcher.use([])
    assert all(torch.equal(after[spot], value) for spot, value in before.items())


def weights_of(networks: dict[str, Any]) -> dict[tuple[str, str], torch.Tensor]:
    return {
        (part, key): value
        for part, network in networks.items()
        for key, value in network.state_dict().items()
    }


def test_a_lora_for_sdxl_is_refused_by_its_width(loaded: LoadedModel, tmp_path: Path) -> None:
    key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    path = tmp_path / "xl.safetensors"
    tensors = {"lora_up.weight": torch.ones(640, 4), "lora_down.weight": torch.ones(4, 2048)}
    save_file({f"{key}.{end}": value for end, value in tensors.items()}, path)
    patcher = WeightPatcher({"unet": loaded.unet, **loaded.text_encoders})
    with pytest.raises(ModelIncompatible, match=r"made for SDXL: cross-attention width 2048"):
        patcher.use([Patch(path, 1.0)])
