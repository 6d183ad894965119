"""Upscalers are read from their files, whatever program named their parts, and enlarge as Fooocus' network does."""

import importlib
import re

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.upscale_nets import Compact, Esrgan
from engine.models.upscalers import has_spandrel, load_upscaler, own_names, spandrel_library
from tests.golden_data import golden_arrays, golden_json, relative_error
from tests.golden_weights import formula_weights

pytestmark = pytest.mark.torch

NETS = golden_json("nets.json")
ARRAYS = golden_arrays("nets.npz")
CPU = torch.device("cpu")
WITH_SPANDREL = pytest.mark.skipif(not has_spandrel(), reason="needs spandrel")


def tiny(doublings=2, fold=1) -> Esrgan:
    torch.manual_seed(1)
    return Esrgan(filters=4, blocks=2, growth=3, doublings=doublings, fold=fold)


def fooocus_names(network: Esrgan) -> dict:
    """The weights as the oldest files have them, with the part that Fooocus names otherwise."""
    blocks, doublings = len(network.body), network.doublings
    places = {"conv_first": 0, "conv_hr": 3 * doublings + 2, "conv_last": 3 * doublings + 4}
    places |= {f"conv_up{i}": 3 * i for i in range(1, doublings + 1)}
    named = {}
    for key, value in network.state_dict().items():
        first, _, rest = key.partition(".")
        if first == "body":
            block, dense, conv, kind = rest.split(".")
            part = f"residual_block_{dense[-1]}"
            named[f"model.1.sub.{block}.{part}.{conv}.0.{kind}"] = value
        elif first == "conv_body":
            named[f"model.1.sub.{blocks}.{rest}"] = value
        else:
            named[f"model.{places[first]}.{rest}"] = value
    return named


def bsrgan_names(network: Esrgan) -> dict:
    renames = {
        r"^body\.(\d)\.rdb": r"RRDB_trunk.\1.RDB",
        r"^conv_body": "trunk_conv",
        r"^conv_up": "upconv",
        r"^conv_hr": "HRconv",
    }
    named = dict(network.state_dict())
    for pattern, name in renames.items():
        named = {re.sub(pattern, name, key): value for key, value in named.items()}
    return named


@pytest.mark.skipif("upscaler" not in NETS, reason="no upscaler in this golden set")
def test_upscaler_golden(tmp_path):
    save_file(formula_weights(NETS["upscaler"]), tmp_path / "x.safetensors")
    upscaler = load_upscaler(tmp_path / "x.safetensors", CPU)
    assert upscaler.scale == NETS["upscaler"]["scale"]
    out = upscaler.run(torch.from_numpy(ARRAYS["upscaler_in"]))
    assert relative_error(out, ARRAYS["upscaler_out"]) <= 1e-4


@pytest.mark.parametrize("names", [dict, fooocus_names, bsrgan_names])
@pytest.mark.parametrize("doublings", [1, 2, 3])
def test_one_network_under_all_its_names(tmp_path, names, doublings):
    network = tiny(doublings)
    named = names(network.state_dict()) if names is dict else names(network)
    save_file(named, tmp_path / "x.safetensors")
    upscaler = load_upscaler(tmp_path / "x.safetensors", CPU)
    x = torch.rand(1, 3, 5, 7)
    assert upscaler.scale == 2**doublings
    assert torch.equal(upscaler.run(x), network(x))


@pytest.mark.parametrize("outer", ["params_ema", "params", "state_dict", None])
def test_pickled_files_are_read_where_they_are_allowed(tmp_path, outer):
    network = tiny()
    weights = fooocus_names(network)
    torch.save({outer: weights} if outer else weights, tmp_path / "x.bin")
    with pytest.raises(ModelIncompatible, match=r"^x\.bin: .* start with --allow-pickle if you "):
        load_upscaler(tmp_path / "x.bin", CPU)
    x = torch.rand(1, 3, 4, 4)
    upscaler = load_upscaler(tmp_path / "x.bin", CPU, allow_pickle=True)
    assert torch.equal(upscaler.run(x), network(x))


def test_pixels_that_become_channels_first_do_not_cut_odd_sides(tmp_path):
    network = tiny(fold=2)
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    upscaler = load_upscaler(tmp_path / "x.safetensors", CPU)
    assert upscaler.scale == 2
    assert upscaler.run(torch.rand(1, 3, 5, 7)).shape == (1, 3, 10, 14)


def test_a_file_in_half_precision_runs_in_float32(tmp_path):
    network = Compact(filters=4, layers=2, scale=2)
    halves = {key: value.half() for key, value in network.state_dict().items()}
    save_file(halves, tmp_path / "x.safetensors")
    upscaler = load_upscaler(tmp_path / "x.safetensors", CPU)
    x = torch.rand(1, 3, 5, 7)
    network.load_state_dict(halves)
    assert upscaler.scale == 2
    assert torch.equal(upscaler.run(x), network(x))
    assert not upscaler.run(x).requires_grad


def test_the_real_files_layout_at_full_size_runs(tmp_path):
    names = fooocus_names(Esrgan())
    weights = {key: torch.zeros(value.shape, dtype=torch.float16) for key, value in names.items()}
    weights["model.10.bias"] += 0.25
    assert sum(value.nbytes for value in weights.values()) == pytest.approx(33_636_613, rel=0.01)
    torch.save(weights, tmp_path / "x.bin")
    upscaler = load_upscaler(tmp_path / "x.bin", CPU, allow_pickle=True)
    assert upscaler.scale == 4
    made = upscaler.run(torch.rand(1, 3, 8, 8))
    assert torch.equal(made, torch.full((1, 3, 32, 32), 0.25))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conv_hr.bias": None}, r"conv_hr.bias of shape \(4,\), got None"),
        ({"conv_hr.bias": torch.zeros(5)}, r"conv_hr.bias of shape \(4,\), got \(5,\)"),
        ({"more": torch.zeros(5)}, r"more of shape None, got \(5,\)"),
        (
            {"conv_first.weight": torch.zeros(4, 1, 3, 3)},
            "to read colour pictures, got 1 channels",
        ),
    ],
)
def test_a_file_that_differs_is_refused_with_the_weight_that_tells(tmp_path, change, reason):
    weights = {**tiny().state_dict(), **change}
    weights = {key: value for key, value in weights.items() if value is not None}
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(ModelIncompatible, match=rf"^x\.safetensors: expected an upscaler {reason}"):
        load_upscaler(tmp_path / "x.safetensors", CPU)


def test_what_does_not_enlarge_is_refused(tmp_path):
    save_file(Compact(filters=4, layers=2, scale=1).state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(ModelIncompatible, match=r"to enlarge at least 2 times, got 1$"):
        load_upscaler(tmp_path / "x.safetensors", CPU)


def test_another_network_is_refused(tmp_path):
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelIncompatible, match=r"^x\.safetensors: expected an upscaler"):
        load_upscaler(tmp_path / "x.safetensors", CPU)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(ModelNotFound, match=r"^x\.safetensors: expected a file of weights in "):
        load_upscaler(tmp_path / "x.safetensors", CPU)


def test_names_of_other_networks_stay():
    assert set(own_names({"layers.0.weight": torch.zeros(1)})) == {"layers.0.weight"}


@WITH_SPANDREL
def test_spandrel_reads_what_is_built_here_and_gives_the_same():
    spandrel = spandrel_library()
    x = torch.rand(1, 3, 6, 8)
    sizes = {"filters": 4, "blocks": 2, "growth": 32}
    for network in (Esrgan(**sizes), Esrgan(**sizes, fold=2), Compact(filters=4, layers=2)):
        theirs = spandrel.ModelLoader().load_from_state_dict(dict(network.state_dict()))
        assert theirs.scale == network.scale
        torch.testing.assert_close(theirs.model(x), network(x))


@WITH_SPANDREL
def test_other_kinds_are_left_to_spandrel(tmp_path):
    kinds = importlib.import_module(f"{spandrel_library().__name__}.architectures.SPAN")
    torch.manual_seed(1)
    network = kinds.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2).eval()
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    upscaler = load_upscaler(tmp_path / "x.safetensors", CPU)
    assert upscaler.scale == 2
    x = torch.rand(1, 3, 12, 10)
    torch.testing.assert_close(upscaler.run(x), network(x).clamp(0, 1))
