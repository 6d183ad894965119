"""Around each model call the kept part of a picture is put back, with noise of a stream of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from engine.conditioning.blend import Blend
from tests.golden_data import golden_arrays, golden_json

pytestmark = pytest.mark.torch
NOISE = golden_json("parts.json").get("noise", [])


@pytest.mark.parametrize("case", NOISE, ids=lambda case: case["seed"])
def test_noise_of_kept_parts_equals_fooocus_golden(case: Mapping[str, Any]) -> None:
    nothing = torch.zeros(case["shape"])
    seen = Blend(nothing, nothing[:, :1], case["seed"]).before(nothing, 1.0)
    first = golden_arrays("parts.npz")[f"energy{case['i']}_first"]
    np.testing.assert_array_equal(seen.flatten().numpy()[: first.size], first)


def test_the_hole_is_the_samplers_and_the_rest_the_pictures() -> None:
    latents, x, estimate = (torch.randn(1, 4, 6, 8) for _ in range(3))
    mask = torch.zeros(1, 1, 6, 8)
    mask[..., 2:4, 3:7] = 1
    hole = mask.bool().expand_as(x)
    blend = Blend(latents, mask, 5)
    seen = [blend.before(x, sigma) for sigma in (3.0, 3.0)]
    for shown in seen:
        assert torch.equal(shown[hole], x[hole])
    assert not torch.equal(seen[0][~hole], seen[1][~hole])
    again = Blend(latents, mask, 5).before(x, 3.0)
    assert torch.equal(again, seen[0])
    after = blend.after(estimate, 3.0)
    assert torch.equal(after[hole], estimate[hole])
    assert torch.equal(after[~hole], latents[~hole])


def test_noise_of_the_kept_part_follows_the_level() -> None:
    latents, mask = torch.full((1, 4, 64, 64), 2.0), torch.zeros(1, 1, 64, 64)
    seen = Blend(latents, mask, 1).before(torch.zeros_like(latents), 0.25)
    assert (seen - latents).std() == pytest.approx(0.25, rel=0.02)


def test_torchs_own_generator_is_not_touched() -> None:
    state = torch.get_rng_state()
    Blend(torch.ones(1, 4, 8, 8), torch.ones(1, 1, 8, 8), 2**63 - 1).before(
        torch.ones(1, 4, 8, 8), 1.0
    )
    assert torch.equal(torch.get_rng_state(), state)
