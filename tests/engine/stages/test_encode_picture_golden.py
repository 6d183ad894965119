"""Pictures become Fooocus' latents and come back, whole and in tiles (golden/nets)."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.stages.encode_picture import cropped, decode_values, encode_values
from tests.golden_data import golden_arrays, relative_error
from tests.toy_vae import NET, toy_vae

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(NET is None, reason="no VAE in this golden set"),
]

ARRAYS = golden_arrays("nets.npz")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return toy_vae(tmp_path_factory.mktemp("vae"))


def values_of(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name]).permute(0, 3, 1, 2) * 2 - 1


def seeds_of(start: str) -> list[tuple[str, int]]:
    """Arrays whose name begins so, with the seed that it ends with."""
    found = ((name, re.fullmatch(start + r"_seed(\d+)", name)) for name in ARRAYS)
    return [(name, int(match[1])) for name, match in found if match]


@pytest.mark.parametrize(("name", "seed"), seeds_of("vae_encode"))
def test_a_picture_becomes_latents_golden(vae, name, seed):
    for _ in range(2):  # the generator decides, not what was there before
        generator = torch.Generator().manual_seed(seed)
        latents = encode_values(vae, values_of("vae_pixels"), generator)
        assert relative_error(latents, ARRAYS[name]) <= TOLERANCE


@pytest.mark.parametrize(("name", "seed"), seeds_of("vae_odd_encode_cropped"))
def test_odd_sides_are_cropped_in_the_middle_golden(vae, name, seed):
    generator = torch.Generator().manual_seed(seed)
    latents = encode_values(vae, cropped(values_of("vae_odd_pixels")), generator)
    assert relative_error(latents, ARRAYS[name]) <= TOLERANCE


@pytest.mark.parametrize(("name", "seed"), seeds_of("vae_odd_encode_uncropped"))
def test_odd_sides_can_be_left_to_the_vae_golden(vae, name, seed):
    generator = torch.Generator().manual_seed(seed)
    latents = encode_values(vae, values_of("vae_odd_pixels"), generator)
    assert relative_error(latents, ARRAYS[name]) <= TOLERANCE


@pytest.mark.parametrize(("name", "seed"), seeds_of("vae_tiled_encode"))
def test_tiles_become_latents_golden(vae, name, seed):
    coarse = values_of("vae_tiled_pixels_coarse")
    values = coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    generator = torch.Generator().manual_seed(seed)
    latents = encode_values(vae, values, generator, is_tiled=True)
    assert relative_error(latents, ARRAYS[name]) <= TOLERANCE


def test_latents_become_a_picture_golden(vae):
    values = decode_values(vae, torch.from_numpy(ARRAYS["vae_latent"]))
    shown = ((values + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
    assert relative_error(shown, ARRAYS["vae_decode"]) <= TOLERANCE


def test_latents_become_a_picture_in_tiles_golden(vae):
    values = decode_values(vae, torch.from_numpy(ARRAYS["vae_tiled_latent"]), is_tiled=True)
    shown = ((values + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
    assert relative_error(shown[:, ::8, ::8], ARRAYS["vae_tiled_decode_sub"]) <= TOLERANCE
    np.testing.assert_allclose(shown.mean(), ARRAYS["vae_tiled_decode_mean"], atol=1e-5)
