"""Projections of adapters give Fooocus' numbers."""

import json

import pytest
import torch

from engine.models.ip_adapters import read_projection
from engine.models.tensors import read_metadata, read_tensors
from tests.golden_data import golden_arrays, golden_model

pytestmark = pytest.mark.torch

ARRAYS = golden_arrays("ip_adapter.npz")
PLAIN = "imageproj_w_"


@pytest.mark.skipif("resampler_in" not in ARRAYS, reason="the golden data has no resampler")
def test_resampler_golden() -> None:
    path = golden_model("tiny_resampler_fp16.safetensors")
    config = json.loads(read_metadata(path)["config"])
    projection = read_projection(path.name, read_tensors(path), config["dim_head"])
    assert projection.reads == "hidden_states"
    assert (projection.width, projection.token_width) == (
        config["embedding_dim"],
        config["output_dim"],
    )
    tokens = projection(torch.from_numpy(ARRAYS["resampler_in"]))
    expected = torch.from_numpy(ARRAYS["resampler_out"])
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif("imageproj_in" not in ARRAYS, reason="the golden data has no such projection")
def test_plain_projection_golden() -> None:
    weights = {
        key.removeprefix(PLAIN): torch.from_numpy(value)
        for key, value in ARRAYS.items()
        if key.startswith(PLAIN)
    }
    projection = read_projection("plain", weights)
    assert projection.reads == "image_embeds"
    tokens = projection(torch.from_numpy(ARRAYS["imageproj_in"]))
    expected = torch.from_numpy(ARRAYS["imageproj_out"])
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)
