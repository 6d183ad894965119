"""A mask from a picture is an ordinary job: planned, queued, one PNG in white on black, and no model call."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import (
    Catalog,
    Failed,
    Finished,
    ImageReady,
    InvalidRequest,
    ModelNotFound,
    TextRequest,
    plan,
    plan_from_json,
    plan_to_json,
    read_catalog,
)
from engine.catalog import Places
from engine.needed import needed_weights
from engine.partners import DETECTOR, MASK_NETWORKS, SAM, partner_offers
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


@pytest.mark.torch
@pytest.mark.parametrize(("prompt", "threshold"), [("red star", 0.0), ("nothing", 1.0)])
def test_a_job_gives_the_mask_without_a_model_call(
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prompt: str,
    threshold: float,
) -> None:
    from engine.engine import create
    from engine.stages import find_mask as stage
    from tests.tiny_segmenters import write_detector, write_sam

    monkeypatch.setattr(stage, "SHORT_SIDE", 96)
    (tmp_path / "checkpoints").symlink_to(models_dir / "checkpoints")
    write_detector(tmp_path / "segmenters" / DETECTOR.file)
    write_sam(tmp_path / "segmenters" / SAM["vit_b"].file)
    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)).save(picture)
    engine = create(str(tmp_path), device="cpu")
    torch.set_num_threads(1)
    request = asked(model="sam", prompt=prompt, box_threshold=threshold)
    engine.admit("m", plan(request, library_of(read_catalog(tmp_path)), seed=1), {IMAGE: picture})
    events = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
    assert engine.counters().get("unet_calls", 0) == 0
    if threshold == 1.0:
        assert isinstance(events[-1], Failed)
        assert (
            events[-1].message == "mask_from.prompt: expected 'nothing' in the picture, found none"
        )
        return
    assert isinstance(events[-1], Finished)
    ready = next(event for event in events if isinstance(event, ImageReady))
    mask = Image.open(io.BytesIO(ready.data))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "RGB", (70, 50))
    values = np.asarray(mask)
    assert set(np.unique(values)) <= {0, 255}
    assert (values == values[..., :1]).all()
    assert values.any()
