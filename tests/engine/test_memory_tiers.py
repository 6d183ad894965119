"""At each tier the pocket model paints the picture that it paints when everything stays, and its weights can be patched."""

import io
from dataclasses import replace
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


def job(engine: Engine, *, dots: float = 0.0, **advanced: Any) -> Plan:
    asked = {
        "prompt": "a large red star on a blue background",
        "styles": (),
        "num_images": 1,
        "loras": [{"path": DOTS, "scale": dots}] if dots else [],
        "advanced": {"base_model": "pocket", "num_inference_steps": 12, **advanced},
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


def test_weights_of_a_streamed_unet_lie_in_memory_that_streams_copy_from(engine):
    """What a stream copies from is what the patcher writes to: the same memory before and after a picture."""
    if engine._palette.tier is not Tier.STREAMED:
        pytest.skip("of the streamed tier alone")
    paint(engine, job(engine))
    unet = engine._palette.model.loaded.unet
    assert unet.device == torch.device("cpu")
    groups = [
        module._diffusers_hook.get_hook("group_offloading").group
        for module in unet.modules()
        if hasattr(module, "_diffusers_hook")
    ]
    held = {id(weight) for group in groups for m in group.modules for weight in m.parameters()}
    held |= {id(weight) for group in groups for weight in group.parameters}
    assert held == {id(weight) for weight in unet.parameters()}


@pytest.mark.parametrize("tier", ["auto", *TIERS], ids=str)
def test_a_tiny_picture_is_painted_before_a_model_is_ready(tier):
    engine = new_engine(tier)
    engine.preload("pocket")
    assert engine._palette.tier == ("resident" if tier == "auto" else tier)


def test_previews_do_not_change_what_is_painted(engine):
    assert np.array_equal(
        paint(engine, replace(job(engine), previews=False)), paint(engine, job(engine))
    )
