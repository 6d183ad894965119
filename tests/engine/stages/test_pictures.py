"""Pictures as people send them: every kind that is allowed becomes pixels, every other one a sentence."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import InvalidRequest
from engine.stages import pictures
from engine.stages.pictures import read_picture, sent_along

FIELD = "inpaint.image"
RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(image: Image.Image | bytes, file: str = "picture.png", **options: Any) -> Path:
        path = tmp_path / file
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **options)
        return path

    return written


def coloured(mode: str) -> Image.Image:
    return Image.new("RGB", (4, 3), (200, 100, 50)).convert(mode)


def png_of(width: int, height: int) -> bytes:
    """The head of a PNG that says how large it is, and nothing more."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "file", "expected"),
    [
        (Image.fromarray(RAMP), "a.png", RAMP),
        (Image.fromarray(RAMP.astype(np.uint16) * 257), "a.png", RAMP),
        (Image.fromarray(RAMP > 100), "a.png", (RAMP > 100) * 255),
        (Image.fromarray(np.stack([RAMP, 255 - RAMP], 2)), "a.png", None),
        (coloured("RGBA"), "a.webp", None),
        (coloured("P"), "a.gif", None),
        (coloured("RGB"), "a.bmp", [[[200, 100, 50]] * 4] * 3),
        (Image.new("RGB", (1, 1), (1, 2, 3)), "a.png", [[[1, 2, 3]]]),
    ],
    ids=["grey", "16 bits", "1 bit", "grey and alpha", "webp", "gif", "bmp", "1x1"],
)
def test_kinds_of_pictures_are_read(
    image: Image.Image, file: str, expected: Any, write: Callable[..., Path]
) -> None:
    pixels = read_picture(write(image, file), FIELD)
    assert pixels.dtype == np.uint8
    assert pixels.shape[:2] == (image.height, image.width)
    if expected is not None:
        np.testing.assert_array_equal(pixels, expected)


def test_grey_and_alpha_becomes_four_channels(write: Callable[..., Path]) -> None:
    pixels = read_picture(write(Image.fromarray(np.stack([RAMP, 255 - RAMP], 2))), FIELD)
    np.testing.assert_array_equal(pixels, np.stack([RAMP, RAMP, RAMP, 255 - RAMP], 2))


def test_transparency_of_a_palette_is_kept(write: Callable[..., Path]) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    pixels = read_picture(write(image, transparency=1), FIELD)
    np.testing.assert_array_equal(pixels, [[[10, 20, 30, 255], [40, 50, 60, 0]]])


def test_print_colours_become_screen_colours(write: Callable[..., Path]) -> None:
    path = write(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=100)
    pixels = read_picture(path, FIELD)
    assert pixels.shape == (8, 8, 3)
    assert abs(pixels.reshape(-1, 3).astype(int) - [255, 0, 0]).max() < 8


def test_a_picture_of_a_turned_camera_stands_upright(write: Callable[..., Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.stack([RAMP] * 3, 2))
    pixels = read_picture(write(image, exif=exif), FIELD)
    np.testing.assert_array_equal(pixels[..., 0], np.rot90(RAMP, -1))


def test_of_an_animation_the_first_picture_counts(write: Callable[..., Path]) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue", "green")]
    path = write(frames[0], "a.gif", save_all=True, append_images=frames[1:])
    pixels = read_picture(path, FIELD)
    np.testing.assert_array_equal(pixels[..., :3], np.asarray(frames[0]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not a picture, whatever its name is", "got another file"),
        (b"", "got another file"),
        (b"%PDF-1.7 ...", "got another file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "got another file"),
        (png_of(8001, 8000), "got 8001x8000"),
        (png_of(40000, 40000), "at most 64000000 pixels, got a larger one"),
        (png_of(8, 8), "that can be read, got"),
    ],
    ids=["text", "empty", "pdf", "svg", "too large", "a bomb", "no pixels"],
)
def test_other_files_are_refused(data: bytes, reason: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        read_picture(write(data), FIELD)
    assert caught.value.field == FIELD


@pytest.mark.parametrize("file", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp"])
def test_damaged_files_are_refused_or_read(file: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    noise = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, pictures.FORMATS[["png", "jpg", "webp", "gif", "bmp"].index(file[2:])])
    whole, path = buffer.getvalue(), tmp_path / file
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidRequest, match=f"^{FIELD}: "):
        read_picture(path, FIELD)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 6):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(InvalidRequest):
            assert read_picture(path, FIELD).dtype == np.uint8


def test_a_file_that_is_gone_is_told_without_its_place(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(InvalidRequest) as caught:
            read_picture(path, FIELD)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InvalidRequest, match=r"^inpaint\.image: .* got 0123456789ab\.\.\.$"):
        sent_along({}, "0123456789abcdef", FIELD)
