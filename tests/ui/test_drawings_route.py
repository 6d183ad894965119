"""What a ControlNet is shown of a picture: drawn for its visitor alone, and refused with the reason."""

import importlib.util
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from starlette.applications import Starlette
from starlette.testclient import TestClient

import ui
from engine import Catalog
from engine.image_inputs import DRAWN, FURTHER
from engine.partners import AUX_LIBRARY
from tests.ui.studios import OWNER_HEADER
from ui.image_input import Uploads


@pytest.fixture
def visitor(studio, tmp_path):
    studio.uploads = Uploads(tmp_path / "uploads")
    with TestClient(Starlette(routes=ui.routes(studio))) as client:
        yield client


@pytest.fixture
def name(visitor) -> str:
    picture = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(picture).rectangle((30, 20, 60, 50), fill="black")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return visitor.post("/studio/inputs", content=file.getvalue()).json()["name"]


@pytest.mark.parametrize("kind", ["PyraCanny", "CPDS"])
def test_a_drawing_has_the_pictures_shape(visitor, name, kind):
    answer = visitor.get(f"/studio/inputs/{name}/drawing?type={kind}")
    assert answer.headers["content-type"] == "image/png"
    drawing = Image.open(io.BytesIO(answer.content)).convert("L")
    assert drawing.size == (96, 64)
    assert np.asarray(drawing).max() > 128


def test_thresholds_decide_what_is_an_edge(visitor, name):
    def edges(low, high):
        query = f"type=PyraCanny&low={low}&high={high}"
        answer = visitor.get(f"/studio/inputs/{name}/drawing?{query}")
        return int(np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"), int).sum())

    assert edges(1, 2) >= edges(255, 255)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "type: expected one of PyraCanny, CPDS"),
        ("type=FaceSwap", f"type: expected one of {', '.join(DRAWN)}, got 'FaceSwap'"),
        ("type=PyraCanny&low=0", "low: expected 1 to 255, got '0'"),
        ("type=PyraCanny&high=x", "high: expected 1 to 255, got 'x'"),
        ("type=PyraCanny&high=256", "high: expected 1 to 255, got '256'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(visitor, name, query, said):
    answer = visitor.get(f"/studio/inputs/{name}/drawing?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(said)


needs_no_library = pytest.mark.skipif(
    importlib.util.find_spec(AUX_LIBRARY) is not None, reason="controlnet-aux is there"
)


@needs_no_library
@pytest.mark.parametrize("kind", FURTHER)
def test_what_a_library_draws_says_how_to_get_it(visitor, name, kind):
    answer = visitor.get(f"/studio/inputs/{name}/drawing?type={kind}")
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("type: expected the library controlnet-aux")
    assert "pip install controlnet-aux" in answer.json()["detail"]


@pytest.mark.torch
def test_what_the_process_that_draws_has_to_say_arrives(
    visitor, name, studio, tmp_path, monkeypatch
):
    (tmp_path / "controlnet_aux.py").touch()  # looks installed; its weights are missed first
    monkeypatch.syspath_prepend(tmp_path)
    studio.library = replace(studio.library, catalog=Catalog([], models_dir=tmp_path))
    answer = visitor.get(f"/studio/inputs/{name}/drawing?type=SoftEdge")
    assert answer.status_code == 503
    place = tmp_path / "annotators"
    assert answer.json()["detail"].startswith(f"soft_edge: expected ControlNetHED.pth in {place},")


def test_a_strangers_picture_is_not_drawn(visitor, name):
    address = f"/studio/inputs/{name}/drawing?type=CPDS"
    assert visitor.get(address, headers={OWNER_HEADER: "stranger"}).status_code == 422
    assert visitor.get(f"/studio/inputs/{'0' * 64}/drawing?type=CPDS").status_code == 422
