"""A picture becomes latents: with the noise of a seed or without, whole, or in tiles where memory runs out."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from engine.stages.encode_picture import decode_values, encode_picture, encode_values

pytestmark = pytest.mark.torch


class NarrowVae(AutoencoderKL):
    """One on a device that holds no side beyond 512 pixels."""

    def encode(self, x: Tensor, *args: Any, **more: Any) -> Any:
        if min(x.shape[-2:]) > 512:
            raise torch.OutOfMemoryError("no room")
        return super().encode(x, *args, **more)

    def decode(self, z: Tensor, *args: Any, **more: Any) -> Any:
        if min(z.shape[-2:]) > 64:
            raise torch.OutOfMemoryError("no room")
        return super().decode(z, *args, **more)


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(3)
    narrow = NarrowVae(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    return narrow.eval().requires_grad_(requires_grad=False)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def test_a_seed_gives_the_same_latents_again(vae):
    first, again, other, mean = (
        encode_picture(vae, noise(40, 72), generator and torch.Generator().manual_seed(generator))
        for generator in (5, 5, 6, None)
    )
    assert first.shape == (1, 4, 5, 9)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, mean)


def test_levels_become_values_of_minus_one_to_one(vae):
    picture = np.full((16, 16, 3), 255, np.uint8)
    ours = encode_picture(vae, picture, None)
    assert torch.equal(ours, vae.encode(torch.ones(1, 3, 16, 16)).latent_dist.mean)


@pytest.mark.parametrize(("side", "start"), [(40, 0), (41, 0), (43, 1), (47, 3)])
def test_sides_are_cropped_in_the_middle(vae, side, start):
    picture = noise(side, 16)
    inner = picture[start : start + 40]
    assert torch.equal(encode_picture(vae, picture, None), encode_picture(vae, inner, None))


def test_where_memory_runs_out_tiles_do(vae):
    values = torch.rand(1, 3, 520, 520) * 2 - 1
    latents, tiles = (encode_values(vae, values, None, is_tiled=it) for it in (False, True))
    assert latents.shape == (1, 4, 65, 65)
    assert torch.equal(latents, tiles)
    decoded, tiles = (decode_values(vae, latents, is_tiled=it) for it in (False, True))
    assert decoded.shape == (1, 3, 520, 520)
    assert torch.equal(decoded, tiles)


def test_other_errors_are_not_taken_for_it(vae):
    with pytest.raises(RuntimeError, match="channels"):
        encode_values(vae, torch.zeros(1, 2, 64, 64), None)
