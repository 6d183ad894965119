"""Enhance, as the page asks for it: regions that look for something, read into a request and shown again from one."""

import io

import gradio as gr
import pytest
from PIL import Image

from engine import InvalidRequest, TextRequest
from engine.enhance_inputs import MAX_REGIONS, Enhance, Region
from tests.ui.studios import in_event_loop
from ui.image_input import Uploads
from ui.picture_values import PicturesPanel
from ui.pictures_panel import pictures_panel

ME = "me"


@pytest.fixture(scope="module")
def panel() -> PicturesPanel:
    def build():
        with gr.Blocks(analytics_enabled=False):
            return pictures_panel({}, can_bring=True)

    return in_event_loop(build)


@pytest.fixture
def uploads(tmp_path) -> Uploads:
    return Uploads(tmp_path)


@pytest.fixture
def held(panel):
    """What the parts hold, with *Enhance* in front; `held(**{...})` fills the first region."""

    def fill(**region):
        values = {part: part.value for part in panel.inputs}
        values[panel.choice] = {"tab": "enhance"}
        return values | {panel.enhance.regions[0][name]: it for name, it in region.items()}

    return fill


def read(panel, values, uploads):
    with panel.in_words(values):
        return panel.read(TextRequest(prompt="a star"), values, uploads, ME)


def test_a_region_that_looks_for_nothing_is_off(panel, held, uploads) -> None:
    values = held()
    values[panel.enhance.regions[2]["look_for"]] = "hand"
    asked, files = read(panel, values, uploads)
    assert asked.enhance == Enhance(regions=(Region(look_for="hand"),))
    assert files == {}
    assert len(panel.enhance.regions) <= MAX_REGIONS
    values[panel.choice] = {"tab": "words"}
    assert read(panel, values, uploads)[0].enhance is None


def test_every_setting_is_read_and_shown_again(panel, held, uploads) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "blue").save(file, "PNG")
    image = uploads.save(file.getvalue(), ME)
    values = held(look_for="face", prompt="a smile", strength="0.4", max_detections=2)
    whole = panel.enhance.whole
    values |= {whole["upscale_or_vary"]: "Upscale (2x)", whole["final_only"]: True}
    values[panel.enhance.picture] = image.name
    asked, files = read(panel, values, uploads)
    assert list(files) == [image.name]
    region = asked.enhance.regions[0]
    assert (region.prompt, region.strength, region.max_detections) == ("a smile", 0.4, 2)
    assert asked.enhance.final_only
    shown, lost = panel.show(asked.model_dump(mode="json"), uploads, ME)
    assert not lost
    again = {**held(), **{part: update["value"] for part, update in shown.items()}}
    assert again[panel.choice]["tab"] == "enhance"
    assert read(panel, again, uploads)[0].enhance == asked.enhance
    emptied, _ = panel.show({"enhance": {"regions": [{"look_for": "eye"}]}}, uploads, ME)
    assert emptied[panel.enhance.picture]["value"] == ""
    assert emptied[panel.enhance.regions[1]["look_for"]]["value"] == ""


def test_what_is_wrong_is_said_by_its_label(panel, held, uploads) -> None:
    with pytest.raises(InvalidRequest, match="Enhance: say what to look for, or how to upscale"):
        read(panel, held(), uploads)
    with pytest.raises(InvalidRequest, match="Region 1, strength: expected"):
        read(panel, held(look_for="face", strength="4"), uploads)
    values = held(look_for="face")
    values[panel.enhance.picture] = "f" * 64
    with pytest.raises(InvalidRequest, match="Enhance: expected a picture that is still here"):
        read(panel, values, uploads)
