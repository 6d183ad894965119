"""Pictures of the pocket model that are larger than a tile: no seams, room for others, and an end when one is asked for."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import engine.engine
from bench.tiles import LIMIT, Layout, gradients, laid_together, measure
from engine import Failed, Finished, ImageReady, Progress, Stopped
from engine.begin import tiles_of
from engine.geometry import Size
from engine.loop import step
from engine.work import Work
from pocket.measure import Settings, prompts
from pocket.measure_modes import Studio, open_studio

pytestmark = pytest.mark.torch

MODELS = Path(__file__).parent.parent / "models"
WIDE, SQUARE = Layout(Size(256, 128), 64), Layout(Size(256, 256), 64)
STEPS = {"num_inference_steps": 8}


@pytest.fixture(scope="module")
def studio() -> Studio:
    opened = open_studio(MODELS)
    torch.set_num_threads(1)
    return opened


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return prompts(Settings(count=4))[1]


@pytest.mark.parametrize(("layout", "count"), [(WIDE, 4), (SQUARE, 2)], ids=["wide", "square"])
def test_no_seam_is_seen(studio, texts, layout, count):
    assert measure(studio, layout, texts[:count], **STEPS).seam <= LIMIT


def test_a_seam_would_be_seen(studio, texts):
    assert laid_together(studio, texts, **STEPS).seam > 1.5 * LIMIT


def test_a_line_along_a_border_is_a_seam(studio, texts):
    tiles = tiles_of(WIDE.settle("", studio.library, seed=0))
    pictures = np.zeros((1, 128, 256, 3), np.uint8)
    pictures[:, :, ::2] = 10
    assert gradients(pictures, tiles).seam == pytest.approx(1)
    pictures[:, :, 64:] += 40
    assert gradients(pictures, tiles).seam > LIMIT


def job(studio, layout=WIDE, *, seed=3, previews=False):
    settled = layout.settle("a red star", studio.library, seed=seed, num_inference_steps=3)
    return replace(settled, previews=previews)


def run(engine, jobs):
    for name, item in jobs.items():
        engine.admit(name, item, {})
    told = {name: [] for name in jobs}
    while not engine.idle():
        for name, event in engine.step():
            told[name].append(event)
    return told


def picture_of(events):
    (ready,) = [event for event in events if isinstance(event, ImageReady)]
    return np.asarray(Image.open(io.BytesIO(ready.data))).astype(int)


def test_rows_of_tiles_count(studio):
    assert Work("a", job(studio)).rows_per_image == 6
    assert Work("b", job(studio, SQUARE)).rows_per_image == 18
    assert Work("c", replace(job(studio), studio=None)).rows_per_image == 2


def test_a_large_picture_runs_alone_and_a_wide_one_beside_others(studio):
    small = Layout(Size(128, 128), 128)
    jobs = {
        "wide": job(studio, previews=True),
        "small": job(studio, small, seed=4),
        "square": job(studio, SQUARE),
    }
    told = run(studio.engine, jobs)
    for name, item in jobs.items():
        assert isinstance(told[name][-1], Finished)
        alone = picture_of(run(studio.engine, {name: item})[name])
        assert np.abs(picture_of(told[name]) - alone).max() <= 2
    shown = [event for event in told["wide"] if isinstance(event, Progress) and event.preview]
    sizes = {Image.open(io.BytesIO(event.preview)).size for event in shown}
    assert {width / height for width, height in sizes} == {2.0}


def test_a_picture_in_tiles_is_cancelled_between_two_steps(studio):
    studio.engine.admit("one", job(studio), {})
    studio.engine.step()
    studio.engine.step()
    studio.engine.cancel("one")
    told = list(studio.engine.step())
    assert [type(event) for _, event in told][-1] is Stopped
    assert studio.engine.idle()


@pytest.mark.parametrize("limit", [4, 1])
def test_where_memory_runs_out_fewer_rows_are_asked_for_at_once(studio, monkeypatch, limit):
    asked = []

    def narrow(images, *, apart, max_rows):
        asked.append(max_rows)
        if max_rows > limit:
            raise torch.OutOfMemoryError("no room")
        return step(images, apart=apart, max_rows=max_rows)

    monkeypatch.setattr(engine.engine, "step", narrow)
    monkeypatch.setattr(studio.engine._room, "max_rows", studio.engine._room.max_rows)
    events = run(studio.engine, {"square": job(studio, SQUARE)})["square"]
    if limit == 1:
        assert asked == [8, 4, 2, 2]  # the last time with all else out of memory
        assert isinstance(events[-1], Failed)
    else:
        assert asked[:2] == [8, 4]
        assert isinstance(events[-1], Finished)
