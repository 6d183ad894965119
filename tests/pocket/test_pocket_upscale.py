"""Lessons and loss of the adapter for enlarged pictures, at small sizes."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from engine.geometry import Size  # noqa: E402
from engine.models.upscalers import load_upscaler  # noqa: E402
from pocket.lora import Lora  # noqa: E402
from pocket.parts import TEXT_WIDTHS, library, make_unet  # noqa: E402
from pocket.train_upscale import ADAPTER, Student, low_timesteps, make_lessons  # noqa: E402
from pocket.train_upscaler import FILE, MODEL  # noqa: E402


def test_lessons_are_pairs_of_one_size_that_show_the_same():
    torch.set_num_threads(1)
    vae = library.AutoencoderKL.from_pretrained(MODEL / "vae").float()
    upscaler = load_upscaler(MODEL / FILE, torch.device("cpu"))
    lessons = make_lessons(vae, upscaler, Size(64, 96), 16, seed=1)
    assert lessons.clean.shape == lessons.started.shape == (16, 4, 12, 8)
    assert len(lessons.texts) == 16
    clean, started = lessons.clean.float(), lessons.started.float()
    apart = (clean - started).square().mean()
    assert 0 < apart < 0.3 * (clean - clean.roll(1, 0)).square().mean()


def test_most_timesteps_are_those_that_upscale_visits():
    steps = low_timesteps(np.random.default_rng(0), 1000)
    assert steps.min() >= 0
    assert steps.max() < 500
    assert 0.85 < (steps < 230).float().mean() < 0.95


def test_the_loss_reaches_the_adapters_alone():
    torch.manual_seed(0)
    unet = make_unet().requires_grad_(requires_grad=False)
    student = Student(Lora(unet, ADAPTER), unet)
    for name, parameter in unet.named_parameters():
        if name.endswith(("to_out.0.weight", "proj_out.weight", "conv2.weight")):
            torch.nn.init.normal_(parameter, std=0.1)
    told = (torch.randn(2, 77, sum(TEXT_WIDTHS)), torch.randn(2, TEXT_WIDTHS[1]))
    nothing = (torch.randn(1, 77, sum(TEXT_WIDTHS)), torch.randn(1, TEXT_WIDTHS[1]))
    pair = (torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8))
    dials = (torch.rand(4), torch.full((2,), 3.0))
    loss = student(pair, torch.tensor([5, 80, 160, 300]), told, nothing, dials)
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert all(parameter.grad is None for parameter in unet.parameters())
    learnt = [parameter.grad.abs().sum() for parameter in student.lora.parameters()]
    assert sum(bool(it > 0) for it in learnt) >= len(learnt) // 3
