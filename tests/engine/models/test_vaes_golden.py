"""A VAE file of the original layout encodes and decodes to Fooocus' numbers (golden/nets)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.geometry import Size
from engine.models.vaes import load_vae
from engine.stages.decode import decode_latents
from tests.golden_data import golden_arrays, golden_json
from tests.golden_weights import formula_weights

pytestmark = pytest.mark.torch

NET = golden_json("nets.json").get("vae")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from diffusers import AutoencoderKL

    if NET is None:
        pytest.skip("the golden data has no VAE")
    config = NET["config"]
    sides = len(config["ch_mult"])
    like = AutoencoderKL(
        block_out_channels=tuple(config["ch"] * factor for factor in config["ch_mult"]),
        down_block_types=("DownEncoderBlock2D",) * sides,
        up_block_types=("UpDecoderBlock2D",) * sides,
        layers_per_block=config["num_res_blocks"],
        latent_channels=config["z_channels"],
    )
    path: Path = tmp_path_factory.mktemp("vae") / "toy.safetensors"
    save_file(formula_weights(NET), path)
    return load_vae(path, like, torch.device("cpu"))


def relative_error(ours: torch.Tensor, theirs: Any) -> float:
    expected = torch.from_numpy(theirs)
    return float((ours - expected).abs().max() / expected.std())


@torch.inference_mode()
def test_latents_decode_to_fooocus_pixels_golden(vae: Any) -> None:
    arrays = golden_arrays("nets.npz")
    pixels = vae.decode(torch.from_numpy(arrays["vae_latent"])).sample
    shown = ((pixels + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
    assert relative_error(shown, arrays["vae_decode"]) <= TOLERANCE
    height, width = arrays["vae_decode"].shape[1:3]
    picture = decode_latents(vae, torch.from_numpy(arrays["vae_latent"]), Size(width, height))
    levels = np.asarray(picture, dtype=np.float32)
    assert np.abs(levels - arrays["vae_decode"][0] * 255).max() <= 1.01


@torch.inference_mode()
def test_pixels_encode_to_fooocus_moments_golden(vae: Any) -> None:
    arrays = golden_arrays("nets.npz")
    pixels = torch.from_numpy(arrays["vae_pixels"]).permute(0, 3, 1, 2) * 2 - 1
    moments = vae.encode(pixels).latent_dist.parameters
    assert relative_error(moments, arrays["vae_moments"]) <= TOLERANCE
