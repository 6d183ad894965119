"""Sizes, channels and levels of pictures equal Fooocus' (golden/image_ops)."""

import re

import numpy as np
import pytest

from engine.geometry import Size
from engine.models.image_encoders import seen_by_clip
from engine.stages.pixels import (
    cover,
    fitted_size,
    stretch,
    to_levels,
    to_rgb,
    working_side,
)
from tests.golden_data import golden_arrays, golden_json

ARRAYS = golden_arrays("image_ops.npz")
SIZES = golden_json("image_ops.json").get("ceil", [])
RESIZES = {"cover": cover, "stretch": stretch, "resample": stretch}
CASES = [
    match
    for name in ARRAYS
    if (match := re.fullmatch(rf"rs_({'|'.join(RESIZES)})_([\d.]+)x([\d.]+)", name))
]


def picture_of(formula: str) -> np.ndarray:
    """Draw a picture such as ``R=(3x)%256, G=(2y+5)%256, B=(x+y)%256, 224x224``."""
    width, height = map(int, re.findall(r"\d+", formula.rpartition(",")[2]))
    rows, columns = np.mgrid[:height, :width]
    axes = {"x": columns, "y": rows, "": np.ones_like(rows)}
    channels = [
        sum(
            int(factor or 1) * axes[axis]
            for factor, axis in re.findall(r"(\d*)([xy]?)\+", f"{terms}+")
        )
        for terms in re.findall(r"=\(([^)]+)\)%256", formula)
    ]
    return (np.stack(channels, axis=2) % 256).astype(np.uint8)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_resized_pictures_equal_fooocus_golden(case: re.Match[str]) -> None:
    size = Size(int(float(case[2])), int(float(case[3])))
    ours = RESIZES[case[1]](ARRAYS["rs_image"], size)
    np.testing.assert_array_equal(ours, ARRAYS[case[0]])


@pytest.mark.skipif("rs_image" not in ARRAYS, reason="the golden data has no such picture")
def test_alpha_and_grey_equal_fooocus_golden() -> None:
    np.testing.assert_array_equal(to_rgb(ARRAYS["rs_rgba"]), ARRAYS["rs_rgba_to3"])
    grey = ARRAYS["rs_gray_to3"][..., 0]
    for image in (grey, grey[..., None], ARRAYS["rs_gray_to3"]):
        np.testing.assert_array_equal(to_rgb(image), ARRAYS["rs_gray_to3"])


@pytest.mark.parametrize("case", SIZES, ids=lambda case: f"{case['w']}x{case['h']}")
def test_working_sizes_equal_fooocus_golden(case: dict) -> None:
    size = Size(case["w"], case["h"])
    assert working_side(size) == case["ceil"]
    for name, expected in case.items():
        if name.startswith("fit_"):
            fitted = fitted_size(size, int(name.removeprefix("fit_")))
            if isinstance(expected, str):  # Fooocus fails; ours finds a size
                assert working_side(fitted) == int(name.removeprefix("fit_"))
            else:
                assert fitted == (size if expected is None else Size(*reversed(expected)))


@pytest.mark.skipif("u8_in" not in ARRAYS, reason="the golden data has no such values")
def test_levels_are_cut_off_as_fooocus_does_golden() -> None:
    np.testing.assert_array_equal(to_levels(ARRAYS["u8_in"][0]), ARRAYS["u8_out"])


@pytest.mark.skipif("clip_pre_out_sub" not in ARRAYS, reason="the golden data has no such picture")
def test_what_clip_sees_equals_fooocus_golden() -> None:
    image = picture_of(str(ARRAYS["clip_pre_in_formula"]))
    seen = seen_by_clip(image, 224)
    np.testing.assert_allclose(seen[None, :, ::8, ::8], ARRAYS["clip_pre_out_sub"], atol=1e-6)
