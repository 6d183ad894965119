"""ControlNets in training: silent at first, awake to hints; captions that leave form to the hint."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from pocket.parts import make_unet  # noqa: E402
from pocket.train_control import Controlled, as_hint, control_caption, make_control  # noqa: E402
from pocket.world import SHAPES, Scene  # noqa: E402

SCENE = Scene("star", "red", "blue", "large", "left", "striped", "plain")


@pytest.fixture(scope="module")
def call():
    torch.manual_seed(0)
    told = {"text_embeds": torch.randn(2, 96), "time_ids": torch.full((2, 6), 128.0)}
    return (torch.randn(2, 4, 8, 8), torch.tensor([900, 100]), torch.randn(2, 77, 160)), told


@torch.no_grad()
def test_an_untrained_control_changes_nothing_and_then_follows_the_hint(call):
    told, added = call
    unet = make_unet()
    control = make_control(unet)
    both = Controlled(unet, control)
    hints = [as_hint(np.full((2, 64, 64), grey, np.uint8)) for grey in (0, 255)]
    plain = unet(*told, added_cond_kwargs=added).sample
    silent = both(*told, added_cond_kwargs=added, hint=hints[0]).sample
    assert torch.equal(plain, silent)
    torch.nn.init.normal_(control.controlnet_mid_block.weight, std=0.1)
    dark, light = (both(*told, added_cond_kwargs=added, hint=hint).sample for hint in hints)
    assert not torch.allclose(dark, light, atol=1e-4)


def test_captions_name_the_colours_and_seldom_the_right_shape():
    rng = np.random.default_rng(0)
    texts = [control_caption(rng, SCENE) for _ in range(400)]
    only = [text for text in texts if text and not any(shape in text for shape in SHAPES)]
    assert 150 < len(only) < 300
    assert sum("red" in text for text in only) > 0.9 * len(only)
    assert 0 < sum(not text for text in texts) < 60
    assert sum("star" in text for text in texts) < 200
