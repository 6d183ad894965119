"""Masks, crops, fills and paste-backs equal Fooocus' (golden/image_ops), alone and in whole requests (golden/image_requests)."""

import io
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.geometry import Size
from engine.stages.inpaint import (
    FILLS_ABOVE,
    Canvas,
    CanvasLatents,
    crop_box,
    encode_canvas,
    fill_hole,
    latent_mask,
    masked_values,
    paste_back,
    prepare,
)
from engine.stages.masks import grow, is_hole_in, pad, read_mask, shape_mask, soften, union
from engine.stages.pixels import Pixels, size_of, to_rgb
from tests.golden_data import golden_arrays, golden_json

pytestmark = pytest.mark.torch

ARRAYS = golden_arrays("image_ops.npz")
OPS = golden_json("image_ops.json")
REQUESTS = golden_json("image_requests.json")
INPUTS = golden_arrays("image_requests_inputs.npz")
ASKED = (
    "inpaint_image",
    "inpaint_mask_upload",
    "adv_mask",
    "erode",
    "invert",
    "outpaint",
    "field",
    "strength",
)
"""What a canvas depends on."""
INPAINTED = [
    name
    for name, case in REQUESTS.get("cases", {}).items()
    if "inpaint_image" in case["request"] and case["diffusion"][0].get("inpaint")
]


def numbered(kind: str) -> list[str]:
    """The numbers of the arrays of a kind, such as ``fill0_out``."""
    return [match[1] for name in ARRAYS if (match := re.fullmatch(kind, name))]


def four_times(image: Pixels) -> Pixels:
    """The upscaler of the recordings."""
    return image.repeat(4, axis=0).repeat(4, axis=1)


def drawn(shape: tuple[int, ...], red: int, green: int, blue: int) -> Pixels:
    """A picture by formula: (3x + red), (2y + green), (x + y + blue), modulo 256."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([3 * x + red, 2 * y + green, x + y + blue], 2).astype(np.uint8)


@pytest.mark.parametrize("case", OPS.get("crop", []), ids=lambda case: case["mask"])
def test_crops_equal_fooocus_golden(case: Mapping[str, Any]) -> None:
    mask = ARRAYS[f"mask{case['mask']}"]
    assert list(mask.shape) == case["shape"]
    for respective_field, box in case["solved"].items():
        assert list(crop_box(mask, float(respective_field))) == box
    assert list(crop_box(mask, 0)) == case["initial"]


@pytest.mark.parametrize("number", numbered(r"fill(\d+)_out"))
def test_filled_holes_equal_fooocus_golden(number: str) -> None:
    filled = fill_hole(ARRAYS[f"fill{number}_image"], ARRAYS[f"fill{number}_mask"])
    np.testing.assert_array_equal(filled, ARRAYS[f"fill{number}_out"])


@pytest.mark.parametrize("number", numbered(r"soft(\d+)_out"))
def test_soft_masks_equal_fooocus_golden(number: str) -> None:
    np.testing.assert_array_equal(soften(ARRAYS[f"soft{number}_mask"]), ARRAYS[f"soft{number}_out"])


@pytest.mark.parametrize("by", numbered(r"morph_(-?[\d.]+)"))
def test_grown_masks_equal_fooocus_golden(by: str) -> None:
    np.testing.assert_array_equal(grow(ARRAYS["morph_mask"], int(float(by))), ARRAYS[f"morph_{by}"])


@pytest.mark.skipif("lm_mask" not in ARRAYS, reason="the golden data has no such mask")
def test_odd_latent_masks_equal_fooocus_golden() -> None:
    expected = ARRAYS["lm_out"]
    height, width = expected.shape[2:]
    hole = (ARRAYS["lm_mask"][0] * 255).astype(np.uint8)
    np.testing.assert_array_equal(latent_mask(hole, Size(width, height)).numpy(), expected)


@pytest.mark.parametrize("case", OPS.get("worker", []), ids=lambda case: case["i"])
def test_canvases_equal_fooocus_golden(case: Mapping[str, Any]) -> None:
    def recorded(name: str) -> np.ndarray:
        return ARRAYS[f"worker{case['i']}_{name}"]

    enlarged = []

    def upscale(image: Pixels) -> Pixels:
        enlarged.append(list(image.shape))
        return four_times(image)

    canvas = prepare(
        recorded("image"),
        recorded("mask"),
        respective_field=case["k"],
        is_filled=case["use_fill"],
        upscale=upscale,
        as_fooocus=True,
    )
    assert enlarged == case["upscaled"]
    assert list(canvas.box) == case["area"]
    assert list(canvas.image.shape) == case["work_shape"]
    np.testing.assert_array_equal(canvas.image[::16, ::16], recorded("work_sub"))
    np.testing.assert_array_equal(canvas.filled[::16, ::16], recorded("fill_sub"))
    np.testing.assert_array_equal(np.packbits(canvas.hole > 0), recorded("workmask_packed"))
    for image, name in (
        (canvas.image, "work_sum"),
        (canvas.filled, "fill_sum"),
        (canvas.hole, "work_mask_sum"),
    ):
        assert image.sum(dtype=np.int64) == case[name]
    greyed = (masked_values(canvas)[0].permute(1, 2, 0).numpy() + 1) / 2
    np.testing.assert_allclose(greyed[::32, ::32], recorded("masked_pixels_sub"), atol=1e-7)
    cells = latent_mask(canvas.hole, canvas.size.latent)
    np.testing.assert_array_equal(cells.numpy(), recorded("latent_mask"))
    offsets = [int(number) for number in re.findall(r"\+(\d+)\)%", case["generated"])]
    result = paste_back(canvas, drawn(canvas.image.shape, *offsets))
    np.testing.assert_array_equal(result, recorded("pasted"))


@pytest.mark.parametrize("name", INPAINTED)
def test_whole_requests_equal_fooocus_golden(name: str) -> None:
    case = REQUESTS["cases"][name]
    request = {**REQUESTS["defaults"], **case["request"]}
    canvas, asked = asked_canvas(json.dumps({key: request[key] for key in ASKED}))
    recorded = case["diffusion"][0]
    expected = recorded["inpaint"]
    assert [list(shape) for shape in asked] == case["upscaler_calls"]
    assert list(canvas.box) == expected["area"]
    assert list(canvas.image.shape) == expected["work_shape"]
    assert list(canvas.picture.shape) == expected["full_shape"]
    assert (canvas.filled is canvas.image) == expected["fill_is_image"]
    sums = {"mask": soften(canvas.mask), "fill": canvas.filled, "work": canvas.image}
    for part, image in {**sums, "work_mask": canvas.hole}.items():
        assert image.sum(dtype=np.int64) == expected[f"{part}_sum"], part
    encoded, latents = encoded_by_average(canvas)
    assert encoded == [call["pixels"] for call in case["vae_encodes"]]
    assert list(latents.filled.shape) == expected["latent"]
    assert latents.mask.sum() == expected["latent_mask_sum"]
    assert canvas.size.latent == Size(recorded["width"] // 8, recorded["height"] // 8)
    painted = drawn((recorded["height"], recorded["width"]), 120, 51, 15)
    result = paste_back(canvas, painted)
    assert list(result.shape) == case["logs"][0]["shape"]
    assert result.sum(dtype=np.int64) == case["logs"][0]["sum"]


@pytest.mark.parametrize(
    "name",
    [name for name in REQUESTS.get("cases", {}) if name.endswith("empty_mask")],
)
def test_empty_masks_are_seen_golden(name: str) -> None:
    request = {**REQUESTS["defaults"], **REQUESTS["cases"][name]["request"]}
    assert not is_hole_in(array_of(request["inpaint_image"]["mask"])[..., 0])
    assert not REQUESTS["cases"][name]["diffusion"][0].get("inpaint")


@cache
def asked_canvas(asked: str) -> tuple[Canvas, list[tuple[int, ...]]]:
    """Prepare what a recorded request asks for in JSON; tells which parts were enlarged."""
    request = json.loads(asked)
    image = to_rgb(array_of(request["inpaint_image"]["image"]))
    mask = array_of(request["inpaint_image"]["mask"])[..., 0]
    if request["adv_mask"]:
        mask = union([mask, uploaded_mask(request["inpaint_mask_upload"], size_of(image))])
    shaping = {"by": request["erode"], "is_inverted": request["invert"]}
    mask = shape_mask(mask, **shaping, needs_hole=not request["outpaint"])
    image, mask = pad(image, mask, request["outpaint"])
    enlarged: list[tuple[int, ...]] = []

    def upscale(part: Pixels) -> Pixels:
        enlarged.append(part.shape)
        return four_times(part)

    canvas = prepare(
        image,
        mask,
        respective_field=request["field"],
        is_filled=request["strength"] > FILLS_ABOVE,
        upscale=upscale,
        as_fooocus=True,
    )
    return canvas, enlarged


def uploaded_mask(value: Mapping[str, Any], size: Size) -> Pixels:
    """The mask that was uploaded, and what was drawn on it."""
    if "image" in value:
        return read_mask(union([array_of(value["image"]), array_of(value["mask"])]), size)
    return read_mask(array_of(value), size)


def array_of(value: Mapping[str, Any]) -> Pixels:
    if "array" in value:
        return np.array(Image.open(io.BytesIO(INPUTS[value["array"]].tobytes())))
    return np.full(value["shape"], value["constant"], np.uint8)


def encoded_by_average(canvas: Canvas) -> tuple[list[list[int]], CanvasLatents]:
    """Encode with the VAE of the recordings; tells the shapes it was given, channels last."""
    shapes = []

    def encode(values: torch.Tensor) -> torch.Tensor:
        shapes.append([1, *values.shape[2:], 3])
        means = torch.nn.functional.avg_pool2d(values, 8)
        return torch.cat([means, means.mean(1, keepdim=True)], 1)

    latents = encode_canvas(canvas, encode)
    return shapes, latents
