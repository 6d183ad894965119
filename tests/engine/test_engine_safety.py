"""What the safety checker takes for unsafe comes out black and flagged; what happens where there is no checker."""

import io
import logging
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import (
    Catalog,
    Checkpoint,
    Failed,
    Finished,
    ImageReady,
    InvalidRequest,
    Progress,
    TextRequest,
    plan,
    plan_from_json,
    plan_to_json,
)
from engine.catalog import Offer, Source
from engine.engine import Engine
from engine.library import SAFETY_CHECKER, Shelves, read_weights
from engine.models.hashes import FileHashes
from engine.models.safety import load_safety_checker
from engine.net import Fetcher
from engine.places import Places, read_catalog
from engine.stages import safety
from engine.stages.metadata import read_plan
from tests.libraries import library_of
from tests.tiny_checker import ALL, NONE, old_names, tiny_checker, write_tiny_checker

pytestmark = pytest.mark.torch
FILE = Path("safety_checker") / "model.safetensors"
NOWHERE = "http://127.0.0.1:9/model.safetensors"
UNCHECKED = "pictures are not checked"


@pytest.fixture
def read(models_dir, tmp_path):
    """Reads a catalog with the tiny model, a pocket model, and safety checkers of the test's own folder."""
    tiny = models_dir / "checkpoints"

    def catalog(*offers) -> Catalog:
        places = Places(models_dir=tmp_path, more={"checkpoint": (tiny,)})
        found = read_catalog(places, "tiny", offers)
        found._checkpoints["pocket"] = Checkpoint(name="pocket", path=tiny / "tiny")
        return found

    return catalog


def engine_of(read_catalog, tmp_path, **more) -> Engine:
    torch.set_num_threads(1)
    hashes = FileHashes(tmp_path / ".hashes.json")
    return Engine(read_catalog, torch.device("cpu"), hashes, guard=Fetcher(), **more)


def ask(engine, *, checked=True, base="tiny", seed=7, **fields):
    advanced = {"base_model": base, "num_inference_steps": 2, **fields.pop("advanced", {})}
    request = {
        "prompt": "a star",
        "aspect_ratio": "128x64",
        "num_images": 1,
        "styles": (),
        "enable_safety_checker": checked,
        "advanced": advanced,
        **fields,
    }
    return plan(TextRequest.parse(request), library_of(engine._palette.catalog), seed=seed)


def paint(engine, job, *, skip_first=False):
    """All events of a job, and its pictures."""
    engine.admit("job", job, {})
    if skip_first:
        engine.skip("job")
    events = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
    ready = [event for event in events if isinstance(event, ImageReady)]
    return events, [Image.open(io.BytesIO(event.data)) for event in ready]


def is_black(picture):
    return not np.asarray(picture.convert("RGB")).any()


def test_a_request_asks_for_it_and_a_plan_says_so(read):
    library = library_of(read())

    def planned(**fields):
        return plan(TextRequest.parse({"styles": (), **fields}), library, seed=1)

    assert not planned().safety
    assert planned().previews
    checked = planned(enable_safety_checker=True)
    assert checked.safety
    assert not checked.previews
    assert plan_from_json(plan_to_json(checked)) == checked
    pocket = planned(enable_safety_checker=True, advanced={"base_model": "pocket"})
    assert pocket.safety
    assert pocket.previews


def test_a_plan_of_an_earlier_version_is_read_as_unchecked(read):
    checked = plan(TextRequest(styles=()), library_of(read()), seed=1)
    text = plan_to_json(checked)
    for part in (
        '"safety":false,',
        ',"enable_safety_checker":false',
        '"enable_safety_checker":false,',
    ):
        text = text.replace(part, "")
    assert "safety" not in text
    assert plan_from_json(text) == checked


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_what_is_flagged_is_black_at_the_same_size_and_keeps_its_record(
    read, tmp_path, output_format
):
    write_tiny_checker(tmp_path / FILE, ALL)
    engine = engine_of(read, tmp_path)
    job = ask(engine, num_images=2, output_format=output_format)
    events, pictures = paint(engine, job)
    assert isinstance(events[-1], Finished)
    assert events[-1].has_nsfw_concepts == (True, True)
    assert [event.has_nsfw_concept for event in events if isinstance(event, ImageReady)] == [
        True
    ] * 2
    assert all(event.preview is None for event in events if isinstance(event, Progress))
    for index, picture in enumerate(pictures):
        assert picture.size == (128, 64)
        assert is_black(picture)
        painted = read_plan(picture)
        assert painted.images == (job.images[index],)
        assert [name for name, _ in painted.hashes] == ["tiny"]


def test_what_is_not_flagged_is_left_as_it_is(read, tmp_path):
    write_tiny_checker(tmp_path / FILE, NONE)
    engine = engine_of(read, tmp_path)
    (end, (checked,)), (_, (plain,)) = (
        paint(engine, ask(engine, checked=checked)) for checked in (True, False)
    )
    assert end[-1].has_nsfw_concepts == (False,)
    assert not is_black(checked)
    assert np.array_equal(np.asarray(checked), np.asarray(plain))


def test_who_does_not_ask_is_not_checked_and_the_checker_is_not_read(read, tmp_path):
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_bytes(b"broken")
    engine = engine_of(read, tmp_path, require_safety=True)
    events, (picture,) = paint(engine, ask(engine, checked=False))
    assert events[-1].has_nsfw_concepts == (False,)
    assert not is_black(picture)
    end = paint(engine, ask(engine))[0][-1]
    assert isinstance(end, Failed)
    assert end.message.startswith("model.safetensors: expected a safetensors file, got")


def test_the_checker_is_read_once(read, tmp_path, monkeypatch):
    write_tiny_checker(tmp_path / FILE, NONE)
    loads = []

    def load(path, device, **more):
        loads.append(path)
        return load_safety_checker(path, device, **more)

    monkeypatch.setattr(safety, "load_safety_checker", load)
    engine = engine_of(read, tmp_path)
    assert loads == []
    paint(engine, ask(engine, num_images=2))
    paint(engine, ask(engine))
    assert loads == [tmp_path / FILE]


def test_flags_stand_in_the_order_of_the_pictures(read, tmp_path, monkeypatch):
    write_tiny_checker(tmp_path / FILE, NONE)
    answers = iter([True, False])
    monkeypatch.setattr(safety, "check", lambda checker, images: [next(answers)])
    engine = engine_of(read, tmp_path)
    events, pictures = paint(engine, ask(engine, num_images=3), skip_first=True)
    assert events[-1].has_nsfw_concepts == (True, False)
    assert [is_black(picture) for picture in pictures] == [True, False]


def test_without_a_checker_it_is_said_once_and_nothing_is_flagged(read, tmp_path, caplog):
    offer = Offer(file=FILE.name, kind="safety_checker", source=Source(url=NOWHERE))
    engine = engine_of(lambda: read(offer), tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            events, (picture,) = paint(engine, ask(engine, num_images=1))
            assert events[-1].has_nsfw_concepts == (False,)
            assert not is_black(picture)
    assert [item for item in caplog.messages if UNCHECKED in item] == [
        "pictures are not checked: there is no safety checker; put model.safetensors of "
        "CompVis/stable-diffusion-safety-checker into the folder safety_checker of the models folder"
    ]
    assert not (tmp_path / FILE.parent).exists()


@pytest.mark.parametrize("required", [True, False])
def test_the_pocket_model_needs_no_checker(read, tmp_path, caplog, required):
    offer = Offer(file=FILE.name, kind="safety_checker", source=Source(url=NOWHERE))
    engine = engine_of(lambda: read(offer), tmp_path, require_safety=required)
    with caplog.at_level(logging.WARNING):
        events, (picture,) = paint(engine, ask(engine, base="pocket"))
    assert events[-1].has_nsfw_concepts == (False,)
    assert not is_black(picture)
    assert UNCHECKED not in caplog.text


def test_a_checker_that_is_there_looks_at_the_pocket_models_pictures_too(read, tmp_path):
    write_tiny_checker(tmp_path / FILE, ALL)
    engine = engine_of(read, tmp_path)
    events, (picture,) = paint(engine, ask(engine, base="pocket"))
    assert events[-1].has_nsfw_concepts == (True,)
    assert is_black(picture)


def test_where_it_is_required_a_job_without_a_checker_is_refused(read, tmp_path):
    engine = engine_of(read, tmp_path, require_safety=True)
    with pytest.raises(InvalidRequest, match="put model.safetensors of CompVis") as caught:
        engine.admit("job", ask(engine), {})
    assert caught.value.field == "enable_safety_checker"
    assert engine.idle()


@pytest.fixture
def server(tmp_path):
    """Serves a folder, empty at first."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{made.server_address[1]}/model.safetensors"
        made.shutdown()


def test_where_it_is_required_it_is_fetched_and_a_job_fails_when_it_does_not_come(
    read, tmp_path, server
):
    folder, address = server
    offer = Offer(file=FILE.name, kind="safety_checker", source=Source(url=address))
    engine = engine_of(lambda: read(offer), tmp_path, require_safety=True)
    end = paint(engine, ask(engine))[0][-1]
    assert isinstance(end, Failed)
    assert end.message.startswith(f"model.safetensors: expected the file at {address}, got: 404")
    write_tiny_checker(folder / FILE.name, ALL)
    events, (picture,) = paint(engine, ask(engine))
    assert events[-1].has_nsfw_concepts == (True,)
    assert is_black(picture)
    assert (tmp_path / FILE).exists()


def test_a_pickled_checker_is_used_only_with_leave_or_by_its_hash(
    read, tmp_path, caplog, monkeypatch
):
    path = tmp_path / "safety_checker" / "stable-diffusion-safety-checker.bin"
    path.parent.mkdir()
    torch.save(old_names(tiny_checker(ALL)), path)
    engine = engine_of(read, tmp_path)
    assert paint(engine, ask(engine))[0][-1].has_nsfw_concepts == (False,)
    assert UNCHECKED in caplog.text
    allowed = engine_of(read, tmp_path, allow_pickle=True)
    assert paint(allowed, ask(allowed))[0][-1].has_nsfw_concepts == (True,)
    digest = FileHashes(tmp_path / ".more.json").get(path)
    for module in ("engine.models.safety", "engine.stages.safety"):
        monkeypatch.setattr(f"{module}.KNOWN_PICKLED", frozenset({digest}))
    assert paint(engine, ask(engine))[0][-1].has_nsfw_concepts == (True,)


def test_safetensors_come_before_pickled_files(read, tmp_path):
    write_tiny_checker(tmp_path / FILE, NONE)
    (tmp_path / "safety_checker" / "a.bin").write_bytes(b"")
    names = [item.name for item in read().safety_checkers]
    assert names == ["model.safetensors", "a.bin"]


def test_a_fooocus_folders_checker_is_found_and_the_hub_is_offered(tmp_path):
    folder = tmp_path / "fooocus" / "models" / "safety_checker"
    folder.mkdir(parents=True)
    (folder / "stable-diffusion-safety-checker.bin").write_bytes(b"")
    (tmp_path / "fooocus" / "presets").mkdir()
    shelves = Shelves(models_dir=tmp_path / "models", fooocus_dir=tmp_path / "fooocus")
    catalog = read_weights(shelves)
    (found,) = catalog.safety_checkers
    assert found.path == folder / "stable-diffusion-safety-checker.bin"
    assert catalog.safety_offer.source == SAFETY_CHECKER.source
    assert catalog.safety_offer.path == tmp_path / "models" / FILE


def test_a_checked_plan_differs_from_an_unchecked_one(read):
    one, other = (
        plan(TextRequest(styles=(), enable_safety_checker=on), library_of(read()), seed=1)
        for on in (True, False)
    )
    assert replace(one, safety=False, previews=True, request=other.request) == other
