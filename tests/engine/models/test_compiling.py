"""Blocks are compiled on a thread of their own, never on the one that paints, and change no picture by more than rounding."""

import gc
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.conditioning.branch import Branch
from engine.conditioning.image_attention import ImagePrompt, ImageTokens, image_layers
from engine.conditioning.size_ids import SizeIds
from engine.conditioning.text_keys import TextKeys
from engine.loop import Denoiser, Row, predict
from engine.models.apart import copy_apart
from engine.models.compiling import CompiledBlocks, keep_compiled
from engine.models.levers import Levers, pull
from engine.sampling.prediction import model_sampling

pytestmark = pytest.mark.torch

SOON = 120.0
"""Seconds after which a test gives up on the compiler."""


class Backend:
    """A compiler that changes nothing, and remembers who called it and who ran what it gave."""

    def __init__(self) -> None:
        self.is_free = threading.Event()
        """Whether it works; it waits meanwhile."""
        self.is_free.set()
        self.compiled_by: list[str] = []
        self.run_by: list[str] = []

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        assert self.is_free.wait(SOON)
        self.compiled_by.append(threading.current_thread().name)

        def run(*args: Any) -> Any:
            self.run_by.append(threading.current_thread().name)
            return graph(*args)

        return run


@pytest.fixture
def unet(models_dir: Path) -> Any:
    return load(models_dir)


def load(models_dir: Path) -> Any:
    from diffusers import UNet2DConditionModel

    torch.set_num_threads(1)
    torch.compiler.reset()
    folder = models_dir / "checkpoints" / "tiny" / "unet"
    unet = UNet2DConditionModel.from_pretrained(folder, use_safetensors=True).eval()
    unet.requires_grad_(requires_grad=False)
    pull(Levers(), unet)
    return unet


def rows(unet: Any, count: int, side: int = 16, *, images: bool = False) -> list[Row]:
    generator = torch.Generator().manual_seed(count)
    config, ids = unet.config, SizeIds((64.0,) * 6, (64.0,) * 6, 0.0)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    keys = tuple(draw(1, 4, width) for width in image_layers(unet).values())
    tokens = ImageTokens(keys, keys)
    followed = ((ImagePrompt(positive=tokens, negative=tokens, weight=0.7), False),)
    return [
        Row(
            draw(1, 4, side, side),
            500.0,
            Branch(draw(1, 7, config.cross_attention_dim), draw(1, pooled), ids),
            images=followed if images else (),
        )
        for _ in range(count)
    ]


@torch.inference_mode()
def answer(unet: Any, asked: list[Row]) -> Tensor:
    return predict(Denoiser(unet, model_sampling("karras"), TextKeys(unet)), asked)


def test_new_shapes_run_as_they_are_and_the_thread_that_paints_never_compiles(unet):
    backend, me = Backend(), threading.current_thread().name
    asks = [rows(unet, 2), rows(unet, 3), rows(unet, 2, images=True)]
    expected = [answer(unet, asked) for asked in asks]
    blocks = CompiledBlocks(unet, backend=backend)
    for asked, wanted in zip(asks, expected, strict=True):
        backend.run_by.clear()
        backend.is_free.clear()
        assert torch.equal(answer(unet, asked), wanted)
        assert me not in backend.run_by
        backend.is_free.set()
        assert blocks.settle(SOON)
    graphs = len(backend.compiled_by)
    assert set(backend.compiled_by) == {"compiler"}
    assert graphs < len(asks) * len(image_layers(unet))  # blocks of one width share code
    for asked, wanted in zip(asks, expected, strict=True):
        backend.run_by.clear()
        torch.testing.assert_close(answer(unet, asked), wanted, rtol=0, atol=1e-5)
        assert backend.run_by == [me] * len(image_layers(unet))
    assert len(backend.compiled_by) == graphs


def test_other_weights_compile_nothing_and_count(unet):
    asked, backend = rows(unet, 2), Backend()
    blocks = CompiledBlocks(unet, backend=backend)
    before = answer(unet, asked)
    assert blocks.settle(SOON)
    graphs = len(backend.compiled_by)
    plain = copy_apart(unet, {name for name, _ in unet.named_parameters()})
    with torch.inference_mode():
        for network in (unet, plain):
            for name, weight in network.named_parameters():
                if "attn1.to_k" in name or "attn2.to_v" in name or "ff.net" in name:
                    weight.mul_(1.5)
    torch.testing.assert_close(answer(unet, asked), answer(plain, asked), rtol=0, atol=1e-5)
    assert not torch.allclose(answer(plain, asked), before, atol=1e-3)
    assert len(backend.compiled_by) == graphs


def test_what_cannot_be_compiled_runs_as_it_is(unet, caplog):
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    asked = rows(unet, 2)
    expected = answer(unet, asked)
    blocks = CompiledBlocks(unet, backend=broken)
    for _ in range(2):
        assert torch.equal(answer(unet, asked), expected)
        assert blocks.settle(SOON)
    assert "stay as they are" in caplog.text


def test_a_copy_of_a_compiled_network_is_not_compiled(unet):
    asked, backend = rows(unet, 2), Backend()
    expected = answer(unet, asked)
    CompiledBlocks(unet, backend=backend)
    copied = copy_apart(unet, {"conv_in.weight"})
    torch.testing.assert_close(answer(copied, asked), expected, rtol=0, atol=1e-5)
    assert backend.compiled_by == []


def test_a_network_that_is_let_go_leaves_memory_and_its_thread_ends(models_dir):
    unet = load(models_dir)
    blocks = CompiledBlocks(unet, backend=Backend())
    answer(unet, rows(unet, 2))
    assert blocks.settle(SOON)
    thread, gone = blocks._thread, weakref.ref(unet.down_blocks[1])
    assert thread is not None
    del unet, blocks
    gc.collect()
    assert gone() is None
    thread.join(SOON)
    assert not thread.is_alive()


def test_compiled_code_is_kept_where_the_owner_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    keep_compiled(tmp_path)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"
