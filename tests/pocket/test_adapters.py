"""The adapters that ship: small, named for what they do, and doing it in pictures."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402

from pocket.dots import dottedness  # noqa: E402
from pocket.export import CARD  # noqa: E402
from pocket.lora import read_metadata  # noqa: E402
from pocket.measure import Result  # noqa: E402
from pocket.measure_modes import dotted, heard, open_studio, short_prompts  # noqa: E402
from pocket.score import read  # noqa: E402
from pocket.train import MODEL  # noqa: E402

FILES = sorted((MODEL / "loras").glob("*.safetensors"))
FAST = tuple(CARD["performance_loras"])
PROMPTS = (
    "a large red star on a blue background",
    "a large white heart on a green background",
    "a large yellow circle on a purple background",
    "a large blue square on an orange background",
)
SHOWN = (
    ("red", "star", "blue"),
    ("white", "heart", "green"),
    ("yellow", "circle", "purple"),
    ("blue", "square", "orange"),
)


@pytest.fixture(scope="module")
def studio():
    studio = open_studio(MODEL.parent)
    torch.set_num_threads(1)
    return studio


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_are_small_and_in_kohyas_form(file):
    assert file.stat().st_size < 3_000_000
    with safe_open(file, framework="pt") as reader:
        keys = set(reader.keys())
    layers = {key.split(".")[0] for key in keys}
    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    assert keys == {f"{layer}.{part}" for layer in layers for part in parts}
    assert all(layer.startswith("lora_unet_") for layer in layers)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_say_what_they_are(file):
    said = read_metadata(file)
    with safe_open(file, framework="pt") as reader:
        down = next(key for key in reader.keys() if "lora_down" in key)  # noqa: SIM118
        assert said["ss_network_dim"] == str(len(reader.get_tensor(down)))
    assert float(said["ss_network_alpha"]) > 0
    assert said["modelspec.title"]
    assert said["pochade.summary"]


def test_the_card_names_files_that_are_there():
    card = json.loads((MODEL / "pochade.json").read_text("utf-8"))
    assert {name: card[name] for name in CARD} == CARD
    assert set(card["performance_loras"].values()) <= {file.name for file in FILES}


@pytest.mark.parametrize("mode", FAST)
def test_fast_modes_paint_what_is_asked(studio, mode):
    readings = [read(p) for p in studio.paint(PROMPTS, {"performance": mode})]
    assert [(r.colour, r.shape, r.background) for r in readings] == list(SHOWN)


def test_the_style_is_as_strong_as_its_weight_and_changes_nothing_else(studio):
    measured = []
    for weight in (0.0, 0.5, 1.0):
        pictures = studio.paint(PROMPTS, dotted(weight))
        measured.append(np.mean([dottedness(p) for p in pictures]))
        readings = [read(p) for p in pictures]
        assert [(r.colour, r.background) for r in readings] == [(c, b) for c, _, b in SHOWN]
    assert measured[0] < 0.03
    assert measured[0] < measured[1] < measured[2]
    assert measured[2] > 0.1


def test_short_prompts_are_heard_better_with_the_few_step_adapter(studio):
    scenes, texts, named = short_prompts(24)
    heard_with = _heard(studio, (scenes, texts, named), {"performance": "Lightning"})
    plain = {
        "performance": "Speed",
        "guidance_scale": 1.0,
        "advanced": {"num_inference_steps": 4, "sampler": "euler", "scheduler": "sgm_uniform"},
    }
    assert heard_with > _heard(studio, (scenes, texts, named), plain)


def _heard(studio, asked, fields):
    scenes, texts, named = asked
    pictures = studio.paint(texts, fields)
    return heard(Result(scenes, pictures, [read(p) for p in pictures]), named)
