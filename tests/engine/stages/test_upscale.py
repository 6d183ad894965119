"""Pictures are varied near the model's own size, and enlarged in tiles that shrink where memory runs out."""

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import InvalidRequest, OutOfMemory
from engine.geometry import Size
from engine.models.upscalers import Upscaler
from engine.stages.upscale import (
    enlarge,
    enlarging,
    require_enlargeable,
    to_vary,
    upscale_size,
    vary_size,
)

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def repeated(part: Tensor) -> Tensor:
    return part.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class Narrow:
    """A device that holds tiles of so many pixels along a side, and keeps what was tried."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.tried: list[int] = []

    def __call__(self, part: Tensor) -> Tensor:
        self.tried.append(max(part.shape[-2:]))
        if self.tried[-1] > self.side:
            raise torch.OutOfMemoryError("no room")
        return repeated(part)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "native", "expected"),
    [
        (Size(1024, 1024), 1024, Size(1024, 1024)),
        (Size(1152, 896), 1024, Size(1152, 896)),
        (Size(512, 512), 1024, Size(1024, 1024)),
        (Size(4000, 3000), 1024, Size(2304, 1728)),
        (Size(1000, 1000), 1024, Size(1000, 1000)),
        (Size(1, 1), 1024, Size(1024, 1024)),
        (Size(128, 128), 128, Size(128, 128)),
        (Size(512, 512), 128, Size(256, 256)),
        (Size(40, 20), 128, Size(168, 88)),
    ],
)
def test_sizes_to_vary(size, native, expected):
    assert vary_size(size, native) == expected
    assert to_vary(noise(size.height, size.width), native).shape == (*expected[::-1], 3)


@pytest.mark.parametrize(
    ("size", "method", "native", "expected", "is_painted"),
    [
        (Size(1152, 896), "Upscale (1.5x)", 1024, Size(1728, 1344), True),
        (Size(1152, 896), "Upscale (2x)", 1024, Size(2304, 1792), True),
        (Size(1152, 896), "Upscale (Fast 2x)", 1024, Size(2304, 1792), False),
        (Size(1600, 1300), "Upscale (2x)", 1024, Size(3200, 2600), False),
        (Size(101, 51), "Upscale (1.5x)", 1024, Size(1472, 704), True),
        (Size(128, 128), "Upscale (Fast 2x)", 128, Size(256, 256), False),
        (Size(128, 128), "Upscale (2x)", 128, Size(256, 256), True),
        (Size(128, 128), "Upscale (1.5x)", 128, Size(192, 192), True),
        (Size(256, 256), "Upscale (2x)", 128, Size(512, 512), False),
        (Size(1, 1), "Upscale (2x)", 128, Size(128, 128), True),
    ],
)
def test_sizes_to_enlarge(size, method, native, expected, is_painted):
    assert upscale_size(size, method, scale=2, native=native) == (expected, is_painted)


def test_tiles_leave_no_trace():
    picture = noise(150, 310)
    made = enlarge(Upscaler("x", repeated, 2, CPU), picture, tile=128)
    expected = picture.repeat(2, axis=0).repeat(2, axis=1)
    assert made.shape == expected.shape
    assert made.dtype == np.uint8
    assert np.abs(made.astype(int) - expected).max() <= 1  # fractions are cut off


def test_what_lies_outside_is_cut_off():
    bright = Upscaler("x", lambda part: repeated(part) * 3 - 1, 2, CPU)
    made = enlarge(bright, np.array([[[0, 128, 255]]], np.uint8))
    assert made[0, 0].tolist() == [0, 129, 255]


def test_something_else_can_be_done_between_tiles():
    shares = list(enlarging(Upscaler("x", repeated, 2, CPU), noise(300, 300), tile=128))
    assert len(shares) == 16
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_gradients_are_not_kept():
    weight = torch.ones(1, requires_grad=True)
    upscaler = Upscaler("x", lambda part: repeated(part) * weight, 2, CPU)
    assert enlarge(upscaler, noise(8, 8)).shape == (16, 16, 3)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_tiles_shrink_where_memory_runs_out():
    device = Narrow(130)
    made = enlarge(Upscaler("x", device, 2, CPU), noise(300, 40), tile=512)
    assert made.shape == (600, 80, 3)
    assert device.tried[:3] == [300, 256, 128]
    assert max(device.tried[2:]) == 128


def test_without_room_for_the_smallest_tiles_there_is_an_error():
    with pytest.raises(OutOfMemory, match=r"^x: the device has too little memory to enlarge tiles"):
        enlarge(Upscaler("x", Narrow(60), 2, CPU), noise(300, 300))


def test_other_errors_are_not_taken_for_it():
    def broken(part: Tensor) -> Tensor:
        raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match="^of another kind$"):
        enlarge(Upscaler("x", broken, 2, CPU), noise(8, 8))


def test_pictures_that_would_get_too_large_are_refused():
    require_enlargeable(Size(4000, 4000), 4, "uov_image_url")
    with pytest.raises(
        InvalidRequest,
        match=r"^uov_image_url: expected a picture of at most 16\.8 megapixels to enlarge, got 8000x8000$",
    ):
        require_enlargeable(Size(8000, 8000), 4, "uov_image_url")
