"""IC-Light through the engine: the picture and its background reach what is painted, and leave no trace afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import Failed, ImageReady, InvalidRequest, Library, TextRequest, plan, read_catalog
from engine.engine import create
from tests.engine.models.test_ic_light import written
from tests.tiny_model import write_tiny_model
from tests.tiny_sd15 import tiny_parts, write_tiny_sd15

pytestmark = pytest.mark.torch
DARK, BRIGHT, BEHIND = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_sd15(folder / "checkpoints" / "small")
    write_tiny_model(folder / "checkpoints" / "xl")
    (folder / "ic_light").mkdir()
    unet = tiny_parts()["unet"]
    for more, name in ((4, "fc"), (8, "fbc")):
        written(folder / "ic_light", unet, more).rename(folder / "ic_light" / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = {}
    for name, level in ((DARK, 20), (BRIGHT, 230), (BEHIND, 120)):
        paths[name] = folder / f"{name}.png"
        Image.new("RGB", (96, 64), (level, level // 2, 40)).save(paths[name])
    return paths


@pytest.fixture(scope="module")
def engine(models_dir):
    return create(str(models_dir), device="cpu")


def job(models_dir, base="small", **light):
    asked = {
        "prompt": "a star",
        "aspect_ratio": "64x64",
        "num_images": 1,
        "advanced": {"base_model": base, "save_metadata": False},
        "studio": {"num_inference_steps": 3, "ic_light": light or None},
    }
    library = Library(catalog=read_catalog(models_dir))
    return plan(TextRequest.parse(asked), library, seed=4)


def events(engine, planned, pictures):
    torch.set_num_threads(1)
    engine.admit("job", planned, pictures)
    told = []
    while not engine.idle():
        told += [event for _, event in engine.step()]
    return told


def painted(engine, planned, pictures) -> bytes:
    told = events(engine, planned, pictures)
    assert not [event for event in told if isinstance(event, Failed)]
    return next(event.data for event in told if isinstance(event, ImageReady))


def test_the_picture_and_the_background_decide(engine, models_dir, pictures):
    plain = painted(engine, job(models_dir), pictures)
    dark, bright = (
        painted(engine, job(models_dir, path="fc", image=name), pictures) for name in (DARK, BRIGHT)
    )
    behind = painted(engine, job(models_dir, path="fbc", image=DARK, background=BEHIND), pictures)
    assert len({plain, dark, bright, behind}) == 4
    assert painted(engine, job(models_dir), pictures) == plain


@pytest.mark.parametrize(
    ("light", "field"),
    [
        ({"path": "fbc", "image": DARK}, "studio.ic_light.background"),
        ({"path": "fc", "image": DARK, "background": BEHIND}, "studio.ic_light.background"),
        ({"path": "fc", "image": "d" * 64}, "studio.ic_light.image"),
    ],
)
def test_what_does_not_fit_is_said_on_its_field(engine, models_dir, pictures, light, field):
    told = events(engine, job(models_dir, **light), pictures)
    (failed,) = [event for event in told if isinstance(event, Failed)]
    assert failed.field == field


def test_only_models_of_sd15_are_lit(models_dir):
    with pytest.raises(
        InvalidRequest, match=r"studio\.ic_light\.path: expected a base model of SD"
    ):
        job(models_dir, base="xl", path="fc", image=DARK)


def test_the_weights_come_back(engine, models_dir, pictures):
    painted(engine, job(models_dir), pictures)
    unet = engine._palette.model.loaded.unet
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    painted(engine, job(models_dir, path="fc", image=DARK), pictures)
    changed = [name for name, weight in unet.named_parameters() if weight.ne(before[name]).any()]
    assert len(changed) == len(before)
    painted(engine, job(models_dir), pictures)
    assert all(torch.equal(weight, before[name]) for name, weight in unet.named_parameters())
    assert np.isfinite(next(iter(before.values())).numpy()).all()
