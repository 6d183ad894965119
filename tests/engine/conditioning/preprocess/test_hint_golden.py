"""Control drawings are resized as Fooocus resizes them, to the bit (golden/parts)."""

import re

import numpy as np
import pytest

from engine.geometry import Size
from tests.golden_data import golden_arrays

pytestmark = pytest.mark.torch

ARRAYS = golden_arrays("parts.npz")
CASES = [match for name in ARRAYS if (match := re.fullmatch(r"hint_(\d+)x(\d+)", name))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_drawings_are_resized_as_fooocus_does_golden(case: re.Match[str]) -> None:
    import torch

    from engine.conditioning.preprocess.hint import resize_hint

    ours = resize_hint(torch.from_numpy(ARRAYS["hint_in"]), Size(int(case[1]), int(case[2])))
    np.testing.assert_array_equal(ours.numpy(), ARRAYS[case[0]])


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (64, 1)])
def test_a_drawing_of_any_size_is_resized(size: tuple[int, int]) -> None:
    import torch

    from engine.conditioning.preprocess.hint import resize_hint

    assert resize_hint(torch.rand(1, 3, *size), Size(64, 32)).shape == (1, 3, 32, 64)
