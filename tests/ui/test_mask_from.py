"""Mask from the picture, as the page asks for it: a job on a real queue whose picture becomes the sketcher's mask."""

import asyncio
import dataclasses
import io
import json

import gradio as gr
import pytest
from PIL import Image

from engine import InvalidRequest, ModelNotFound
from engine.image_inputs import MaskFrom
from engine.plan import FindMask
from tests.ui.studios import in_event_loop
from ui.image_input import Uploads
from ui.mask_from import EXAMPLES, found_mask, is_used, mask_settings, submit_mask
from ui.sketcher import write_sketch

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
            return mask_settings()

    parts = in_event_loop(build)
    return {name: part.value for name, part in parts.items()}


def test_every_field_has_a_part_with_its_default(settings) -> None:
    assert settings == {
        name: field.default for name, field in MaskFrom.model_fields.items() if name != "image"
    }


def test_only_what_the_model_uses_is_read(own, sketch, settings) -> None:
    used = [name for name in settings if is_used(name, "u2net_cloth_seg")]
    assert used == ["model", "cloth"]
    asked = {**settings, "model": "sam", "prompt": EXAMPLES[0], "cloth": "upper"}
    job = own.jobs.job(submit_mask(own, sketch, asked, ME), owner=ME)
    assert isinstance(job.plan.start, FindMask)
    assert (job.plan.start.prompt, job.plan.start.cloth) == ("face", "full")


def test_the_mask_comes_into_the_sketcher(own, sketch, settings) -> None:
    asked = {**settings, "model": "sam", "prompt": "face"}

    async def find() -> str | None:
        return await found_mask(own, submit_mask(own, sketch, asked, ME), sketch, ME)

    held = json.loads(asyncio.run(find()))
    assert held["image"] == json.loads(sketch)["image"]
    assert own.uploads.find(held["mask"], ME).media_type == "image/png"


def test_without_a_picture_words_or_library_there_is_a_sentence(
    own, sketch, settings, monkeypatch
) -> None:
    with pytest.raises(InvalidRequest, match=r"mask_from\.image: choose a picture first"):
        submit_mask(own, "", settings, ME)
    with pytest.raises(InvalidRequest, match=r"mask_from\.prompt: expected words"):
        submit_mask(own, sketch, {**settings, "model": "sam"}, ME)
    monkeypatch.setattr("ui.mask_from.ONNX_LIBRARY", "no_such_library")
    with pytest.raises(ModelNotFound, match=r"isnet-general-use: .*pip install onnxruntime"):
        submit_mask(own, sketch, settings, ME)
