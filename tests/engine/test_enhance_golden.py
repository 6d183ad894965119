"""Enhanced pictures: what is found, repainted and enlarged, in which order and with which settings (golden/image_requests)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import Library, Plan, TextRequest, plan, plan_from_json, plan_to_json
from engine.catalog import Catalog, Checkpoint, Weights
from engine.geometry import Size
from engine.image_inputs import NO_PICTURE
from engine.partners import COMMON, DETECTOR, MASK_NETWORKS, SAM
from engine.plan import FOUND_MASK, Enhancement, FromPicture, Given, Repainting
from engine.records.record import log_rows
from engine.stages.inpaint import paste_back
from engine.stages.masks import soften
from engine.stages.metadata import record_of
from engine.stages.pixels import Pixels
from engine.starts import Beginning
from tests.engine.test_plan_golden import (
    GOLDEN,
    diffusion,
    encoded,
    request_of_case,
    write_header,
)
from tests.engine.test_plan_pictures_golden import (
    LEVELS_CUT_OFF,
    REQUESTS,
    array_of,
    begun,
    write_head,
    write_upscaler,
)
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch

CASES = {
    name: case for name, case in REQUESTS.get("cases", {}).items() if case["request"].get("enhance")
}
GIVEN = "e" * 64
PAINTED = 3
"""What the recordings' model painted, by the number of its formula."""
_MODES = {"disable_latent": "disable_initial_latent", "field": "respective_field"}
_AS_THERE = ("engine", "strength", "prompt", "model", "cloth")


def region_of(tab: Mapping[str, Any]) -> dict[str, Any]:
    asked = {**REQUESTS["tab_defaults"], **tab}
    return {
        **{name: asked[name] for name in _AS_THERE},
        **{ours: asked[theirs] for theirs, ours in _MODES.items()},
        "look_for": asked["dino"],
        "negative_prompt": asked["negative"],
        "sam_model": asked["sam"],
        "box_threshold": asked["box_thr"],
        "max_detections": asked["max_det"],
        "erode_or_dilate": asked["erode"],
        "invert_mask": asked["invert"],
    }


def request_of_enhanced(case: Mapping[str, Any]) -> TextRequest:
    """Write a golden request in our fields."""
    asked = {**REQUESTS["defaults"], **case["request"]}
    is_given = asked["input_image"] and asked["tab"] == "enhance"
    method = asked["enhance_uov"]
    strength = asked["ow_vary" if method.startswith("Vary") else "ow_upscale"]
    enhance = {
        "strength": strength if strength > 0 else None,
        "image": GIVEN if is_given else None,
        "upscale_or_vary": None if method == "Disabled" else method,
        "order": asked["enhance_order"],
        "prompts": asked["enhance_prompt_type"],
        "regions": [
            region_of(tab)
            for tab in asked["tabs"]
            if {**REQUESTS["tab_defaults"], **tab}["enabled"]
        ],
        "final_only": asked["save_final_only"],
    }
    text = request_of_case({"request": asked})
    return TextRequest.parse({**text.model_dump(), "enhance": enhance})


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """What the recordings had: a base model of which only the layout is read, and small helpers."""
    folder = tmp_path_factory.mktemp("models")
    names = {REQUESTS["defaults"]["base_model"]} | {
        case["request"].get("refiner", "None") for case in CASES.values()
    }
    offers = [*COMMON.values(), *MASK_NETWORKS.values(), DETECTOR, *SAM.values()]
    paths = {COMMON["upscaler"].file: write_upscaler(folder / "repeats.safetensors")}
    paths[COMMON["inpaint head"].file] = write_head(folder / "head.safetensors")
    files = [
        Weights(name=it.file, path=paths.get(it.file, folder / it.file), kind=it.kind)
        for it in offers
    ]
    loras = [
        Weights(name=name, path=folder / name, kind="lora") for name in GOLDEN.get("lora_files", [])
    ]
    return Library(
        catalog=Catalog(
            [Checkpoint(name=name, path=write_header(folder / name)) for name in sorted(names)],
            [*files, *loras],
        )
    )


class Chain:
    """A case as it goes: which enhancements find something to repaint, and what they are given."""

    def __init__(self, case: Mapping[str, Any], made: Plan) -> None:
        self.found = iter(case["detected_masks"])
        self.made = made

    def __iter__(self) -> Iterator[tuple[int, Enhancement, list[int] | None]]:
        """Give the index of the picture, what is done and the box that is found."""
        for index, enhancements in enumerate(self.made.enhancements):
            for item in enhancements:
                box = next(self.found) if item.find is not None else None
                if item.find is None or box is not None:
                    yield index, item, box


def made_of(name: str, library: Library) -> Plan:
    return plan(request_of_enhanced(CASES[name]), library, seed=0)


@pytest.mark.parametrize("name", CASES)
def test_enhanced_plans_equal_fooocus_golden(name: str, library: Library) -> None:
    case, made = CASES[name], made_of(name, library)
    is_given = isinstance(made.start, Given)
    steps = [item for _, item, _ in Chain(case, made)]
    plans = [*([] if is_given else [made]), *(it.paint for it in steps)]
    painted = [
        it
        for it in plans
        if not (isinstance(it.start, FromPicture) and it.sampling.strength == 1.0)
    ]
    assert [text for it in painted for text in encoded(it)] == case["encoded"]
    ours = [run for it in painted for run in diffusion(it)]
    for mine, run in zip(ours, case["diffusion"], strict=True):
        expected = {**run, **run["settings"]}
        unlike = {"width", "height"}  # settled by the worker
        assert {key: mine[key] for key in mine if key not in unlike} == {
            key: expected[key] for key in mine if key not in unlike
        }
    for it, refresh in zip(painted, case["refresh"], strict=False):
        assert it.base_model == refresh["base"]
        assert (it.refiner.model if it.refiner else "None") == refresh["refiner"]
        assert [[Path(item.name).name, item.scale] for item in it.loras] == refresh["loras"]
        patch = it.start.patch if isinstance(it.start, Repainting) else None
        assert ([[patch, 1.0]] if patch else []) == refresh["base_only_loras"]
    assert plan_from_json(plan_to_json(made)) == made


@pytest.mark.parametrize("name", CASES)
def test_what_is_looked_for_equals_fooocus_golden(name: str, library: Library) -> None:
    case, made = CASES[name], made_of(name, library)
    sought = [it.find for chain in made.enhancements for it in chain if it.find is not None]
    for ours, theirs in zip(sought, case.get("mask_requests", []), strict=True):
        assert ours.model == theirs["model"]
        if ours.model == "sam":
            assert ours.prompt == theirs["prompt"]
            assert (ours.box_threshold, ours.max_detections) == (theirs["box"], theirs["max"])
            assert ours.sam == SAM[theirs["sam"]].file


def formula(size: Size) -> Pixels:
    return array_of({"shape": [size.height, size.width, 3], "k": PAINTED})


@pytest.mark.parametrize("name", CASES)
def test_enhanced_pictures_equal_fooocus_golden(
    name: str, library: Library, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    case, made = CASES[name], made_of(name, library)
    is_given = isinstance(made.start, Given)
    first = array_of(case["request"]["enhance_image"]) if is_given else formula(made.size)
    latest = dict.fromkeys(range(len(made.images)), first)
    done = 0 if is_given else len(made.images)
    runs = iter(case["diffusion"][done:])
    unet = load_toy_unet(Path())
    for (index, item, box), log in zip(Chain(case, made), case["logs"][done:], strict=True):
        asked: Any = SimpleNamespace(pictures=write_pictures(tmp_path, latest[index], box))
        beginning, _ = begun(item.paint, asked, library, unet)
        if beginning.result is not None:
            latest[index] = beginning.result
            assert_near(beginning.result, log["sum"])
        else:
            latest[index] = painted(beginning, item, next(runs), log)
        assert list(latest[index].shape) == log["shape"]


def write_pictures(folder: Path, picture: Pixels, box: list[int] | None) -> dict[str, Path]:
    """Write what there is by now, and what was found in it."""
    files = {NO_PICTURE: folder / "picture.png", FOUND_MASK: folder / "mask.png"}
    Image.fromarray(picture).save(files[NO_PICTURE], compress_level=1)
    if box is not None:
        top, bottom, left, right = box
        mask = np.zeros(picture.shape[:2], np.uint8)
        mask[top:bottom, left:right] = 255
        Image.fromarray(mask).save(files[FOUND_MASK])
    return files


def painted(
    beginning: Beginning, item: Enhancement, run: Mapping[str, Any], log: Mapping[str, Any]
) -> Pixels:
    """Hold how an enhancement begins against a recording; gives the picture that it ends with."""
    size = beginning.plan.sample_size
    assert (size.width, size.height) == (run["width"], run["height"])
    assert beginning.latents is not None
    assert list(beginning.latents.shape) == run["latent"]
    assert beginning.is_tiled == run["tiled"]
    assert (beginning.addition is not None) == bool(run["input_block_patches"])
    canvas = beginning.canvas
    if canvas is None:
        rows = {key: value for _, key, value in log["metadata"]}
        record = record_of(beginning.plan, item.paint.images[0], version=rows["version"])
        told = {key: value for _, key, value in log_rows(record)}
        # Fooocus writes the steps of the mode there, also where it took those for larger pictures.
        assert {**told, "metadata_scheme": False} == {**rows, "steps": run["steps"]}
        return formula(size)
    facts = run["inpaint"]
    assert list(canvas.box) == facts["area"]
    assert list(canvas.image.shape) == facts["work_shape"]
    assert beginning.kept is not None
    assert float(beginning.kept[1].sum()) == facts["latent_mask_sum"]
    assert total(soften(canvas.mask)) == facts["mask_sum"]
    assert total(canvas.hole) == facts["work_mask_sum"]
    assert_near(canvas.image, facts["work_sum"])
    assert_near(canvas.filled, facts["fill_sum"])
    result = paste_back(canvas, formula(canvas.size))
    assert total(result) == log["sum"]
    return result


def total(levels: Pixels) -> int:
    return int(levels.sum(dtype=np.int64))


def assert_near(levels: Pixels, expected: int) -> None:
    """Compare the means."""
    assert abs(total(levels) - expected) / levels.size < LEVELS_CUT_OFF
