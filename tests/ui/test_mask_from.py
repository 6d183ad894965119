"""Mask from the picture, as the page asks for it: a job on a real queue whose picture becomes the sketcher's mask."""

import asyncio
import dataclasses
import io
import json
import threading

import gradio as gr
import pytest
from PIL import Image

from engine import Catalog, InvalidRequest, Library, ModelNotFound
from engine.catalog import Weights
from engine.image_inputs import MaskFrom
from engine.partners import DETECTOR, MASK_NETWORKS
from engine.partners import SAM as SAM_NETWORKS
from engine.plan import FindMask
from tests.ui.studios import POCKET, in_event_loop, open_jobs
from ui.helpers import helpers
from ui.image_input import Uploads
from ui.mask_from import (
    EXAMPLES,
    found_mask,
    in_words,
    is_used,
    mask_panel,
    missing,
    submit_mask,
    usual_model,
)
from ui.sketcher import write_sketch
from ui.updates import job_facts

ME = "me"


@pytest.fixture
def own(studio, tmp_path):
    return dataclasses.replace(studio, uploads=Uploads(tmp_path / "uploads"))


@pytest.fixture
def sketch(own) -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "blue").save(file, "PNG")
    return write_sketch(own.uploads.save(file.getvalue(), ME))


@pytest.fixture(scope="module")
def settings():
    def build():
        with gr.Blocks(analytics_enabled=False):
            return mask_panel()

    parts = in_event_loop(build).settings
    held = {name: part.value for name, part in parts.items()}
    return {**held, "model": MaskFrom.model_fields["model"].default}


def test_every_field_has_a_part_with_its_default(settings) -> None:
    assert settings == {
        name: field.default for name, field in MaskFrom.model_fields.items() if name != "image"
    }


def test_the_page_starts_from_a_model_that_runs_here(settings, monkeypatch) -> None:
    monkeypatch.setattr("ui.mask_from.ONNX_LIBRARY", "no_such_library")
    assert usual_model() == "sam"
    monkeypatch.setattr("ui.mask_from.ONNX_LIBRARY", "json")
    assert usual_model() == settings["model"]


def test_what_it_takes_is_said_before_it_is_asked_for(library, settings, monkeypatch) -> None:
    monkeypatch.setattr("ui.mask_from.ONNX_LIBRARY", "no_such_library")
    told = missing(library, settings)
    assert told == {
        "text": "isnet-general-use needs a library: pip install no_such_library",
        "wrong": True,
    }
    monkeypatch.setattr("ui.mask_from.ONNX_LIBRARY", "json")
    file = MASK_NETWORKS["isnet-general-use"].file
    assert missing(library, settings) == {"uses": ["mask isnet-general-use"]}
    bare = Library(catalog=Catalog([POCKET]))
    assert missing(bare, settings) == {"text": f"It takes {file} in models/inpaint", "wrong": True}
    by_words = {**settings, "model": "sam"}
    assert missing(library, by_words) == {"uses": ["mask words", "mask vit_b"]}
    assert missing(library, {**by_words, "boxes_only": True}) == {"uses": ["mask words"]}


def test_nothing_is_missed_of_what_is_there(library, settings, tmp_path) -> None:
    offers = (DETECTOR, SAM_NETWORKS["vit_b"])
    files = [Weights(name=it.file, path=tmp_path, kind=it.kind) for it in offers]
    there = Library(catalog=Catalog([POCKET], files))
    uses = missing(there, {**settings, "model": "sam"})["uses"]
    assert not set(uses) & set(helpers(there)[POCKET.name])
    assert set(uses) <= set(helpers(library)[POCKET.name])


def test_only_what_the_model_uses_is_read(own, sketch, settings) -> None:
    used = [name for name in settings if is_used(name, "u2net_cloth_seg")]
    assert used == ["model", "cloth"]
    asked = {**settings, "model": "sam", "prompt": EXAMPLES[0], "cloth": "upper"}
    job = own.jobs.job(submit_mask(own, sketch, asked, ME), owner=ME)
    assert isinstance(job.plan.start, FindMask)
    assert not job_facts(job)["paints"]  # so that it stays off the stage
    assert (job.plan.start.prompt, job.plan.start.cloth) == ("face", "full")


def test_the_mask_comes_into_the_sketcher(own, sketch, settings) -> None:
    asked = {**settings, "model": "sam", "prompt": "face"}

    async def find() -> str | None:
        return await found_mask(own, submit_mask(own, sketch, asked, ME), sketch, ME)

    held = json.loads(asyncio.run(find()))
    assert held["image"] == json.loads(sketch)["image"]
    assert own.uploads.find(held["mask"], ME).media_type == "image/png"
    assert own.jobs.history(owner=ME) == []  # it is no picture that somebody made


def test_a_search_that_was_stopped_gives_nothing(own, sketch, settings, tmp_path) -> None:
    asked = {**settings, "model": "sam", "prompt": "face"}
    still = open_jobs(tmp_path / "still", gate=threading.Semaphore(0))
    studio = dataclasses.replace(own, jobs=still)

    async def find() -> str | None:
        job = submit_mask(studio, sketch, asked, ME)
        still.cancel(job, owner=ME)
        return await found_mask(studio, job, sketch, ME)

    assert asyncio.run(find()) is None
    still.close()


def test_without_a_picture_words_or_library_there_is_a_sentence(
    own, sketch, settings, monkeypatch
) -> None:
    with pytest.raises(InvalidRequest, match=r"mask_from\.image: choose a picture first"):
        submit_mask(own, "", settings, ME)
    with pytest.raises(InvalidRequest, match=r"mask_from\.prompt: expected words") as caught:
        submit_mask(own, sketch, {**settings, "model": "sam"}, ME)
    assert in_words(caught.value) == "Look for: expected words for what to find, got none"
    with pytest.raises(InvalidRequest, match=r"mask_from\.image: expected a picture that is still"):
        submit_mask(own, sketch, settings, "somebody else")
    monkeypatch.setattr("ui.mask_from.ONNX_LIBRARY", "no_such_library")
    with pytest.raises(ModelNotFound, match=r"isnet-general-use: .*pip install onnxruntime"):
        submit_mask(own, sketch, settings, ME)
