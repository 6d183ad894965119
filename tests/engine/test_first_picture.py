"""A base model has painted a tiny picture before it is said to be ready."""

from pathlib import Path

import pytest
import torch

from engine import ModelIncompatible
from engine.engine import create

pytestmark = pytest.mark.torch


def test_preloading_paints_once_with_every_network(models_dir: Path):
    engine = create(str(models_dir), device="cpu")
    name = engine._palette.catalog.default().name
    model, called = engine._palette.load(name), []
    networks = {
        "unet": model.loaded.unet.conv_in,
        "text": model.loaded.pipeline.text_encoder,
        "text 2": model.loaded.pipeline.text_encoder_2,
        "vae": model.vae.decoder,
    }
    for title, network in networks.items():
        network.register_forward_hook(lambda *_, title=title: called.append(title))
    engine.preload(name)
    assert set(called) == set(networks)
    assert called.count("unet") == 1
    assert engine.idle()


def test_a_model_that_paints_no_numbers_is_not_ready(models_dir: Path):
    engine = create(str(models_dir), device="cpu")
    name = engine._palette.catalog.default().name
    bias = engine._palette.load(name).loaded.unet.conv_in.bias
    with torch.no_grad():
        bias.fill_(float("nan"))
    with pytest.raises(
        ModelIncompatible, match=f"^{name}: its first picture has no numbers in it$"
    ):
        engine.preload(name)
