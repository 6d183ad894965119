"""Masks are read from pictures of every kind, shaped, and drawn out; what cannot be one is refused by its field."""

import numpy as np
import pytest

from engine.errors import InvalidRequest
from engine.geometry import Size
from engine.stages.masks import (
    grow,
    invert,
    is_hole_in,
    pad,
    read_mask,
    shape_mask,
    soften,
    strips,
    union,
)

pytestmark = pytest.mark.torch
SIZE = Size(4, 2)


def half() -> np.ndarray:
    """A mask of the right half."""
    mask = np.zeros((2, 4), np.uint8)
    mask[:, 2:] = 255
    return mask


@pytest.mark.parametrize(
    "values",
    [
        half(),
        half()[..., None],
        half() > 0,
        half().astype(np.uint16) * 257,
        np.stack([half()] * 3, 2),
        np.stack([half(), np.full_like(half(), 255)], 2),
        np.dstack([np.full((2, 4, 3), 255, np.uint8), half()]),
        np.dstack([np.full((2, 4), 255, np.uint8), half()]),
    ],
    ids=["grey", "channel", "bit", "16 bit", "rgb", "grey+alpha", "rgba", "transparent grey"],
)
def test_pictures_of_every_kind_make_the_same_mask(values: np.ndarray) -> None:
    np.testing.assert_array_equal(read_mask(values, SIZE), half())


@pytest.mark.parametrize(("level", "painted"), [(127, 0), (128, 255)])
def test_what_is_lighter_than_half_is_painted(level: int, painted: int) -> None:
    for shape in ((2, 4), (2, 4, 3)):
        assert (read_mask(np.full(shape, level, np.uint8), SIZE) == painted).all()


def test_the_mean_of_the_colours_counts() -> None:
    for colour, painted in (((255, 255, 0), 255), ((255, 0, 0), 0), ((127, 127, 128), 255)):
        mask = read_mask(np.full((2, 4, 3), colour, np.uint8), SIZE)
        assert (mask == painted).all()


def test_masks_of_another_size_are_resized() -> None:
    mask = read_mask(np.repeat(half(), 10, axis=1), Size(8, 6))
    assert mask.shape == (6, 8)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[:, 4:] == 255).all()
    assert not mask[:, :4].any()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.zeros((2, 4, 5), np.uint8), r"1 to 4 channels, got values of shape \(2, 4, 5\)"),
        (np.zeros((0, 4), np.uint8), r"1 to 4 channels, got values of shape \(0, 4\)"),
        (np.zeros(8, np.uint8), r"1 to 4 channels, got values of shape \(8,\)"),
        (np.zeros((2, 4), np.float32), "8 or 16 bits a channel, got float32 values"),
    ],
)
def test_what_is_no_mask_is_refused(values: np.ndarray, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^face\.mask: expected a picture .*{problem}$"):
        read_mask(values, SIZE, "face.mask")


def test_masks_join() -> None:
    np.testing.assert_array_equal(union([half(), invert(half())]), np.full((2, 4), 255))


def test_masks_grow_before_they_are_inverted() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 255
    np.testing.assert_array_equal(shape_mask(mask, by=2, is_inverted=True), 255 - grow(mask, 2))
    assert (shape_mask(mask, by=2) > 0).sum() == 25
    assert (shape_mask(grow(mask, 3), by=-2) > 0).sum() == 9


@pytest.mark.parametrize(
    ("mask", "by", "is_inverted", "ending"),
    [
        (np.zeros((3, 3), np.uint8), 0, False, ""),
        (np.full((3, 3), 255, np.uint8), 0, True, " and inverting it"),
        (half(), -64, False, " after growing it by -64 pixels"),
    ],
)
def test_masks_without_a_hole_are_refused(
    mask: np.ndarray, by: int, is_inverted: bool, ending: str
) -> None:
    rule = "^mask_image_url: expected a mask with light parts that are painted anew, got one without any"
    with pytest.raises(InvalidRequest, match=rule + ending + "$"):
        shape_mask(mask, by=by, is_inverted=is_inverted)
    assert not is_hole_in(shape_mask(mask, by=by, is_inverted=is_inverted, needs_hole=False))


def test_outpainting_draws_edges_out_and_masks_what_is_new() -> None:
    image = np.arange(10 * 7 * 3, dtype=np.uint8).reshape(10, 7, 3)
    mask = np.zeros((10, 7), np.uint8)
    padded, hole = pad(image, mask, ["Left", "Top"])
    assert padded.shape == (13, 9, 3)
    np.testing.assert_array_equal(padded[3:, 2:], image)
    assert (padded[0, 2:] == image[0]).all()
    assert (padded[3:, 0] == image[:, 0]).all()
    assert (hole[:3] == 255).all()
    assert (hole[:, :2] == 255).all()
    assert not hole[3:, 2:].any()
    assert pad(image, mask, [])[0].shape == image.shape


@pytest.mark.parametrize("feather", [1, 4, 32])
def test_soft_masks_end_where_the_feather_ends(feather: int) -> None:
    mask = np.zeros((80, 90), np.uint8)
    mask[40, 41] = 128
    soft = soften(mask, feather)
    y, x = np.mgrid[:80, :90]
    distance = np.maximum(abs(y - 40), abs(x - 41))
    expected = (256 - 256 / feather * distance).clip(0, 255).astype(np.uint8)
    np.testing.assert_array_equal(soft, expected)


def test_strips_cover_every_row_once() -> None:
    for size in (Size(1, 1), Size(8000, 8000), Size(30_000, 5), Size(3_000_000, 2)):
        rows = [row for part in strips(size) for row in range(part.start, part.stop)]
        assert rows == list(range(size.height))


def test_a_hole_is_what_is_lighter_than_half() -> None:
    assert not is_hole_in(np.full((2, 2), 127, np.uint8))
    assert is_hole_in(np.full((2, 2), 128, np.uint8))
