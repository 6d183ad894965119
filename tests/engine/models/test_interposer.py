"""SDXL's latents become SD 1.5's by the network that the interposer's file holds."""

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import ModelIncompatible
from engine.models.interposer import Interposer, build_interposer, load_interposer
from tests.golden_data import golden_arrays, golden_json, relative_error
from tests.golden_weights import formula_weights

pytestmark = pytest.mark.torch

NETS = golden_json("nets.json")
ARRAYS = golden_arrays("nets.npz")


@pytest.mark.skipif("interposer" not in NETS, reason="no interposer in this golden set")
def test_interposer_golden():
    network = build_interposer(formula_weights(NETS["interposer"]))
    out = network(torch.from_numpy(ARRAYS["interposer_in"]))
    assert relative_error(out, ARRAYS["interposer_out"]) <= 1e-4


def test_a_file_gives_the_network_back(tmp_path):
    torch.manual_seed(1)
    made = Interposer(channels=8, blocks=2).eval()
    save_file(made.state_dict(), tmp_path / "x.safetensors")
    read = load_interposer(tmp_path / "x.safetensors")
    x = torch.randn(2, 4, 5, 6)
    assert torch.equal(read(x), made(x))
    assert not any(weight.requires_grad for weight in read.parameters())


def test_half_precision_files_are_read_as_float32(tmp_path):
    weights = {key: value.half() for key, value in Interposer(8, 1).state_dict().items()}
    save_file(weights, tmp_path / "x.safetensors")
    assert load_interposer(tmp_path / "x.safetensors").tail.weight.dtype == torch.float32


@pytest.mark.parametrize("change", ["other", "less"])
def test_other_files_are_refused(tmp_path, change):
    weights = dict(Interposer(8, 1).state_dict())
    if change == "other":
        weights = {"conv.weight": torch.ones(1)}
    else:
        del weights["tail.bias"]
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(ModelIncompatible, match=r"^x\.safetensors: expected the weights of a lat"):
        load_interposer(tmp_path / "x.safetensors")
