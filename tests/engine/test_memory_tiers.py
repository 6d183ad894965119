"""At each tier the pocket model paints the picture that it paints when everything stays, and its weights can be patched."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from engine import Finished, ImageReady, Plan, TextRequest, plan
from engine.engine import Engine, create
from engine.models.memory import Tier
from pocket.train_style import FILE as DOTS
from tests.libraries import library_of

pytestmark = pytest.mark.torch

MODELS = str(Path(__file__).parent.parent.parent / "models")
PICTURE, MASK = "1" * 64, "2" * 64
TIERS = [Tier.TEXT_OFF, Tier.FP8, Tier.STREAMED]
CLOSE = 6.0
"""Largest mean difference of pixel levels, of 255, that weights in 8 bits may make."""


def new_engine(memory: str) -> Engine:
    engine = create(MODELS, device="cpu", memory=memory)
    torch.set_num_threads(1)
    return engine


@pytest.fixture(scope="module")
def resident() -> Engine:
    return new_engine("resident")


@pytest.fixture(scope="module", params=TIERS, ids=str)
def engine(request: pytest.FixtureRequest) -> Engine:
    return new_engine(request.param)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are sent along: a picture, and a mask of its middle."""
    folder = tmp_path_factory.mktemp("sent")
    files = {name: folder / f"{name}.png" for name in (PICTURE, MASK)}
    half = np.zeros((128, 128, 3), np.uint8)
    half[:, 64:] = (200, 30, 30)
    Image.fromarray(half).save(files[PICTURE])
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    Image.fromarray(mask).save(files[MASK])
    return files


def job(engine: Engine, *, dots: float = 0.0, **fields: Any) -> Plan:
    asked = {
        "prompt": "a large red star on a blue background",
        "styles": (),
        "num_images": 1,
        "loras": [{"path": DOTS, "scale": dots}] if dots else [],
        "advanced": {"base_model": "pocket", "num_inference_steps": 12},
        **fields,
    }
    return plan(TextRequest.parse(asked), library_of(engine._palette.catalog), seed=7)


def paint(engine: Engine, asked: Plan, pictures: dict[str, Path] | None = None) -> np.ndarray:
    events = []
    engine.admit("a", asked, pictures or {})
    while not engine.idle():
        events += [event for _, event in engine.step()]
    assert isinstance(events[-1], Finished), events[-1]
    data = next(event.data for event in events if isinstance(event, ImageReady))
    return np.asarray(Image.open(io.BytesIO(data)), dtype=np.int16)


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    loaded = engine._palette.model.loaded
    networks: dict[str, nn.Module] = {"unet": loaded.unet, **loaded.text_encoders}
    return {
        f"{part}.{name}": weight.detach().clone()
        for part, network in networks.items()
        for name, weight in network.named_parameters()
    }


def require_like(engine: Engine, picture: np.ndarray, wanted: np.ndarray) -> None:
    """The same to the last bit, or nearly where weights are stored in 8 bits."""
    difference = np.abs(picture - wanted)
    if engine._palette.tier is Tier.FP8:
        assert 0 < difference.mean() < CLOSE
    else:
        assert difference.max() == 0


def test_each_tier_paints_the_same_picture(resident, engine):
    require_like(engine, paint(engine, job(engine)), paint(resident, job(resident)))


def test_patches_come_and_go_at_each_tier(resident, engine):
    plain, dotted = job(engine), job(engine, dots=1.0)
    before = paint(engine, plain)
    pristine = weights(engine)
    with_dots = paint(engine, dotted)
    require_like(engine, with_dots, paint(resident, job(resident, dots=1.0)))
    assert np.abs(with_dots - before).mean() > 2 * CLOSE
    assert np.array_equal(paint(engine, plain), before)
    for name, weight in weights(engine).items():
        assert weight.dtype == pristine[name].dtype
        assert torch.equal(weight.float(), pristine[name].float()), name


def test_the_device_says_its_tier(resident, engine):
    assert resident.device == "cpu, 1 thread"
    assert engine.device == f"cpu, 1 thread: {engine._palette.tier.words}"


def test_in_8_bits_the_unet_takes_a_quarter_of_its_memory():
    sizes = {}
    for tier in (Tier.RESIDENT, Tier.FP8):
        loaded = new_engine(tier)._palette.load("pocket").loaded
        sizes[tier] = sum(weight.nbytes for weight in loaded.unet.parameters())
        assert loaded.unet.dtype == torch.float32
    assert sizes[Tier.FP8] < 0.27 * sizes[Tier.RESIDENT]


@pytest.mark.parametrize("tier", ["auto", *TIERS], ids=str)
def test_a_tiny_picture_is_painted_before_a_model_is_ready(tier):
    engine = new_engine(tier)
    engine.preload("pocket")
    assert engine._palette.tier == ("resident" if tier == "auto" else tier)


def test_repainting_goes_at_each_tier(resident, engine, sent):
    """The head widens the first layer, the patch changes all, and the end is painted by a copy without the patch."""
    fields = {"inpaint": {"image": PICTURE, "mask": MASK}}
    made, wanted = (paint(it, job(it, **fields), sent) for it in (engine, resident))
    require_like(engine, made, wanted)


def test_a_drawing_steers_at_each_tier(resident, engine, sent):
    slots = [{"image": PICTURE, "type": "PyraCanny", "weight": 1, "stop_at": 1}]
    made, wanted = (paint(it, job(it, image_prompts=slots), sent) for it in (engine, resident))
    require_like(engine, made, wanted)
