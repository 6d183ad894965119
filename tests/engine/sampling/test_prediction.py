"""The UNet is fed and read as its training says."""

import pytest
import torch

from engine.sampling.prediction import PREDICTIONS, progress_at, scale_input
from tests.golden_data import golden_arrays

pytestmark = pytest.mark.torch

TABLES = golden_arrays("sigma_tables.npz")
FORWARDS = golden_arrays("unet_forward.npz")
KINDS = {"base": "epsilon", "tcd": "epsilon", "vpred": "v_prediction"}


@pytest.mark.parametrize("name", [key.removesuffix("_x0") for key in TABLES if key.endswith("_x0")])
def test_conversions_golden(name):
    if name not in KINDS:
        pytest.skip(f"no prediction of {name} models yet")
    x, output = torch.tensor(TABLES["conv_x"]), torch.tensor(TABLES["conv_out"])
    for i, sigma in enumerate(TABLES["conv_sigma"].tolist()):
        fed, denoised = scale_input(x, sigma)[0], PREDICTIONS[KINDS[name]](x, output, sigma)[0]
        expected = (torch.tensor(TABLES[f"{name}_{part}"][i]) for part in ("input", "x0"))
        torch.testing.assert_close((fed, denoised), tuple(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("i", range(len(FORWARDS.get("t", []))))
def test_progress_golden(i):
    # Recorded from a UNet in float32.
    assert progress_at(int(FORWARDS["t"][i])) == FORWARDS["progress"][i]


def test_progress_runs_from_0_to_1_and_can_be_coarse():
    assert (progress_at(999), progress_at(0)) == (0.0, 1.0)
    assert progress_at(700, torch.float16) == 0.29931640625
    assert progress_at(700) == pytest.approx(299 / 999)


def test_a_perfect_prediction_gives_the_clean_latents():
    clean, noise, sigma = torch.tensor([0.5]), torch.tensor([-2.0]), 3.0
    x = clean + sigma * noise
    alpha, spread = 1 / 10**0.5, 3 / 10**0.5
    velocity = alpha * noise - spread * clean
    assert PREDICTIONS["epsilon"](x, noise, sigma).item() == pytest.approx(0.5)
    assert PREDICTIONS["v_prediction"](x, velocity, sigma).item() == pytest.approx(0.5, rel=1e-5)
