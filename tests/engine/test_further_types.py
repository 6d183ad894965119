"""What controlnet-aux draws steers: a Union is told the kind of drawing, and what is missing is said."""

import hashlib
import importlib.util
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import Failed, Finished, ImageReady, Plan, TextRequest, plan
from engine.conditioning.preprocess.further import DETECTORS
from engine.engine import Engine, create
from engine.image_inputs import DRAWN, FURTHER
from engine.models.controlnets import UNION_MODES
from engine.partners import AUX_LIBRARY
from tests.libraries import library_of
from tests.tiny_model import write_tiny_model
from tests.toy_controls import question, toy_union

pytestmark = pytest.mark.torch

SIDE = 64
STAND_IN = """
class HEDdetector:
    @classmethod
    def from_pretrained(cls, folder):
        return cls()

    def to(self, device):
        return self

    def __call__(self, image, **options):
        return 255 - image
"""
"""A library of controlnet-aux's form, whose soft edges are the picture's negative."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder whose tiny model has a Union of its own."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "pocket")
    card = {"native_size": SIDE, "buckets": [[SIDE, SIDE]], "summary": "", "examples": []}
    card["partners"] = dict.fromkeys(FURTHER, "union")
    (folder / "pocket" / "pochade.json").write_text(json.dumps(card))
    toy_union(unet_of(folder)).save_pretrained(folder / "controlnet" / "union")
    return folder


def unet_of(folder: Path) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(folder / "pocket" / "unet", use_safetensors=True)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    made = create(str(folder), model="pocket", device="cpu", allow_pickle=True)
    torch.set_num_threads(1)
    return made


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One picture, by the name that requests have for it."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    path = tmp_path_factory.mktemp("sent") / "picture"
    path.write_bytes(data.getvalue())
    return {hashlib.sha256(data.getvalue()).hexdigest(): path}


def job(engine: Engine, sent: Mapping[str, Path], *kinds: str, skip: bool = True) -> Plan:
    (image,) = sent
    slots = [{"type": kind, "image": image, "weight": 2, "stop_at": 1} for kind in kinds]
    advanced = {"num_inference_steps": 2, "previews": False, "skip_preprocessors": skip}
    fields = {"aspect_ratio": "64x64", "num_images": 1, "styles": (), "prompt": "a star"}
    asked = TextRequest.parse({**fields, "image_prompts": slots, "advanced": advanced})
    return plan(asked, library_of(engine._palette.catalog), seed=7)


def run(engine: Engine, planned: Plan, sent: Mapping[str, Path]) -> list[Any]:
    engine.admit("a", planned, sent)
    events = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
    return events


def painted(engine: Engine, planned: Plan, sent: Mapping[str, Path]) -> Any:
    events = run(engine, planned, sent)
    assert isinstance(events[-1], Finished), events[-1]
    (data,) = (event.data for event in events if isinstance(event, ImageReady))
    return np.asarray(Image.open(io.BytesIO(data)), dtype=np.int16)


def stand_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put `STAND_IN` in the place of the library."""
    path.write_text(STAND_IN)
    spec = importlib.util.spec_from_file_location(AUX_LIBRARY, path)
    assert spec is not None
    assert spec.loader is not None
    library = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(library)
    monkeypatch.setitem(sys.modules, AUX_LIBRARY, library)


def test_every_type_has_a_kind_and_every_further_one_a_detector() -> None:
    assert set(DRAWN.values()) <= set(UNION_MODES)
    assert set(FURTHER.values()) == set(DETECTORS)


def test_kinds_of_a_union_steer_otherwise(engine: Engine, sent: Mapping[str, Path]) -> None:
    plain = painted(engine, job(engine, sent), sent)
    made = {kind: painted(engine, job(engine, sent, kind), sent) for kind in FURTHER}
    modes = {kind: UNION_MODES[FURTHER[kind]] for kind in FURTHER}
    for kind, picture in made.items():
        assert np.abs(picture - plain).max() > 0
        for other, its_picture in made.items():
            is_same = bool((picture == its_picture).all())
            assert is_same == (modes[kind] == modes[other]), (kind, other)


@pytest.mark.parametrize("kind", FURTHER)
@torch.inference_mode()
def test_a_union_answers_as_diffusers_for_the_kind(
    kind: str, engine: Engine, sent: Mapping[str, Path], folder: Path
) -> None:
    from diffusers import ControlNetUnionModel

    planned = job(engine, sent, kind)
    engine._palette.bring(planned)
    guides, catalog = engine._palette.model.guides, engine._palette.catalog
    (control,) = guides.follow(catalog, planned, sent).controls
    unet = unet_of(folder)
    asked = question(unet, 1)
    ours = control.net.residuals(control.embedding, **asked, modes=[control.mode])
    union = ControlNetUnionModel.from_pretrained(folder / "controlnet" / "union").eval()
    mode = UNION_MODES[FURTHER[kind]]
    down, middle = union(
        asked["x"],
        asked["timesteps"],
        asked["context"],
        [control.hint],
        control_type=torch.eye(8)[mode][None],
        control_type_idx=[mode],
        added_cond_kwargs=asked["added"],
        return_dict=False,
    )
    for mine, wanted in zip(ours, [*down, middle], strict=True):
        assert wanted.std() > 1e-3
        assert (mine - wanted).abs().max() <= 1e-4 * wanted.std()


@pytest.mark.skipif(
    importlib.util.find_spec(AUX_LIBRARY) is not None, reason="controlnet-aux is there"
)
def test_without_the_library_a_job_says_how_to_get_it(
    engine: Engine, sent: Mapping[str, Path]
) -> None:
    failed = run(engine, job(engine, sent, "Pose", skip=False), sent)[-1]
    assert isinstance(failed, Failed)
    assert failed.message.startswith("image_prompts: expected the library controlnet-aux")
    assert "pip install controlnet-aux" in failed.message


def test_what_the_library_draws_is_what_the_net_sees(
    engine: Engine,
    sent: Mapping[str, Path],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(tmp_path / "controlnet_aux.py", monkeypatch)
    planned = job(engine, sent, "SoftEdge", skip=False)
    missing = run(engine, planned, sent)[-1]
    assert isinstance(missing, Failed)
    assert missing.message.startswith("soft_edge: expected ControlNetHED.pth")
    (folder / "annotators").mkdir()
    (folder / "annotators" / "ControlNetHED.pth").touch()
    engine._palette.bring(planned)
    guides, catalog = engine._palette.model.guides, engine._palette.catalog
    hints = [
        guides.follow(catalog, it, sent).controls[0].hint
        for it in (planned, job(engine, sent, "SoftEdge"))
    ]
    torch.testing.assert_close(hints[0], 1 - hints[1])
