"""Base models are read from folders and single files without a network; what is no base model is refused with a sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from engine import ModelIncompatible
from engine.catalog import Checkpoint, read_header
from engine.families import require_base
from engine.models.checkpoints import SDXL_CONFIG, load_checkpoint
from tests.golden_data import golden_folder
from tests.single_file import write_single_file

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("toy")
    shutil.copytree(SDXL_CONFIG, folder / "config")
    parts = write_single_file(folder / "toy.safetensors", folder / "config", golden_folder())
    return folder, parts


def test_a_single_file_is_read_whole(toy) -> None:
    folder, parts = toy
    path = folder / "toy.safetensors"
    loaded = load_checkpoint(Checkpoint(name="toy", path=path), CPU, config=folder / "config")
    for name, network in parts.items():
        weights = getattr(loaded.pipeline, name).state_dict()
        for key, value in network.state_dict().items():
            assert torch.equal(weights[key], value), f"{name}: {key}"
    assert loaded.prediction_type == "epsilon"
    ids = loaded.pipeline.tokenizer("a photo of a cat")["input_ids"]
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert loaded.pipeline.tokenizer_2.pad_token_id == 0


def test_a_v_prediction_marker_is_seen(toy, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save

    folder, _ = toy
    weights = load_file(folder / "toy.safetensors")
    save({**weights, "v_pred": torch.zeros(1)}, tmp_path / "v.safetensors")
    loaded = load_checkpoint(
        Checkpoint(name="v", path=tmp_path / "v.safetensors"), CPU, config=folder / "config"
    )
    assert loaded.prediction_type == "v_prediction"


def test_the_real_layout_is_taken_for_sdxl() -> None:
    assert require_base("real.safetensors", real_shapes()) == "sdxl"


def real_shapes() -> dict[str, tuple[int, ...]]:
    return {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (
            640,
            2048,
        ),
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": (
            49408,
            768,
        ),
        "conditioner.embedders.1.model.token_embedding.weight": (49408, 1280),
        "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
    }


CONTEXT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def sd15_shapes() -> dict[str, tuple[int, ...]]:
    return {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        CONTEXT: (320, 768),
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
        "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
    }


def test_the_real_layout_is_taken_for_sd15() -> None:
    assert require_base("real.safetensors", sd15_shapes()) == "sd15"


LABEL = "model.diffusion_model.label_emb.0.0.weight"
REFUSED = {
    "a LoRA; it belongs into the loras folder": {"lora_unet_x.lora_up.weight": (1, 1)},
    "a Flux model": {"double_blocks.0.img_attn.qkv.weight": (1, 1)},
    "a Stable Diffusion 3 model": {"model.diffusion_model.joint_blocks.0.x": (1,)},
    "a network in diffusers' own layout; put its whole folder, with model_index.json, there instead": {
        "down_blocks.0.resnets.0.conv1.weight": (1, 1, 3, 3)
    },
    "a VAE; it belongs into the vae folder": {"decoder.conv_in.weight": (512, 4, 3, 3)},
    "no diffusion model": {"model.weight": (1,)},
    "a Stable Diffusion 2.x model": {**sd15_shapes(), CONTEXT: (320, 1024)},
    "a special Stable Diffusion 1.5 model with 9 input channels": {
        **sd15_shapes(),
        "model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3),
    },
    "a Stable Diffusion 1.5 model without its VAE": {
        key: shape for key, shape in sd15_shapes().items() if "first_stage" not in key
    },
    "a Stable Diffusion 1.5 model without its text encoder": {
        key: shape for key, shape in sd15_shapes().items() if "cond_stage" not in key
    },
    "an SDXL refiner; choose it as refiner, not as base": {**real_shapes(), LABEL: (1536, 2560)},
    "a special SDXL model with 9 input channels": {
        **real_shapes(),
        "model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3),
    },
    "an SDXL model without its VAE": {
        key: shape for key, shape in real_shapes().items() if "first_stage" not in key
    },
    "an SDXL model without its text encoders": {
        key: shape for key, shape in real_shapes().items() if "embedders.1" not in key
    },
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_other_models_are_refused_by_name(what: str) -> None:
    with pytest.raises(ModelIncompatible) as error:
        require_base("x.safetensors", REFUSED[what])
    wanted = "expected an SDXL or Stable Diffusion 1.5 base checkpoint"
    assert str(error.value) == f"x.safetensors: {wanted}, got {what}"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80\x04pickle",
        (2**62).to_bytes(8, "little") + b"{}",
        (10).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{x",
        (12).to_bytes(8, "little") + b'{"a": {"b":1',
        (11).to_bytes(8, "little") + b'{"a": null}',
    ],
)
def test_a_lying_header_is_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw)
    with pytest.raises(
        ModelIncompatible, match=r"^bad\.safetensors: expected a safetensors file, got "
    ):
        read_header(path)
    with pytest.raises(ModelIncompatible, match=r"^bad\.safetensors: expected"):
        load_checkpoint(Checkpoint(name="bad.safetensors", path=path), CPU)


def test_a_truncated_file_is_refused(toy, tmp_path: Path) -> None:
    whole = (toy[0] / "toy.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ModelIncompatible, match=r"^cut\.safetensors: expected a whole .*; fetch it again$"
    ):
        load_checkpoint(Checkpoint(name="cut", path=path), CPU, config=toy[0] / "config")


def test_a_folder_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(
        ModelIncompatible, match=r"expected an SDXL or .* base model, got a FluxPipeline$"
    ):
        load_checkpoint(Checkpoint(name="other", path=tmp_path), CPU)


def test_a_lora_file_says_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    save_file({"lora_unet_x.lora_up.weight": np.zeros((1, 1), np.float32)}, path)
    with pytest.raises(ModelIncompatible, match=r"got a LoRA; it belongs into the loras folder$"):
        load_checkpoint(Checkpoint(name="style.safetensors", path=path), CPU)


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.middle_block.1.proj_in.weight",
        "model.diffusion_model.label_emb.0.0.bias",
        "model.diffusion_model.input_blocks.3.0.op.bias",
        "first_stage_model.encoder.conv_out.weight",
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
        "conditioner.embedders.1.model.text_projection",
    ],
)
def test_a_file_without_some_weights_is_refused(key: str, toy, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save

    weights = load_file(toy[0] / "toy.safetensors")
    del weights[key]
    save(weights, tmp_path / "holes.safetensors")
    checkpoint = Checkpoint(name="holes", path=tmp_path / "holes.safetensors")
    with pytest.raises(ModelIncompatible, match=r"^holes: expected all weights of its "):
        load_checkpoint(checkpoint, CPU, config=toy[0] / "config")


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_folder_with_a_torn_file_is_refused(part: str, tmp_path: Path) -> None:
    from tests.tiny_model import write_tiny_model

    folder = write_tiny_model(tmp_path / "torn")
    path = next((folder / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelIncompatible, match=rf"^torn/{part}/{path.name}: expected a whole "):
        load_checkpoint(Checkpoint(name="torn", path=folder), CPU)


def test_another_number_format_can_be_had(toy) -> None:
    checkpoint = Checkpoint(name="toy", path=toy[0] / "toy.safetensors")
    loaded = load_checkpoint(checkpoint, CPU, config=toy[0] / "config", dtype=torch.bfloat16)
    assert loaded.unet.dtype == loaded.pipeline.text_encoder_2.dtype == torch.bfloat16
