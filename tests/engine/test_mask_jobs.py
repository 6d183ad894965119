"""A mask from a picture is an ordinary job: planned, queued, one PNG in white on black, and no model call."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import (
    Catalog,
    Event,
    Failed,
    Finished,
    ImageReady,
    InvalidRequest,
    ModelNotFound,
    Progress,
    TextRequest,
    plan,
    plan_from_json,
    plan_to_json,
    read_catalog,
)
from engine.needed import needed_weights
from engine.partners import DETECTOR, MASK_NETWORKS, SAM, partner_offers
from engine.places import Places
from engine.plan import FindMask
from tests.libraries import library_of

IMAGE = "a" * 64


def asked(**fields: Any) -> TextRequest:
    return TextRequest.parse({"mask_from": {"image": IMAGE, **fields}})


def offered(models_dir: Path) -> Catalog:
    return read_catalog(Places(models_dir=models_dir), offers=partner_offers())


def test_a_mask_stands_alone_and_words_are_needed_where_words_are_read() -> None:
    mask = {"image": IMAGE}
    for other in ("inpaint", "upscale_or_vary"):
        with pytest.raises(InvalidRequest, match=f"mask_from: expected nothing beside {other}"):
            TextRequest.parse({"mask_from": mask, other: {"image": IMAGE}})
    for words in ({}, {"prompt": " . "}):
        with pytest.raises(InvalidRequest, match=r"mask_from\.prompt: expected words"):
            asked(model="sam", **words)
    assert asked().mask_from.model == "isnet-general-use"


@pytest.mark.torch
def test_a_plan_names_the_networks_that_can_be_fetched_and_nothing_else(models_dir: Path) -> None:
    catalog = offered(models_dir)
    library = library_of(catalog)
    request = asked(model="sam", prompt="face", sam_model="vit_l", max_detections=2)
    wanted = plan(request.model_copy(update={"num_images": 4}), library, seed=1)
    assert wanted.start == FindMask(
        image=IMAGE,
        model="sam",
        detector="grounding-dino-tiny",
        sam="sam-vit-large",
        prompt="face",
        box_threshold=0.3,
        max_detections=2,
    )
    assert len(wanted.images) == 1
    assert not wanted.images[0].is_to_expand
    assert plan_from_json(plan_to_json(wanted)) == wanted
    needed = needed_weights(catalog, wanted)
    assert [it.source for it in needed] == [DETECTOR.source, SAM["vit_l"].source]
    boxes = plan(asked(model="sam", prompt="face", boxes_only=True), library, seed=1)
    assert [it.name for it in needed_weights(catalog, boxes)] == [DETECTOR.file]
    for model, offer in MASK_NETWORKS.items():
        wanted = plan(asked(model=model), library, seed=1)
        assert [it.source for it in needed_weights(catalog, wanted)] == [offer.source]
    assert len(MASK_NETWORKS) == 7


@pytest.mark.torch
def test_without_offers_a_missing_network_is_said(tiny_catalog: Catalog) -> None:
    problem = r"mask_from\.model: no inpaint model named 'isnet-general-use\.onnx'"
    with pytest.raises(ModelNotFound, match=problem):
        plan(asked(), library_of(tiny_catalog), seed=1)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with a detector, a SAM and a base model that cannot be read."""
    from engine.stages import find_mask as stage
    from tests.tiny_segmenters import write_detector, write_sam

    monkeypatch.setattr(stage, "SHORT_SIDE", 96)
    folder = tmp_path / "models"
    write_detector(folder / "segmenters" / DETECTOR.file)
    write_sam(folder / "segmenters" / SAM["vit_b"].file)
    broken = folder / "checkpoints" / "broken"
    broken.mkdir(parents=True)
    (broken / "model_index.json").write_text("{}")
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)).save(path)
    return path


def start(folder: Path) -> Any:
    """An engine on the weights of a folder."""
    from engine.engine import create

    engine = create(str(folder), device="cpu")
    torch.set_num_threads(1)
    return engine


def words(prompt: str = "red star", threshold: float = 0.0) -> TextRequest:
    return asked(model="sam", prompt=prompt, box_threshold=threshold)


@pytest.mark.torch
def test_a_job_gives_the_mask_and_reads_no_base_model(networks: Path, picture: Path) -> None:
    engine = start(networks)
    library = library_of(read_catalog(networks))
    engine.admit("m", plan(words(), library, seed=1), {IMAGE: picture})
    (_, ready), (_, end) = run(engine)  # and no word of a model that is loaded
    assert engine.counters().get("unet_calls", 0) == 0
    assert isinstance(end, Finished)
    assert isinstance(ready, ImageReady)
    mask = Image.open(io.BytesIO(ready.data))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "RGB", (70, 50))
    values = np.asarray(mask)
    assert set(np.unique(values)) <= {0, 255}
    assert (values == values[..., :1]).all()
    assert values.any()

    painted = plan(TextRequest(prompt="a star", styles=(), num_images=1), library, seed=1)
    engine.admit("p", painted, {})
    assert [type(event) for _, event in run(engine)] == [Progress, Failed]


@pytest.mark.torch
def test_where_nothing_is_found_there_is_a_sentence(networks: Path, picture: Path) -> None:
    engine = start(networks)
    wanted = plan(words("nothing", 1.0), library_of(read_catalog(networks)), seed=1)
    engine.admit("m", wanted, {IMAGE: picture})
    [(_, end)] = engine.step()
    assert isinstance(end, Failed)
    assert end.message == "mask_from.prompt: expected 'nothing' in the picture, found none"


@pytest.mark.torch
def test_a_mask_waits_for_no_picture_that_is_painted(
    networks: Path, picture: Path, models_dir: Path
) -> None:
    """Nor does it take the weights from it."""
    shutil.rmtree(networks / "checkpoints")
    (networks / "checkpoints").symlink_to(models_dir / "checkpoints")
    engine = start(networks)
    library = library_of(read_catalog(networks))
    asked = {"prompt": "a star", "styles": (), "num_images": 1, "aspect_ratio": "64x64"}
    advanced = {"num_inference_steps": 6}
    painted = plan(TextRequest.parse({**asked, "advanced": advanced}), library, seed=1)
    engine.admit("alone", painted, {})
    alone = run(engine)[-2][1]
    engine.admit("p", painted, {})
    while engine.counters()["unet_calls"] < 8:
        engine.step()
    engine.admit("m", plan(words(), library, seed=1), {IMAGE: picture})
    told = run(engine)
    assert engine.counters()["unet_calls"] == 12
    assert [job for job, event in told if isinstance(event, Finished)] == ["m", "p"]
    assert told[-2][1].data == alone.data
    assert "loading" not in [event.stage for _, event in told if isinstance(event, Progress)]


def run(engine: Any) -> list[tuple[str, Event]]:
    """Let an engine end what it has."""
    told: list[tuple[str, Event]] = []
    while not engine.idle():
        told += engine.step()
    return told
