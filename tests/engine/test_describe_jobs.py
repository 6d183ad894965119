"""Putting a picture into words is an ordinary job: planned, queued, no picture, and words at its end."""

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
    InvalidRequest,
    ModelNotFound,
    TextRequest,
    plan,
    plan_from_json,
    plan_to_json,
    read_catalog,
)
from engine.describe_inputs import suggested_styles
from engine.needed import needed_weights
from engine.partners import CAPTIONER, ONNX_LIBRARY, TAGGER, TAGS, partner_offers
from engine.places import Places
from engine.plan import DescribePicture, Plan
from tests.libraries import library_of

ROOT = Path(__file__).parents[2]
IMAGE = "a" * 64
CPU = torch.device("cpu")

pytestmark = pytest.mark.torch


def asked(*kinds: str) -> TextRequest:
    described = {"image": IMAGE, "kinds": kinds}
    return TextRequest.parse({"describe": described, "advanced": {"base_model": "pocket"}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket model, a captioner and a tagger."""
    from tests.tiny_describers import write_captioner, write_tagger

    folder = tmp_path_factory.mktemp("models")
    (folder / "pocket").symlink_to(ROOT / "models" / "pocket")
    write_captioner(folder / "describers" / CAPTIONER.file)
    write_tagger(folder / "describers" / TAGGER.file, folder / "describers" / TAGS.file)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Any:
    from engine.engine import create

    made = create(str(folder), device="cpu")
    torch.set_num_threads(1)
    return made


def planned(folder: Path, *kinds: str) -> Plan:
    return plan(asked(*kinds), library_of(read_catalog(folder)), seed=3)


def run(engine: Any, job: Plan, picture: Path) -> Event:
    """Let an engine end a job, of which nothing else is told."""
    engine.admit("d", job, {IMAGE: picture})
    told: list[Event] = []
    while not engine.idle():
        told += [event for _, event in engine.step()]
    [end] = told
    return end


def saved(path: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (40, 24), colour).save(path)
    return path


def test_it_stands_alone_and_styles_go_with_it() -> None:
    for other in ("inpaint", "upscale_or_vary", "mask_from"):
        with pytest.raises(InvalidRequest, match=f"describe: expected nothing beside {other}"):
            TextRequest.parse({"describe": {"image": IMAGE}, other: {"image": IMAGE}})
    both = suggested_styles(("Photograph", "Art/Anime"))
    assert both == ("Fooocus V2", "Fooocus Enhance", "Fooocus Sharp", "Fooocus Masterpiece")
    assert suggested_styles(("Base model",)) == ()


def test_a_plan_names_what_can_be_fetched_and_nothing_else(folder: Path) -> None:
    offered = read_catalog(Places(models_dir=ROOT / "models"), offers=partner_offers())
    wanted = plan(asked("Photograph", "Art/Anime"), library_of(offered), seed=1)
    needed = [it.source for it in needed_weights(offered, wanted)]
    assert needed == [CAPTIONER.source, TAGGER.source, TAGS.source]
    own = planned(folder)
    assert own.start == DescribePicture(image=IMAGE, reader="pocket")
    assert own.count == 0
    assert not own.needs_base_model
    assert plan_from_json(plan_to_json(own)) == own
    bare = library_of(read_catalog(ROOT / "models"))
    with pytest.raises(ModelNotFound, match=r"describe\.kinds: no describer named 'blip"):
        plan(asked("Photograph"), bare, seed=1)


def test_a_base_model_without_words_of_its_own_says_so(tiny_catalog: Any) -> None:
    request = TextRequest.parse({"describe": {"image": IMAGE, "kinds": ["Base model"]}})
    with pytest.raises(ModelNotFound, match="has no words of its own for pictures"):
        plan(request, library_of(tiny_catalog), seed=1)


def test_the_pocket_model_says_what_it_sees(engine: Any, folder: Path, tmp_path: Path) -> None:
    from pocket.draw import draw
    from pocket.world import Scene

    scenes = [
        Scene(shape="star", colour="red", background="blue"),
        Scene(shape="heart", colour="white", background="orange", place="left", style="striped"),
    ]
    drawings = draw(scenes, np.random.default_rng(4), width=128, height=128)
    told = []
    for drawing in drawings:
        Image.fromarray(drawing).resize((512, 512)).save(tmp_path / "drawing.png")
        end = run(engine, planned(folder), tmp_path / "drawing.png")
        assert isinstance(end, Finished)
        told.append(end.text)
    assert "flat red star in the centre on a blue background" in told[0]
    assert "striped white heart on the left on an orange background" in told[1]


def test_a_captioner_writes_the_same_words_for_the_same_seed(
    engine: Any, folder: Path, tmp_path: Path
) -> None:
    picture = saved(tmp_path / "p.png", (200, 10, 10))
    state = torch.random.get_rng_state()
    job = planned(folder, "Photograph")
    first, second = run(engine, job, picture), run(engine, job, picture)
    assert isinstance(first, Finished)
    assert first.text
    assert not first.text.startswith("a picture of")
    assert isinstance(second, Finished)
    assert second.text == first.text
    assert (torch.random.get_rng_state() == state).all()


def test_a_tagger_lists_characters_first(engine: Any, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip(ONNX_LIBRARY)
    from engine.models.describers import load_tagger
    from engine.stages.describe import as_words, on_white

    places = folder / "describers"
    tagger = load_tagger(places / TAGGER.file, places / TAGS.file)
    seen = on_white(np.zeros((4, 8, 3), np.uint8), tagger.side)
    assert seen[0, :, 0, 0].tolist() == [255, 255, 0, 0, 0, 0, 255, 255]
    assert (
        as_words(tagger.run(np.full((1, 8, 8, 3), 0.5, np.float32))) == "blue sky, star \\(shape\\)"
    )
    end = run(engine, planned(folder, "Art/Anime"), saved(tmp_path / "p.png", (255, 255, 255)))
    assert isinstance(end, Finished)
    assert end.text == "red knight, blue sky, star \\(shape\\)"


def test_a_broken_folder_is_told_of(engine: Any, folder: Path, tmp_path: Path) -> None:
    from engine.errors import ModelIncompatible
    from engine.models.describers import load_captioner
    from tests.tiny_segmenters import write_sam

    with pytest.raises(ModelIncompatible, match="puts pictures into words|all weights of a BLIP"):
        load_captioner(write_sam(tmp_path / "sam"), CPU)
    with pytest.raises(ModelNotFound, match="expected a folder with config"):
        load_captioner(tmp_path / "none", CPU)
    bad = tmp_path / "p.png"
    bad.write_bytes(b"no picture")
    end = run(engine, planned(folder), bad)
    assert isinstance(end, Failed)
    assert end.field == "describe.image"
