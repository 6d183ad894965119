"""Refiners of all three families are read from files and folders; what cannot refine is refused with a sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import ModelIncompatible
from engine.catalog import Checkpoint
from engine.families import require_refiner
from engine.models.checkpoints import CONFIGS, SDXL_CONFIG
from engine.models.refiners import load_refiner
from tests.golden_data import golden_folder
from tests.single_file import original_vae, write_single_file
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
UNET = "model.diffusion_model."
CONTEXT = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
LABEL = f"{UNET}label_emb.0.0.weight"
CONV_IN = f"{UNET}input_blocks.0.0.weight"
VAE = "first_stage_model.decoder.conv_in.weight"
SD15 = {CONV_IN: (320, 4, 3, 3), CONTEXT: (320, 768), VAE: (512, 4, 3, 3)}
WANTED = "expected an SDXL base model, an SDXL refiner or a Stable Diffusion 1.5 model as refiner"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A toy SDXL file and the settings of its networks."""
    folder = tmp_path_factory.mktemp("toy")
    shutil.copytree(SDXL_CONFIG, folder / "config")
    parts = write_single_file(folder / "toy.safetensors", folder / "config", golden_folder())
    return folder, parts


def small_sd15() -> dict[str, Any]:
    """SD 1.5's networks of a tenth of the channels, and text as wide as it is."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel.load_config(CONFIGS / "sd15" / "unet")
    vae = AutoencoderKL.load_config(CONFIGS / "sd15" / "vae")
    widths = {"block_out_channels": (32, 64, 96, 96)}
    return {
        "unet": UNet2DConditionModel.from_config(unet, **widths),
        "vae": AutoencoderKL.from_config(vae, **widths),
    }


def test_an_sdxl_file_gives_its_unet_alone(toy) -> None:
    folder, parts = toy
    checkpoint = Checkpoint(name="toy", path=folder / "toy.safetensors")
    loaded = load_refiner(checkpoint, CPU, config=folder / "config")
    weights = loaded.unet.state_dict()
    for key, value in parts["unet"].state_dict().items():
        assert torch.equal(weights[key], value), key
    assert (loaded.family, loaded.vae, loaded.prediction_type) == ("sdxl", None, "epsilon")
    assert not loaded.unet.training
    assert not any(weight.requires_grad for weight in loaded.unet.parameters())


def test_a_v_prediction_marker_is_seen(toy, tmp_path: Path) -> None:
    weights = load_file(toy[0] / "toy.safetensors")
    save_file({**weights, "v_pred": torch.zeros(1)}, tmp_path / "v.safetensors")
    checkpoint = Checkpoint(name="v", path=tmp_path / "v.safetensors")
    loaded = load_refiner(checkpoint, CPU, config=toy[0] / "config")
    assert loaded.prediction_type == "v_prediction"


def test_an_sd15_file_gives_unet_and_vae(tmp_path: Path) -> None:
    parts = small_sd15()
    names = original_unet_names()
    weights = {UNET + old: parts["unet"].state_dict()[new] for old, new in names.items()}
    weights |= dict(original_vae(parts["vae"].state_dict()))
    path = tmp_path / "small.safetensors"
    save_file({key: value.contiguous().clone() for key, value in weights.items()}, path)
    for name, network in parts.items():
        network.save_config(tmp_path / "config" / name)
    loaded = load_refiner(Checkpoint(name="small", path=path), CPU, config=tmp_path / "config")
    assert loaded.family == "sd15"
    for network, expected in ((loaded.unet, parts["unet"]), (loaded.vae, parts["vae"])):
        found = network.state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.state_dict().items())
    assert loaded.vae.config.scaling_factor == 0.18215


def original_unet_names() -> dict[str, str]:
    """The names of SD 1.5's weights by their original ones, as diffusers' converter has them."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    from tests import real_layout

    config = UNet2DConditionModel.load_config(CONFIGS / "sd15" / "unet")
    names = {UNET + key: key for key in real_layout.unet_shapes(real_layout.SD15)}
    return {old: new for new, old in convert_ldm_unet_checkpoint(names, config).items()}


def write_folder(folder: Path, pipeline: str, parts: dict[str, Any], prediction: str) -> Path:
    for name, network in parts.items():
        network.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    (folder / "scheduler").mkdir()
    settings = json.dumps({"prediction_type": prediction})
    (folder / "scheduler" / "scheduler_config.json").write_text(settings)
    return folder


def test_an_sd15_folder_gives_unet_and_vae(tmp_path: Path) -> None:
    parts = small_sd15()
    path = write_folder(tmp_path / "small", "StableDiffusionPipeline", parts, "v_prediction")
    loaded = load_refiner(Checkpoint(name="small", path=path), CPU)
    assert (loaded.family, loaded.prediction_type) == ("sd15", "v_prediction")
    assert torch.equal(
        loaded.vae.state_dict()["decoder.conv_in.weight"], parts["vae"].decoder.conv_in.weight
    )


@pytest.mark.parametrize(
    ("pipeline", "family"),
    [
        ("StableDiffusionXLPipeline", "sdxl"),
        ("StableDiffusionXLImg2ImgPipeline", "sdxl-refiner"),
    ],
)
def test_an_sdxl_folder_gives_its_unet(pipeline: str, family: str, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny")
    index = json.loads((path / "model_index.json").read_text())
    (path / "model_index.json").write_text(json.dumps({**index, "_class_name": pipeline}))
    loaded = load_refiner(Checkpoint(name="tiny", path=path), CPU)
    assert (loaded.family, loaded.vae) == (family, None)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    parts = {"unet": small_sd15()["unet"]}
    flux = write_folder(tmp_path / "flux", "FluxPipeline", parts, "epsilon")
    with pytest.raises(ModelIncompatible, match=rf"^flux: {WANTED}, got a FluxPipeline$"):
        load_refiner(Checkpoint(name="flux", path=flux), CPU)
    second = write_folder(tmp_path / "sd2", "StableDiffusionPipeline", parts, "epsilon")
    settings = json.loads((second / "unet" / "config.json").read_text())
    wide = json.dumps({**settings, "cross_attention_dim": 1024})
    (second / "unet" / "config.json").write_text(wide)
    with pytest.raises(ModelIncompatible, match=r"^sd2: .* text 768 wide, got 1024$"):
        load_refiner(Checkpoint(name="sd2", path=second), CPU)
    deep = json.dumps({**settings, "in_channels": 9})
    (second / "unet" / "config.json").write_text(deep)
    with pytest.raises(ModelIncompatible, match=r"^sd2: .* 4 input channels, got 9$"):
        load_refiner(Checkpoint(name="sd2", path=second), CPU)
    (second / "unet" / "config.json").write_text("{")
    with pytest.raises(ModelIncompatible, match=r"^sd2: diffusers cannot read it: Expecting"):
        load_refiner(Checkpoint(name="sd2", path=second), CPU)


REFUSED = {
    "a LoRA; it belongs into the loras folder": {"lora_unet_x.lora_up.weight": (1, 1)},
    "a Flux model": {"double_blocks.0.img_attn.qkv.weight": (1, 1)},
    "a Stable Diffusion 3 model": {f"{UNET}joint_blocks.0.x": (1,)},
    "a VAE; it belongs into the vae folder": {VAE: (512, 4, 3, 3)},
    "a Stable Diffusion 2.x model": {**SD15, CONTEXT: (320, 1024)},
    "a special model with 9 input channels": {**SD15, CONV_IN: (320, 9, 3, 3)},
    "a Stable Diffusion 1.5 model without its VAE": {
        key: shape for key, shape in SD15.items() if key != VAE
    },
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_other_files_are_refused_by_name(what: str) -> None:
    with pytest.raises(ModelIncompatible) as error:
        require_refiner("x.safetensors", REFUSED[what])
    assert str(error.value) == f"x.safetensors: {WANTED}, got {what}"


def test_each_family_is_told() -> None:
    assert require_refiner("x", SD15) == "sd15"
    assert require_refiner("x", {CONV_IN: (384, 4, 3, 3), LABEL: (1536, 2560)}) == "sdxl-refiner"
    assert require_refiner("x", {CONV_IN: (320, 4, 3, 3), LABEL: (1280, 2816)}) == "sdxl"


def test_a_torn_file_is_refused(toy, tmp_path: Path) -> None:
    whole = (toy[0] / "toy.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ModelIncompatible, match=r"^cut\.safetensors: expected a whole .*; fetch it again$"
    ):
        load_refiner(Checkpoint(name="cut", path=path), CPU, config=toy[0] / "config")


def test_a_file_without_some_weights_is_refused(toy, tmp_path: Path) -> None:
    weights = load_file(toy[0] / "toy.safetensors")
    del weights[f"{UNET}middle_block.1.proj_in.weight"]
    save_file(weights, tmp_path / "holes.safetensors")
    checkpoint = Checkpoint(name="holes", path=tmp_path / "holes.safetensors")
    with pytest.raises(ModelIncompatible, match=r"^holes: expected all weights of its networks, "):
        load_refiner(checkpoint, CPU, config=toy[0] / "config")
