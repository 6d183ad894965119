"""Sizes are read and chosen the way people mean them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import SDXL_SIZES
from engine.geometry import Size, nearest_bucket, parse_size, reduced_ratio

sizes = st.builds(Size, st.integers(1, 5000), st.integers(1, 5000))


@given(sizes, st.sampled_from(["x", "X", "*", "×", " x "]))
def test_a_size_survives_being_written(size: Size, sign: str) -> None:
    assert parse_size(f"{size.width}{sign}{size.height}") == size
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    "text", ["", "64", "64x", "x64", "-64x64", "64x64x64", "1e3x64", "100000x64", "0x8", "8x00"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^expected 'WIDTHxHEIGHT', got "):
        parse_size(text)


@given(st.sampled_from(SDXL_SIZES), st.integers(1, 3))
def test_a_bucket_is_its_own_nearest_at_any_scale(size: Size, scale: int) -> None:
    assert nearest_bucket(Size(size.width * scale, size.height * scale), SDXL_SIZES) == size


@given(sizes)
def test_turning_a_size_turns_its_bucket(size: Size) -> None:
    buckets = (Size(128, 128), Size(112, 144), Size(144, 112))
    turned = nearest_bucket(Size(size.height, size.width), buckets)
    assert turned == Size(*reversed(nearest_bucket(size, buckets)))


def test_without_buckets_there_is_no_nearest() -> None:
    with pytest.raises(ValueError, match="^buckets: expected at least one size, got none$"):
        nearest_bucket(Size(1, 1), ())


def test_proportions_in_lowest_terms() -> None:
    assert reduced_ratio(Size(1152, 896)) == "9:7"


def test_latents_are_an_eighth() -> None:
    assert Size(1152, 896).latent == Size(144, 112)
