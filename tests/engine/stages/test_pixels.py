"""Geometry of pictures: what stays, what is cut, and what cannot be read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.geometry import Size
from engine.stages.pixels import cover, fit, fitted_size, size_of, stretch, to_rgb, working_side

sides = st.integers(1, 3000)


def ramp(width: int, height: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    rows, columns = np.mgrid[:height, :width]
    red, green = 255 * columns // max(1, width - 1), 255 * rows // max(1, height - 1)
    return np.stack([red, green, 0 * red], axis=2).astype(np.uint8)


def test_cover_keeps_proportions_and_cuts_both_ends_alike() -> None:
    wide = cover(ramp(300, 100), Size(50, 50))
    assert wide.shape == (50, 50, 3)
    red, green = wide[25, :, 0].astype(int), wide[:, 25, 1].astype(int)
    assert abs(red[0] - (255 - red[-1])) <= 3
    assert 80 < red[0] < 90
    assert green[0] <= 3
    assert green[-1] >= 252


@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 40), Size(40, 1)])
def test_cover_fills_any_size(size: Size) -> None:
    assert size_of(cover(ramp(7, 5), size)) == size
    assert (cover(np.full((size.height, size.width, 3), 9, np.uint8), Size(16, 16)) == 9).all()


def test_masks_are_resized_too() -> None:
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[:, 30:] = 255
    assert fit(mask, 128).shape == (64, 128)
    assert stretch(mask, Size(30, 20))[:, [0, -1]].tolist() == [[0, 255]] * 20


def test_a_picture_that_fits_comes_back_as_it_is() -> None:
    image = ramp(500, 300)
    assert fit(image, 448) is image
    assert size_of(fit(image, 1024)) == Size(1216, 768)


def test_transparent_pixels_show_white() -> None:
    image = np.zeros((1, 3, 4), dtype=np.uint8)
    image[0, :, 3] = (0, 255, 51)
    assert to_rgb(image)[0, :, 0].tolist() == [255, 0, 204]


@pytest.mark.parametrize("image", [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2), np.uint16)])
def test_what_is_no_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"image: expected .+, got"):
        to_rgb(image)


@given(sides, sides, st.sampled_from([(1024, 64), (2048, 64), (256, 16)]))
def test_every_picture_has_a_fitted_size(width: int, height: int, wanted: tuple[int, int]) -> None:
    side, grid = wanted
    fitted = fitted_size(Size(width, height), side, grid)
    if working_side(Size(width, height), grid) == side:
        assert fitted == (width, height)
    else:
        assert fitted.width % grid == fitted.height % grid == 0
        assert min(fitted) >= grid
