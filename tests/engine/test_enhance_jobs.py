"""An enhanced picture is one job: painted, then a mask is found and a part repainted, one story with one end."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import (
    Event,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    InvalidRequest,
    ModelNotFound,
    Progress,
    Stopped,
    TextRequest,
    is_terminal,
    plan,
    plan_from_json,
    read_catalog,
    request_of,
)
from engine.partners import DETECTOR, SAM
from engine.plan import Given, Plan, Repainting
from tests.libraries import library_of

ROOT = Path(__file__).parents[2]
GIVEN = "a" * 64
STAR = {"look_for": "red star", "box_threshold": 0.0, "max_detections": 1}
NOTHING = {"look_for": "nothing", "box_threshold": 1.0}
SHORT = {"num_inference_steps": 2, "base_model": "pocket", "previews": False}


def asked(enhance: Mapping[str, Any], **fields: Any) -> TextRequest:
    request = {"prompt": "a star", "styles": (), "num_images": 1, "aspect_ratio": "128x128"}
    return TextRequest.parse({**request, "advanced": SHORT, **fields, "enhance": enhance})


def test_what_cannot_be_enhanced_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"enhance\.regions: expected a region, or a way"):
        asked({})
    with pytest.raises(InvalidRequest, match=r"enhance\.regions\.0\.look_for: expected words"):
        asked({"regions": [{}]})
    for other in ("inpaint", "upscale_or_vary"):
        with pytest.raises(InvalidRequest, match=f"enhance: expected nothing beside {other}"):
            asked({"image": GIVEN, "regions": [STAR]}, **{other: {"image": GIVEN}})


pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket model, and a detector and a SAM of a few thousand weights."""
    from tests.tiny_segmenters import write_detector, write_sam

    folder = tmp_path_factory.mktemp("models")
    (folder / "pocket").symlink_to(ROOT / "models" / "pocket")
    write_detector(folder / "segmenters" / DETECTOR.file)
    write_sam(folder / "segmenters" / SAM["vit_b"].file)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Any:
    from engine.engine import create

    made = create(str(folder), device="cpu")
    torch.set_num_threads(1)
    return made


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.stages import find_mask

    monkeypatch.setattr(find_mask, "SHORT_SIDE", 96)


def planned(folder: Path, request: TextRequest) -> Plan:
    return plan(request, library_of(read_catalog(folder)), seed=5)


def run(engine: Any, job: Plan, files: Mapping[str, Path] | None = None) -> list[Event]:
    engine.admit("e", job, files or {})
    told: list[Event] = []
    while not engine.idle():
        told += [event for _, event in engine.step()]
    assert is_terminal(told[-1])
    assert not any(is_terminal(event) for event in told[:-1])
    return told


def pictures(told: list[Event]) -> dict[int, Any]:
    return {
        it.index: np.asarray(Image.open(io.BytesIO(it.data)).convert("RGB"), np.int16)
        for it in told
        if isinstance(it, ImageReady)
    }


def test_a_picture_is_painted_and_then_a_part_of_it_once_more(engine: Any, folder: Path) -> None:
    regions = [{**STAR, "prompt": "a green circle"}, NOTHING]
    job = planned(folder, asked({"regions": regions}))
    assert job.count == 3
    told = run(engine, job)
    found = pictures(told)
    assert [type(it) for it in told if not isinstance(it, Progress)] == [
        *(ImageReady, ImageReady, ImageSkipped, Finished)
    ]
    assert list(found) == [0, 1]
    assert (found[0] != found[1]).any()
    end = told[-1]
    assert isinstance(end, Finished)
    assert end.notes == ("nothing: nothing was found to repaint",)
    assert end.has_nsfw_concepts == (False, False)
    fractions = [it.fraction for it in told if isinstance(it, Progress) and it.stage == "sampling"]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1


def test_each_picture_says_how_it_was_made(engine: Any, folder: Path) -> None:
    job = planned(folder, asked({"regions": [{**STAR, "prompt": "a heart"}]}, num_images=2))
    made = (it for it in run(engine, job) if isinstance(it, ImageReady))
    ready = sorted(made, key=lambda it: it.index)
    assert [it.index for it in ready] == [0, 1, 2, 3]
    plans = [plan_from_json(it.plan or "") for it in ready]
    assert [it.images[0].prompt for it in plans] == ["a star", "a heart"] * 2
    assert [it.images[0].seed for it in plans] == [5, 5, 6, 6]
    assert [isinstance(it.start, Repainting) for it in plans] == [False, True] * 2
    plain, enhanced = (request_of(it) for it in plans[:2])
    assert plain["enhance"] is None
    assert (enhanced["prompt"], enhanced["seed"]) == ("a star", 5)
    again = planned(folder, TextRequest.parse(enhanced))
    repeated = pictures(run(engine, again))
    assert (repeated[1] == pictures(ready)[1]).all()


def test_only_the_last_version_is_kept_where_that_is_asked(engine: Any, folder: Path) -> None:
    enhance = {"regions": [STAR], "upscale_or_vary": "Upscale (Fast 2x)", "final_only": True}
    enhance["order"] = "After Last Enhancement"
    job = planned(folder, asked(enhance, output_format="jpeg"))
    assert job.count == 1
    [ready] = [it for it in run(engine, job) if isinstance(it, ImageReady)]
    assert (ready.index, ready.content_type, tuple(ready.size)) == (0, "image/jpeg", (256, 256))
    assert Image.open(io.BytesIO(ready.data)).format == "JPEG"
    assert plan_from_json(ready.plan or "").output_format == "jpeg"


def test_a_picture_that_is_given_is_enhanced(engine: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "given.png"
    Image.new("RGB", (96, 64), (30, 60, 220)).save(path)
    job = planned(folder, asked({"image": GIVEN, "regions": [STAR]}, num_images=4))
    assert isinstance(job.start, Given)
    assert job.count == 1
    found = pictures(run(engine, job, {GIVEN: path}))
    assert list(found) == [0]
    assert found[0].shape == (64, 96, 3)
    assert (found[0] != (30, 60, 220)).any()

    empty = planned(folder, asked({"image": GIVEN, "regions": [NOTHING]}))
    told = run(engine, empty, {GIVEN: path})
    assert isinstance(told[-1], Failed)
    assert told[-1].field == "enhance.regions"
    assert told[-1].message == "enhance.regions: nothing: nothing was found to repaint"


def test_a_job_can_be_stopped_and_a_step_skipped(engine: Any, folder: Path) -> None:
    job = planned(folder, asked({"regions": [STAR, STAR]}))
    engine.admit("e", job, {})
    told: list[Event] = []
    while len([it for it in told if isinstance(it, ImageReady)]) < 1:
        told += [event for _, event in engine.step()]
    while not (isinstance(told[-1], Progress) and told[-1].image == 1):
        told += [event for _, event in engine.step()]
    engine.skip("e")
    while ImageSkipped(1) not in told:
        told += [event for _, event in engine.step()]
    engine.cancel("e")
    while not engine.idle():
        told += [event for _, event in engine.step()]
    assert told[-1] == Stopped()
    assert list(pictures(told)) == [0]
    assert len(pictures(run(engine, job))) == 3


def test_what_is_missing_is_named_by_its_own_field() -> None:
    library = library_of(read_catalog(ROOT / "models"))
    with pytest.raises(ModelNotFound, match=r"^enhance\.regions\.0\.sam_model: no segmenter"):
        plan(asked({"regions": [STAR]}), library, seed=1)
