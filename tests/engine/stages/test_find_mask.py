"""Masks found in pictures: what networks see and answer, and the whole way of GroundingDINO and SAM with random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import InvalidRequest, ModelIncompatible, ModelNotFound, read_catalog
from engine.geometry import Size
from engine.models.segmenters import load_detector, load_sam
from engine.plan import FindMask
from engine.stages import find_mask as stage
from engine.stages.find_mask import (
    caption,
    choose,
    detector_size,
    fed,
    fill_holes,
    filled,
    find_boxes,
    find_mask,
    joined,
    of_kind,
    outlines,
    spread_out,
    to_corners,
)
from engine.stages.masks import HALF
from tests.tiny_segmenters import write_detector, write_sam

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
IMAGE = "0" * 64


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_detector(folder / "segmenters" / "grounding-dino-tiny")
    write_sam(folder / "segmenters" / "sam-vit-base")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SHORT_SIDE", 96)
    monkeypatch.setattr(stage, "LONG_SIDE", 160)


def picture(width: int = 120, height: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def sought(**fields: Any) -> FindMask:
    named = {"detector": "grounding-dino-tiny", "sam": "sam-vit-base", "prompt": "Red star"}
    return FindMask(image=IMAGE, model="sam", **{**named, **fields})


def test_boxes_around_what_words_name_become_outlines(models: Path) -> None:
    catalog = read_catalog(models)
    mask = find_mask(sought(), catalog, picture(), CPU)
    assert mask.shape == (90, 120)
    assert set(np.unique(mask)) <= {0, 255}
    sam = load_sam(models / "segmenters" / "sam-vit-base", CPU)
    detector = load_detector(models / "segmenters" / "grounding-dino-tiny", CPU)
    boxes = find_boxes(detector, picture(), sought(), as_fooocus=False)
    assert len(boxes) == 12
    np.testing.assert_array_equal(mask, np.maximum.reduce(list(outlines(sam, picture(), boxes))))


def test_boxes_alone_are_filled(models: Path) -> None:
    catalog = read_catalog(models)
    start = sought(sam=None, max_detections=1, grow_boxes=3)
    detector = load_detector(models / "segmenters" / "grounding-dino-tiny", CPU)
    boxes = find_boxes(detector, picture(), start, as_fooocus=False)
    assert len(boxes) == 1
    mask = find_mask(start, catalog, picture(), CPU)
    np.testing.assert_array_equal(mask, next(filled(boxes, Size(120, 90))))


def test_fooocus_sees_red_and_blue_exchanged_and_takes_what_comes_first(models: Path) -> None:
    detector = load_detector(models / "segmenters" / "grounding-dino-tiny", CPU)
    theirs = find_boxes(detector, picture(), sought(), as_fooocus=True)
    ours = find_boxes(detector, picture()[..., ::-1], sought(), as_fooocus=False)
    assert sorted(map(tuple, theirs.round(3))) == sorted(map(tuple, ours.round(3)))
    assert not np.allclose(theirs, ours)


def test_where_nothing_is_found_there_is_a_sentence(models: Path) -> None:
    with pytest.raises(InvalidRequest, match="mask_from.prompt: expected 'Red star' in the pict"):
        find_mask(sought(box_threshold=1.0), read_catalog(models), picture(), CPU)


def test_missing_and_wrong_networks_are_said(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="mask_from.model: no segmenter named 'sam-vit-huge'"):
        find_mask(sought(sam="sam-vit-huge"), read_catalog(models), picture(), CPU)
    with pytest.raises(ModelNotFound, match="gone: expected a folder with config.json"):
        load_sam(tmp_path / "gone", CPU)
    with pytest.raises(ModelIncompatible, match="grounding-dino-tiny: expected"):
        load_sam(models / "segmenters" / "grounding-dino-tiny", CPU)


def test_a_threshold_an_order_and_a_limit_choose_boxes() -> None:
    scores = torch.tensor([0.2, 0.5, 0.3, 0.9, 0.4])
    assert choose(scores, 0.3, 0, is_sorted=False).tolist() == [1, 3, 4]
    assert choose(scores, 0.3, 0, is_sorted=True).tolist() == [3, 1, 4]
    assert choose(scores, 0.3, 2, is_sorted=False).tolist() == [1, 3]
    assert choose(torch.ones(900), 0.0, 0, is_sorted=True).shape == (stage.MAX_BOXES,)
    assert choose(scores, 0.9, 0, is_sorted=True).tolist() == []


def test_boxes_are_shares_that_become_pixels_and_grow_beyond_the_picture() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.2], [0.0, 0.0, 0.1, 0.1]])
    corners = to_corners(boxes, Size(200, 100), 10)
    np.testing.assert_allclose(corners, [(40, 30, 160, 70), (-20, -15, 20, 15)], atol=1e-4)
    whole = joined(filled(corners, Size(200, 100)), Size(200, 100))
    assert whole[30:70, 40:160].all()
    assert whole[:15, :20].all()
    assert (whole > 0).sum() == 40 * 120 + 15 * 20


def test_captions_end_with_one_full_stop() -> None:
    assert caption("  Left Hand ") == "left hand."
    assert caption("face. hand.") == "face. hand."


@pytest.mark.parametrize(
    ("own", "seen"),
    [((640, 480), (1066, 800)), ((480, 640), (800, 1066)), ((2000, 500), (1332, 333))],
)
def test_detectors_see_a_short_side_of_800_unless_the_other_is_too_long(
    monkeypatch: pytest.MonkeyPatch, own: tuple[int, int], seen: tuple[int, int]
) -> None:
    monkeypatch.setattr(stage, "SHORT_SIDE", 800)
    monkeypatch.setattr(stage, "LONG_SIDE", 1333)
    assert detector_size(Size(*own)) == Size(*seen)


def test_small_holes_are_filled_and_large_ones_stay() -> None:
    mask = np.full((80, 80), 255, np.uint8)
    mask[5:24, 5:26] = 0  # 399 pixels
    mask[40:60, 40:60] = 0  # 400 pixels
    healed = fill_holes(mask)
    assert healed[5:24, 5:26].all()
    assert not healed[40:60, 40:60].any()
    assert (healed == 0).sum() == 400
    np.testing.assert_array_equal(fill_holes(np.zeros((40, 40), np.uint8)), 0)


def test_networks_for_outlines_see_values_by_the_brightest() -> None:
    grey = np.full((10, 20, 3), 51, np.uint8)
    grey[0, 0] = 102
    values = fed(grey, 320, (0.229, 0.224, 0.225))
    assert values.shape == (1, 3, 320, 320)
    assert values.dtype == np.float32
    brightest = np.array(values.max(axis=(0, 2, 3)))
    np.testing.assert_allclose(
        brightest, (1 - np.array((0.485, 0.456, 0.406))) / (0.229, 0.224, 0.225), rtol=1e-6
    )
    assert np.isfinite(fed(np.zeros((4, 4, 3), np.uint8), 8, (1.0, 1.0, 1.0))).all()


def test_answers_are_spread_over_all_levels() -> None:
    levels = spread_out(np.array([[-1.0, 0.0], [1.0, 3.0]], np.float32))
    np.testing.assert_array_equal(levels, [[0, 63], [127, 255]])
    assert not spread_out(np.full((3, 3), 0.7, np.float32)).any()


def test_clothes_have_no_lines_of_other_clothes_around_them() -> None:
    kinds = np.zeros((16, 16), np.uint8)
    kinds[4:12, 4:12] = 3
    size = Size(64, 64)
    assert of_kind(kinds, 1, size, as_fooocus=True).any()
    assert not of_kind(kinds, 1, size, as_fooocus=False).any()
    for as_fooocus in (False, True):
        full = of_kind(kinds, 3, size, as_fooocus=as_fooocus)
        assert full[20:44, 20:44].all()
        assert not (full[:12] > HALF).any()
