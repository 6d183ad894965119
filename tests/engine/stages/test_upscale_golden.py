"""Vary and upscale choose Fooocus' sizes and strengths (golden/image_requests, golden/nets)."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.geometry import LATENT_FACTOR, Size
from engine.image_inputs import FACTORS, STRENGTHS
from engine.models.upscalers import load_upscaler
from engine.stages.pixels import size_of, stretch
from engine.stages.tiles import tiled
from engine.stages.upscale import to_vary, upscale_size
from tests.golden_data import golden_arrays, golden_json, relative_error
from tests.golden_weights import formula_weights

pytestmark = pytest.mark.torch

REQUESTS = golden_json("image_requests.json").get("cases", {})
NETS = golden_json("nets.json")
SCALE = 4
"""Of the stand-in for an upscaler in the recordings, which repeats pixels."""


def asked(case: dict[str, Any]) -> dict[str, Any] | None:
    """The request of a case that is given a picture to vary or enlarge by a formula."""
    request = case["request"]
    has_picture = "shape" in (request.get("uov_image") or {})
    is_on = request.get("tab") == "uov" or request.get("mix_uov")
    return request if has_picture and is_on and request.get("input_image") else None


CASES = [pytest.param(case, id=name) for name, case in REQUESTS.items() if asked(case)]


def picture_of(spec: dict[str, Any]) -> np.ndarray:
    height, width, _ = spec["shape"]
    if "constant" in spec:
        return np.full(spec["shape"], spec["constant"], np.uint8)
    y, x, k = np.arange(height)[:, None], np.arange(width), spec["k"]
    flat = np.zeros((height, width), int)
    colours = (3 * x + 40 * k + flat, 2 * y + 17 * k + flat, x + y + 5 * k + flat)
    return (np.stack(colours, axis=2) % 256).astype(np.uint8)


def latent_size(size: Size) -> Size:
    return Size(*(side // LATENT_FACTOR * LATENT_FACTOR for side in size))


@pytest.mark.parametrize("case", CASES)
def test_pictures_get_the_recorded_sizes_golden(case):
    request = asked(case)
    picture, method = picture_of(request["uov_image"]), request["uov_method"]
    runs, shown = case.get("diffusion"), case["logs"][0]
    if method in FACTORS:
        size, is_painted = upscale_size(size_of(picture), method, scale=SCALE)
    else:
        size, is_painted = size_of(to_vary(picture)), True
    assert is_painted == bool(runs)
    if not is_painted:
        enlarged = picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        result = stretch(enlarged, size)
        assert list(result.shape) == shown["shape"]
        assert int(result.sum(dtype=np.int64)) == shown["sum"]
        return
    run = runs[0]
    assert latent_size(size) == (run["width"], run["height"])
    assert run["tiled"] == (method in FACTORS)
    if request.get("ow_vary", -1) <= 0 and request.get("ow_upscale", -1) <= 0:
        assert STRENGTHS[method] == run["denoise"]


@pytest.mark.skipif("upscaler" not in NETS, reason="no upscaler in this golden set")
def test_a_picture_goes_through_the_upscaler_golden(tmp_path):
    arrays = golden_arrays("nets.npz")
    save_file(formula_weights(NETS["upscaler"]), tmp_path / "x.safetensors")
    upscaler = load_upscaler(tmp_path / "x.safetensors", torch.device("cpu"))
    x = torch.from_numpy(arrays["upscale_node_in"]).permute(0, 3, 1, 2)
    made = tiled(upscaler.run, x, Size(512, 512), overlap=32, factor=upscaler.scale)
    shown = made.clamp(0, 1).permute(0, 2, 3, 1)
    assert relative_error(shown, arrays["upscale_node_out"]) <= 1e-4
