"""Training begins with parts that already pass their input through."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from pocket.parts import make_unet, make_vae  # noqa: E402
from pocket.starts import start_unet, start_vae, whiten  # noqa: E402
from pocket.train_vae import psnr, random_pixels  # noqa: E402


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    vae = make_vae()
    start_vae(vae)
    return vae


@pytest.fixture(scope="module")
def pictures():
    return random_pixels(np.random.default_rng(0), 8)


@torch.no_grad()
def test_the_untrained_autoencoder_is_a_thumbnail(vae, pictures):
    small = torch.nn.functional.avg_pool2d(pictures, 8)
    thumbnail = torch.nn.functional.interpolate(small, scale_factor=8)
    made = vae.decode(vae.encode(pictures).latent_dist.mean).sample
    assert psnr(made, pictures) > psnr(thumbnail, pictures) - 1


@torch.no_grad()
def test_whitening_changes_latents_but_no_picture(vae, pictures):
    latents = vae.encode(pictures).latent_dist.mean
    before = vae.decode(latents).sample
    whiten(vae, latents, spread=2.0, noise=0.1)
    posterior = vae.encode(pictures).latent_dist
    assert torch.allclose(posterior.mean.std((0, 2, 3)), torch.full((4,), 2.0), rtol=0.01)
    assert torch.allclose(posterior.std, torch.tensor(0.1))
    assert torch.allclose(vae.decode(posterior.mean).sample, before, atol=1e-3)


@torch.no_grad()
def test_the_untrained_unet_answers_with_its_input():
    torch.manual_seed(0)
    unet = make_unet()
    start_unet(unet)
    x = torch.randn(2, 4, 16, 16)
    added = {"text_embeds": torch.randn(2, 96), "time_ids": torch.full((2, 6), 128.0)}
    made = unet(
        x, torch.tensor([999, 500]), torch.randn(2, 77, 160), added_cond_kwargs=added
    ).sample
    assert (made - x).std() < 0.05
