"""Checkpoints of the real layout at full size: every key is read into a weight of its shape, without the memory for it."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import ModelIncompatible
from engine.catalog import Checkpoint, read_header
from engine.families import family_of, require_base
from engine.models.checkpoints import CONFIGS, load_checkpoint
from tests import real_layout
from tests.golden_data import golden_json
from tests.real_layout import UNET, Shapes

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
GOLDEN: dict[str, dict[str, list[int]]] = golden_json("lora/full_model_keys.json.gz")
FILES: dict[str, tuple[Callable[[], Shapes], str, int]] = {
    "sdxl": (real_layout.base_shapes, "sdxl", 6_938_000_000),
    "sdxl-refiner": (real_layout.refiner_shapes, "sdxl_refiner", 6_076_000_000),
    "sd15": (real_layout.sd15_shapes, "sd15", 2_133_000_000),
}
"""The keys, the folder of settings, and the bytes of such a file in half precision, to the nearest million."""


def test_the_unet_has_the_keys_of_sdxl_golden() -> None:
    expected = {
        key.removeprefix("diffusion_model."): tuple(shape)
        for key, shape in GOLDEN.get("unet_keys", {}).items()
    }
    assert not GOLDEN or real_layout.unet_shapes(real_layout.SDXL) == expected


def test_the_text_encoders_have_the_weights_of_sdxl_golden() -> None:
    ours = real_layout.base_shapes()
    for key, shape in GOLDEN.get("clip_keys", {}).items():
        if key.startswith("clip_l.transformer."):
            name = key.replace("clip_l.", "conditioner.embedders.0.", 1)
            assert ours[name] == tuple(shape)
    fused = {
        key: shape for key, shape in ours.items() if key.startswith("conditioner.embedders.1.")
    }
    apart = {key: shape for key, shape in GOLDEN.get("clip_keys", {}).items() if "clip_g" in key}
    assert not GOLDEN or total(fused) == total(apart)


def total(shapes: Mapping[str, Sequence[int]]) -> int:
    return sum(map(math.prod, shapes.values()))


@pytest.mark.parametrize("family", FILES)
def test_files_are_of_real_size(family: str) -> None:
    shapes, _, size = FILES[family]
    start, data = real_layout.header(shapes(), "F16")
    assert round(len(start) + data, -6) == size
    assert family_of(shapes()) == family


def meta_tensors(shapes: Shapes) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def network(kind: str, folder: str) -> Any:
    import diffusers

    build = getattr(diffusers, {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}[kind])
    with torch.device("meta"):
        return build.from_config(build.load_config(CONFIGS / folder / kind))


@pytest.mark.parametrize("family", FILES)
def test_every_key_of_the_unet_becomes_a_weight(family: str) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    shapes, folder, _ = FILES[family]
    tensors = meta_tensors(shapes())
    unet = network("unet", folder)
    converted = convert_ldm_unet_checkpoint(tensors, unet.config)
    unet.load_state_dict(
        converted, assign=True
    )  # strict: no key too many, none too few, each of its shape
    ours = {id(value) for key, value in tensors.items() if key.startswith(UNET)}
    assert {id(value) for value in converted.values()} == ours


@pytest.mark.parametrize("folder", ["sdxl", "sd15"])
def test_every_key_of_the_vae_becomes_a_weight(folder: str) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    tensors = meta_tensors(real_layout.sd15_shapes())
    vae = network("vae", folder)
    converted = convert_ldm_vae_checkpoint(tensors, vae.config)
    vae.load_state_dict(converted, assign=True)
    assert len(converted) == sum(key.startswith("first_stage_model.") for key in tensors)


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_sdxl_is_loaded_at_full_size(tmp_path: Path) -> None:
    shapes = real_layout.base_shapes()
    path = real_layout.write_hollow(tmp_path / "base.safetensors", shapes)
    loaded = load_checkpoint(Checkpoint(name="base", path=path), CPU, dtype=torch.bfloat16)
    ignored = {"denoiser.sigmas", "conditioner.embedders.1.model.logit_scale"}
    expected = {
        key: shape
        for key, shape in shapes.items()
        if key not in ignored and not key.endswith("position_ids")
    }
    pipeline = loaded.pipeline
    networks = (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
    assert sum(map(count, networks)) == total(expected)
    assert {weight.dtype for module in networks for weight in module.parameters()} == {
        torch.bfloat16
    }


REFUSED = {
    "an SDXL refiner; choose it as refiner, not as base": real_layout.refiner_shapes,
    "a Stable Diffusion 1.5 model without its text encoder": lambda: {
        key: shape
        for key, shape in real_layout.sd15_shapes().items()
        if not key.startswith("cond_stage_model.")
    },
    "a special SDXL model with 9 input channels": lambda: {
        **real_layout.base_shapes(),
        f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3),
    },
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_real_files_that_are_no_base_are_refused(what: str, tmp_path: Path) -> None:
    path = real_layout.write_hollow(tmp_path / "x.safetensors", REFUSED[what]())
    with pytest.raises(ModelIncompatible) as error:
        load_checkpoint(Checkpoint(name="x", path=path), CPU)
    wanted = "expected an SDXL or Stable Diffusion 1.5 base checkpoint"
    assert str(error.value) == f"x.safetensors: {wanted}, got {what}"


def test_a_real_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = real_layout.write_hollow(tmp_path / "cut.safetensors", real_layout.base_shapes())
    with path.open("r+b") as file:
        file.truncate(3_000_000_000)
    require_base(path.name, read_header(path))  # its header is whole
    with pytest.raises(ModelIncompatible, match=r"^cut\.safetensors: expected a whole "):
        load_checkpoint(Checkpoint(name="cut", path=path), CPU)
