"""Preprocessors draw what is in the picture, at any size."""

from collections.abc import Callable

import numpy as np
import pytest

from engine.conditioning.preprocess.cpds import cpds
from engine.conditioning.preprocess.levels import stretch_levels
from engine.conditioning.preprocess.pyra_canny import pyra_canny

BOTH = pytest.mark.parametrize("preprocess", [pyra_canny, cpds])


def square(side: int = 128) -> np.ndarray:
    image = np.full((side, side, 3), (20, 60, 200), dtype=np.uint8)
    image[side // 4 : -side // 4, side // 4 : -side // 4] = (220, 40, 30)
    return image


def test_edges_are_white_along_the_outline_and_black_elsewhere() -> None:
    edges = pyra_canny(square())
    assert edges[64, 28:37].max() == 255
    assert edges[48:80, 48:80].max() == 0
    assert edges[:16].max() == 0


def test_a_gradient_below_the_thresholds_is_no_edge() -> None:
    assert pyra_canny(square() // 16, 254, 255).max() == 0


def test_the_layout_tells_apart_what_differs_in_colour() -> None:
    layout = cpds(square())
    inside, outside = layout[40:88, 40:88], layout[:24]
    assert np.ptp(inside) == np.ptp(outside) == 0
    assert abs(int(inside[0, 0]) - int(outside[0, 0])) > 100


@BOTH
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (64, 8)])
def test_any_size_keeps_its_size(
    preprocess: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    drawn = preprocess(image)
    assert drawn.shape == shape
    assert drawn.dtype == np.uint8


@BOTH
def test_a_plain_picture_is_black(preprocess: Callable[[np.ndarray], np.ndarray]) -> None:
    assert preprocess(np.full((32, 48, 3), 90, dtype=np.uint8)).max() == 0


def test_levels_between_the_percentiles_become_the_full_range() -> None:
    values = np.arange(101, dtype=np.float32).reshape(1, 101)
    levels = stretch_levels(values, 10, 90)
    assert levels[0, [0, 10, 50, 90, 100]].tolist() == [0, 0, 127, 255, 255]


def test_where_the_percentiles_are_one_what_stands_out_is_white() -> None:
    values = np.zeros((10, 100), dtype=np.float32)
    values[0, 0] = 3
    assert stretch_levels(values, 1, 99).sum() == 255
