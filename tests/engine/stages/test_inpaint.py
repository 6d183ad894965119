"""A repainted part goes back into its picture, and every pixel away from the mask stays as it was, to the last bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.geometry import Size
from engine.stages.inpaint import (
    Box,
    Scale,
    crop_box,
    encode_canvas,
    fill_hole,
    latent_mask,
    masked_values,
    paste_back,
    prepare,
)
from engine.stages.masks import grow, is_hole_in, pad
from engine.stages.pixels import Pixels, stretch, working_side

pytestmark = pytest.mark.torch
POCKET = Scale.of(128)


def picture_of(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask_of(height: int, width: int, box: Box) -> Pixels:
    mask = np.zeros((height, width), np.uint8)
    box.cut(mask)[:] = 255
    return mask


@st.composite
def holes(draw: st.DrawFn) -> tuple[int, int, Box]:
    """A picture's height and width, and a rectangle in it."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
    return height, width, Box(top, bottom, left, right)


@settings(deadline=None, max_examples=60)
@given(hole=holes(), respective_field=st.sampled_from([0.0, 0.3, 0.618, 1.0]))
def test_pixels_away_from_the_mask_stay_as_they_are(
    hole: tuple[int, int, Box], respective_field: float
) -> None:
    height, width, box = hole
    picture, mask = picture_of(height, width), mask_of(height, width, box)
    canvas = prepare(
        picture, mask, respective_field=respective_field, is_filled=False, scale=POCKET
    )
    assert not canvas.size.width % 8
    assert not canvas.size.height % 8
    assert is_hole_in(canvas.hole)
    result = paste_back(canvas, 255 - canvas.image)
    kept = grow(mask, POCKET.feather) == 0
    np.testing.assert_array_equal(result[kept], picture[kept])
    inside = canvas.box.cut(mask) > 0
    painted = stretch(255 - canvas.image, canvas.box.size)
    np.testing.assert_array_equal(canvas.box.cut(result)[inside], painted[inside])


@settings(deadline=None, max_examples=60)
@given(hole=holes(), respective_field=st.floats(0, 1))
def test_crops_hold_the_mask_and_are_as_large_as_asked(
    hole: tuple[int, int, Box], respective_field: float
) -> None:
    height, width, around = hole
    mask = mask_of(height, width, around)
    box = crop_box(mask, respective_field)
    assert 0 <= box.top <= around.top
    assert around.bottom - 1 <= box.bottom <= height  # Fooocus loses a row or column of tiny masks
    assert 0 <= box.left <= around.left
    assert around.right - 1 <= box.right <= width
    assert box.size.width >= width * respective_field
    assert box.size.height >= height * respective_field


def test_a_crop_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="^mask: expected one with something in it, got an empty"):
        crop_box(np.zeros((4, 4), np.uint8), 0.5)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^mask: expected size 20x10, got 10x20$"):
        prepare(
            picture_of(10, 20),
            np.full((20, 10), 255, np.uint8),
            respective_field=1,
            is_filled=False,
        )


def test_a_mask_without_a_hole_is_refused() -> None:
    mask = np.full((10, 20), 127, np.uint8)
    with pytest.raises(ValueError, match="^mask: expected one with light parts, got one without"):
        prepare(picture_of(10, 20), mask, respective_field=1, is_filled=False)


def test_numbers_follow_the_native_size() -> None:
    assert Scale.of(1024) == Scale()
    assert (POCKET.side, POCKET.grid, POCKET.feather) == (128, 8, 4)
    assert POCKET.blurs[0] == (64.0, 2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (37, 500), (700, 700)])
def test_pictures_of_every_shape_get_a_working_size(shape: tuple[int, int]) -> None:
    picture, mask = picture_of(*shape), np.full(shape, 255, np.uint8)
    canvas = prepare(picture, mask, respective_field=0.618, is_filled=True, scale=POCKET)
    assert working_side(canvas.size, POCKET.grid) == POCKET.side
    assert paste_back(canvas, canvas.image).shape == picture.shape


def test_small_parts_are_enlarged_by_the_upscaler_and_large_ones_are_not() -> None:
    asked = []

    def upscale(image: Pixels) -> Pixels:
        asked.append(image.shape)
        return image.repeat(2, axis=0).repeat(2, axis=1)

    for side in (60, 300):
        mask = mask_of(side, side, Box(10, 20, 10, 20))
        prepare(
            picture_of(side, side),
            mask,
            respective_field=1,
            is_filled=False,
            upscale=upscale,
            scale=POCKET,
        )
    assert asked == [(60, 60, 3)]


def test_a_line_too_thin_for_the_working_size_is_still_painted() -> None:
    picture, mask = picture_of(900, 900), mask_of(900, 900, Box(400, 401, 0, 900))
    asked = {"respective_field": 1.0, "is_filled": False, "scale": POCKET}
    assert is_hole_in(prepare(picture, mask, **asked).hole)
    assert not is_hole_in(prepare(picture, mask, **asked, as_fooocus=True).hole)


def test_a_filled_hole_takes_the_colours_around_it() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 200
    hole = mask_of(64, 64, Box(20, 44, 20, 44))
    image[hole > 0] = (0, 255, 0)
    filled = fill_hole(image, hole)
    np.testing.assert_array_equal(filled[hole == 0], image[hole == 0])
    assert abs(filled[hole > 0].astype(int) - (200, 0, 0)).max() < 60
    assert fill_hole(image, np.zeros_like(hole)) is image


def test_latents_of_a_canvas() -> None:
    picture, mask = pad(picture_of(100, 128), np.zeros((100, 128), np.uint8), ["Right"])
    canvas = prepare(picture, mask, respective_field=1, is_filled=True, scale=POCKET)
    seen = []

    def encode(values: Tensor) -> Tensor:
        seen.append(values)
        return torch.nn.functional.avg_pool2d(values.mean(1, keepdim=True), 8).repeat(1, 4, 1, 1)

    latents = encode_canvas(canvas, encode)
    cells = canvas.size.latent
    assert latents.filled.shape == latents.masked.shape == (1, 4, cells.height, cells.width)
    assert latents.mask.shape == (1, 1, cells.height, cells.width)
    assert set(latents.mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(seen[0], masked_values(canvas))
    hole = torch.from_numpy(canvas.hole > 0).expand(1, 3, -1, -1)
    assert not seen[0][hole].any()
    assert torch.equal(seen[0][~hole], seen[1][~hole])
    assert seen[1].min() >= -1
    assert seen[1].max() <= 1
    without = encode_canvas(canvas, encode, with_head=False)
    assert len(seen) == 3
    assert without.masked is without.filled


def test_a_cell_is_painted_when_any_of_its_pixels_is() -> None:
    hole = mask_of(32, 48, Box(8, 9, 23, 25))
    cells = latent_mask(hole, Size(6, 4))[0, 0]
    assert cells.nonzero().tolist() == [[1, 2], [1, 3]]
