"""VAE files of every layout replace the base model's VAE; files of another build are refused with a sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine import ModelIncompatible, ModelNotFound
from engine.models.vaes import load_vae
from tests.single_file import original_vae

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


def small_vae(seed: int, channels: int = 4, dtype: torch.dtype = torch.float32) -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    return vae.to(dtype)


def original(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(original_vae(weights))


def bare(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix("first_stage_model."): value for key, value in original(weights).items()
    }


def older(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for key, value in weights.items():
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value")):
            key = key.replace(new, old)
        named[key.replace("to_out.0", "proj_attn")] = value
    return named


@pytest.mark.parametrize("layout", [dict, original, bare, older])
def test_every_layout_is_read(layout: Any, tmp_path: Path) -> None:
    mine, base = small_vae(1), small_vae(2)
    path = tmp_path / "mine.safetensors"
    weights = {key: value.contiguous().clone() for key, value in layout(mine.state_dict()).items()}
    save_file({**weights, "model.diffusion_model.x": torch.zeros(1)}, path)
    loaded = load_vae(path, base, CPU)
    path.unlink()  # what was read must not hang on the file
    assert all(
        torch.equal(loaded.state_dict()[key], value) for key, value in mine.state_dict().items()
    )
    latents = torch.randn(1, 4, 4, 4)
    with torch.inference_mode():
        assert torch.allclose(loaded.decode(latents).sample, mine.decode(latents).sample, atol=1e-5)
    assert loaded.config.scaling_factor == 0.13025
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_the_number_format_is_the_base_models(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file(small_vae(1, dtype=torch.float16).state_dict(), path)
    assert load_vae(path, small_vae(2, dtype=torch.bfloat16), CPU).dtype == torch.bfloat16
    assert load_vae(path, small_vae(2, dtype=torch.float16), CPU).dtype == torch.float32


def test_a_vae_of_another_build_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flux.safetensors"
    save_file(small_vae(1, channels=16).state_dict(), path)
    with pytest.raises(ModelIncompatible) as error:
        load_vae(path, small_vae(2), CPU)
    assert str(error.value) == (
        "flux.safetensors: expected a VAE like the base model's, with encoder.conv_out.weight of shape 8x8x3x3, "
        "got 32x8x3x3"
    )


def test_a_vae_without_some_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "holes.safetensors"
    weights = small_vae(1).state_dict()
    del weights["decoder.conv_out.bias"]
    save_file(weights, path)
    with pytest.raises(
        ModelIncompatible, match=r"with decoder\.conv_out\.bias of shape 3, got none$"
    ):
        load_vae(path, small_vae(2), CPU)


def test_what_is_no_vae_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(1, 1)}, path)
    with pytest.raises(ModelIncompatible, match=r"^lora\.safetensors: expected a VAE, got a file "):
        load_vae(path, small_vae(2), CPU)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ModelIncompatible, match=r"^lora\.safetensors: expected a safetensors file"):
        load_vae(path, small_vae(2), CPU)
    with pytest.raises(ModelNotFound, match=r"^none\.safetensors: "):
        load_vae(tmp_path / "none.safetensors", small_vae(2), CPU)
