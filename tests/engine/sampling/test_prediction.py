"""The UNet is fed and read as its training says."""

import pytest
import torch

from engine.sampling.latent_format import PLAYGROUND, SD15, SDXL
from engine.sampling.prediction import PREDICTIONS, model_sampling, progress_at
from tests.golden_data import golden_arrays

pytestmark = pytest.mark.torch

TABLES = golden_arrays("sigma_tables.npz")
FORWARDS = golden_arrays("unet_forward.npz")
MODELS = {
    "base": model_sampling("karras"),
    "tcd": model_sampling("tcd"),
    "lcm": model_sampling("lcm"),
    "vpred": model_sampling("karras", "v_prediction"),
    "edm": model_sampling("edm_playground_v2.5"),
}
FORMATS = {"sdxl": SDXL, "sd15": SD15, "playground": PLAYGROUND}


@pytest.mark.parametrize("name", [key.removesuffix("_x0") for key in TABLES if key.endswith("_x0")])
def test_conversions_golden(name):
    model = MODELS[name]
    x, output = torch.tensor(TABLES["conv_x"]), torch.tensor(TABLES["conv_out"])
    for i, sigma in enumerate(TABLES["conv_sigma"].tolist()):
        fed, denoised = model.scale_input(x, sigma)[0], model.denoised(x, output, sigma)[0]
        expected = (torch.tensor(TABLES[f"{name}_{part}"][i]) for part in ("input", "x0"))
        torch.testing.assert_close((fed, denoised), tuple(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", [key.removeprefix("latent_in_") for key in TABLES if key.startswith("latent_in_")]
)
def test_latent_formats_golden(name):
    latents = torch.tensor(TABLES["conv_x"])
    for part, turned in (
        ("in", FORMATS[name].to_model(latents)),
        ("out", FORMATS[name].to_vae(latents)),
    ):
        expected = torch.tensor(TABLES[f"latent_{part}_{name}"])
        torch.testing.assert_close(turned, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_latent_formats_undo_themselves(format):
    latents = torch.randn((2, 4, 3, 5), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(format.to_vae(format.to_model(latents)), latents)


@pytest.mark.parametrize("i", range(len(FORWARDS.get("t", []))))
def test_progress_golden(i):
    # Recorded from a UNet in float32.
    assert progress_at(int(FORWARDS["t"][i])) == FORWARDS["progress"][i]


def test_progress_runs_from_0_to_1_and_can_be_coarse():
    assert (progress_at(999), progress_at(0)) == (0.0, 1.0)
    assert progress_at(700, torch.float16) == 0.29931640625
    assert progress_at(700) == pytest.approx(299 / 999)
    assert progress_at(1.2) == pytest.approx(1, abs=0.002)


def test_a_perfect_prediction_gives_the_clean_latents():
    clean, noise, sigma = torch.tensor([0.5]), torch.tensor([-2.0]), 3.0
    x = clean + sigma * noise
    alpha, spread = 1 / 10**0.5, 3 / 10**0.5
    velocity = alpha * noise - spread * clean
    assert PREDICTIONS["epsilon"](x, noise, sigma).item() == pytest.approx(0.5)
    assert PREDICTIONS["v_prediction"](x, velocity, sigma).item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("scheduler", ["lcm", "edm_playground_v2.5"])
def test_a_consistent_model_leaves_clean_latents_alone(scheduler):
    model = model_sampling(scheduler)
    x = torch.tensor([0.5, -2.0])
    sigma = 1e-6 if scheduler != "lcm" else model.levels.sigma_min
    nearly = model.denoised(x, torch.zeros(2), sigma)
    torch.testing.assert_close(nearly, x, rtol=1e-3, atol=0)
