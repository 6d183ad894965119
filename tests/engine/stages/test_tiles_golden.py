"""Tiles are blended as Fooocus blends them, around any function (golden/nets)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.geometry import Size
from engine.stages.tiles import blended, tile_count, tiled
from tests.golden_data import golden_arrays, golden_json, relative_error

pytestmark = pytest.mark.torch

CASES = golden_json("nets.json").get("tiled", [])
ARRAYS = golden_arrays("nets.npz")


def recorded(scale: float) -> Callable[[Tensor], Tensor]:
    """The function of the golden data: the first channel at another size, with a slope, twice."""

    def run(part: Tensor) -> Tensor:
        first = part[:, :1]
        if scale >= 1:
            first = functional.interpolate(first, scale_factor=scale)
        else:
            first = functional.avg_pool2d(first, round(1 / scale))
        rows, columns = (torch.arange(side) for side in first.shape[-2:])
        return torch.cat([first + 0.1 * rows[:, None] - 0.03 * columns] * 2, dim=1)

    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"tiled{case['i']}")
def test_tiles_are_blended_golden(case):
    x = torch.from_numpy(ARRAYS[f"tiled{case['i']}_in"])
    tile = Size(case["tile_w"], case["tile_h"])
    settings = {"overlap": case["overlap"], "factor": case["scale"]}
    expected = ARRAYS[f"tiled{case['i']}_out"]
    assert relative_error(tiled(recorded(case["scale"]), x, tile, **settings), expected) <= 1e-5
    steps = list(blended(recorded(case["scale"]), x, tile, **settings))
    assert len(steps) == tile_count(Size(case["w"], case["h"]), tile, case["overlap"])
