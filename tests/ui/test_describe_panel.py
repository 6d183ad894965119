"""Describe, as the page asks for it: a job on a real queue whose words become the prompt."""

import asyncio
import dataclasses
import io
from collections.abc import Sequence

import gradio as gr
import pytest
from PIL import Image

from engine import Catalog, Event, Finished, InvalidRequest, Library, ModelNotFound
from engine.catalog import Weights
from engine.partners import CAPTIONER, TAGGER, TAGS
from engine.plan import DescribePicture
from tests.ui.painting_engine import PaintingEngine
from tests.ui.studios import POCKET, in_event_loop, open_jobs
from ui.describe_panel import (
    KINDS,
    describe_panel,
    described,
    in_words,
    submit_description,
)
from ui.helpers import describe_uses, helpers
from ui.image_input import Uploads
from ui.updates import image_count, job_facts

ME = "me"


class Teller(PaintingEngine):
    """Ends its jobs with words."""

    def step(self) -> Sequence[tuple[str, Event]]:
        return [
            (job, Finished(text="a blue square") if isinstance(event, Finished) else event)
            for job, event in super().step()
        ]


@pytest.fixture
def own(studio, tmp_path):
    jobs = open_jobs(tmp_path / "told", engine=Teller)
    yield dataclasses.replace(studio, uploads=Uploads(tmp_path / "uploads"), jobs=jobs)
    jobs.close()


@pytest.fixture
def picture(own) -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "blue").save(file, "PNG")
    return own.uploads.save(file.getvalue(), ME).name


def test_its_parts_stand_on_the_page() -> None:
    def build():
        with gr.Blocks(analytics_enabled=False):
            return describe_panel()

    panel = in_event_loop(build)
    assert [choice for choice, _ in panel.kinds.choices] == list(KINDS)
    assert panel.kinds.value == []
    assert panel.styles.value is True


def test_the_words_come_with_the_end_of_the_job(own, picture) -> None:
    job = submit_description(own, picture, ["Photograph"], None, ME)
    view = own.jobs.job(job, owner=ME)
    start = view.plan.start
    assert isinstance(start, DescribePicture)
    assert (start.captioner, start.image) == (CAPTIONER.file, picture)
    assert not job_facts(view)["paints"]  # so that it stays off the stage
    assert image_count(view) == 0
    assert asyncio.run(described(own, job, ME)) == "a blue square"
    assert asyncio.run(described(own, job, ME)) == "a blue square"  # as it was written down


def test_what_it_takes_is_said_before_it_is_asked_for(library, tmp_path) -> None:
    uses = describe_uses(KINDS)
    assert set(uses) <= set(helpers(library)[POCKET.name])
    files = [Weights(name=it.file, path=tmp_path, kind=it.kind) for it in (CAPTIONER, TAGGER, TAGS)]
    there = Library(catalog=Catalog([POCKET], files))
    assert not set(uses) & set(helpers(there)[POCKET.name])
    assert describe_uses([]) == []


def test_without_a_picture_or_a_library_there_is_a_sentence(own, picture, monkeypatch) -> None:
    with pytest.raises(InvalidRequest, match=r"describe\.image: choose a picture first") as caught:
        submit_description(own, "", [], None, ME)
    assert in_words(caught.value) == "Picture: choose a picture first"
    with pytest.raises(InvalidRequest, match=r"describe\.image: expected a picture that is still"):
        submit_description(own, picture, [], None, "somebody else")
    monkeypatch.setattr("ui.describe_panel.ONNX_LIBRARY", "no_such_library")
    with pytest.raises(ModelNotFound, match=r"Art/Anime: .*pip install onnxruntime"):
        submit_description(own, picture, ["Art/Anime"], None, ME)
