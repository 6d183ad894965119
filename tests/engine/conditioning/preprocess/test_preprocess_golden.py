"""Edges and layouts equal Fooocus' (golden/image_ops)."""

import re

import numpy as np
import pytest

from engine.conditioning.preprocess.cpds import cpds
from engine.conditioning.preprocess.pyra_canny import pyra_canny
from tests.golden_data import golden_arrays

ARRAYS = golden_arrays("image_ops.npz")
CANNY = [match for name in ARRAYS if (match := re.fullmatch(r"(pre\d+)_canny_(\d+)_(\d+)", name))]
CPDS = [match for name in ARRAYS if (match := re.fullmatch(r"(pre\d+)_cpds", name))]


def assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """At most one level apart, on at most a thousandth of the pixels, as the README allows."""
    apart = np.abs(ours.astype(int) - theirs)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.001


@pytest.mark.parametrize("case", CANNY, ids=lambda case: case[0])
def test_edges_equal_fooocus_golden(case: re.Match[str]) -> None:
    ours = pyra_canny(ARRAYS[f"{case[1]}_image"], int(case[2]), int(case[3]))
    assert_alike(ours, ARRAYS[case[0]])


@pytest.mark.parametrize("case", CPDS, ids=lambda case: case[0])
def test_layouts_equal_fooocus_golden(case: re.Match[str]) -> None:
    assert_alike(cpds(ARRAYS[f"{case[1]}_image"]), ARRAYS[case[0]])
