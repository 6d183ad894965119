"""No lever changes a picture by more than rounding, and LoRAs come and go exactly whatever is pulled."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.conditioning.branch import Branch
from engine.conditioning.fused_attention import fuse_attention, is_fused
from engine.conditioning.size_ids import SizeIds
from engine.conditioning.text_keys import MOST, TextKeys
from engine.engine import create
from engine.loop import Denoiser, Row, predict
from engine.models.apart import copy_apart
from engine.models.levers import Kernel, Levers, attending, pull
from engine.models.patches import Patch, WeightPatcher
from engine.sampling.prediction import model_sampling

pytestmark = pytest.mark.torch

LAYER = "down_blocks.1.attentions.0.transformer_blocks.0"
TOKENS = 7


@pytest.fixture
def unet(models_dir: Path) -> Any:
    from diffusers import UNet2DConditionModel

    torch.set_num_threads(1)
    folder = models_dir / "checkpoints" / "tiny" / "unet"
    return UNet2DConditionModel.from_pretrained(folder, use_safetensors=True).eval()


def branches(unet: Any, count: int) -> list[Branch]:
    generator = torch.Generator().manual_seed(count)
    ids = SizeIds((64.0,) * 6, (64.0,) * 6, 0.0)
    width = unet.config.cross_attention_dim
    pooled = unet.config.projection_class_embeddings_input_dim
    pooled -= 6 * unet.config.addition_time_embed_dim
    return [
        Branch(
            torch.randn(1, TOKENS, width, generator=generator),
            torch.randn(1, pooled, generator=generator),
            ids,
        )
        for _ in range(count)
    ]


@torch.inference_mode()
def answer(denoiser: Denoiser, told: list[Branch]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = [torch.randn(1, 4, 16, 24, generator=generator) for _ in told]
    return predict(denoiser, [Row(x, 500.0, branch) for x, branch in zip(noise, told, strict=True)])


def lora(folder: Path, unet: Any) -> Path:
    """A LoRA on every projection of one layer, large enough to see."""
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for attention in ("attn1", "attn2"):
        for part in ("to_q", "to_k", "to_v"):
            module = f"{LAYER}.{attention}.{part}"
            out, inner = unet.get_submodule(module).weight.shape
            tensors[f"unet.{module}.lora_A.weight"] = torch.randn(2, inner, generator=generator)
            tensors[f"unet.{module}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
    path = folder / "everywhere.safetensors"
    save_file(tensors, path)
    return path


def with_lora(unet: Any, path: Path) -> WeightPatcher:
    patcher = WeightPatcher({"unet": unet})
    assert patcher.use([Patch(path, 0.5)]).changed == {"unet"}
    return patcher


def test_fused_weights_take_no_second_copy_and_keep_their_parameters(unet):
    before = dict(unet.named_parameters())
    values = {name: weight.clone() for name, weight in before.items()}
    fuse_attention(unet)
    after = dict(unet.named_parameters())
    assert all(after[name] is weight for name, weight in before.items())
    assert all(torch.equal(after[name], value) for name, value in values.items())
    attn = unet.get_submodule(f"{LAYER}.attn1")
    parts = [attn.to_q.weight, attn.to_k.weight, attn.to_v.weight]
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
    assert attn.fused.weight.data_ptr() == parts[0].data_ptr()
    assert set(unet.state_dict()) == set(before)


def test_fused_attention_answers_alike(unet):
    told = branches(unet, 3)
    plain = Denoiser(unet, model_sampling("karras"))
    expected = answer(plain, told)
    fuse_attention(unet)
    assert is_fused(unet)
    torch.testing.assert_close(answer(plain, told), expected, rtol=0, atol=1e-5)


def test_loras_reach_fused_weights_and_leave_them_exactly(unet, tmp_path):
    told, path = branches(unet, 2), lora(tmp_path, unet)
    denoiser = Denoiser(unet, model_sampling("karras"))
    plain, patcher = answer(denoiser, told), with_lora(unet, path)
    expected = answer(denoiser, told)
    assert (expected - plain).abs().max() > 1e-3
    patcher.use([])
    fuse_attention(unet)
    weights = {name: weight.clone() for name, weight in unet.named_parameters()}
    addresses = {name: weight.data_ptr() for name, weight in unet.named_parameters()}
    fused = answer(denoiser, told)
    patcher.use([Patch(path, 0.5)])
    torch.testing.assert_close(answer(denoiser, told), expected, rtol=0, atol=1e-5)
    patcher.use([])
    assert torch.equal(answer(denoiser, told), fused)
    assert all(torch.equal(weight, weights[name]) for name, weight in unet.named_parameters())
    assert addresses == {name: weight.data_ptr() for name, weight in unet.named_parameters()}


def test_a_copy_of_a_fused_network_is_not_fused_and_follows_nobody(unet, tmp_path):
    told, path = branches(unet, 2), lora(tmp_path, unet)
    fuse_attention(unet)
    expected = answer(Denoiser(unet, model_sampling("karras")), told)
    patcher = WeightPatcher({"unet": unet})
    copied = copy_apart(unet, patcher.changed_by(path))
    assert not is_fused(copied)
    patcher.use([Patch(path, 0.5)])
    again = answer(Denoiser(copied, model_sampling("karras")), told)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)
    assert is_fused(unet)


def test_a_fused_network_may_be_moved(unet):
    told = branches(unet, 2)
    fuse_attention(unet)
    denoiser = Denoiser(unet, model_sampling("karras"))
    expected = answer(denoiser, told)
    with torch.inference_mode():  # as while a VAE decodes
        unet.to(torch.float64)
    attn = unet.get_submodule(f"{LAYER}.attn1")
    assert attn.fused.weight.dtype == torch.float64
    unet.to(torch.float32)
    assert attn.fused.weight.data_ptr() == attn.to_q.weight.data_ptr()
    with torch.no_grad():
        attn.to_v.weight.zero_()
    assert not attn.fused.weight[-attn.to_v.out_features :].any()
    assert attn.fused.weight.any()
    assert not torch.equal(answer(denoiser, told), expected)


@pytest.mark.parametrize("is_also_fused", [False, True])
def test_remembered_texts_change_no_bit_whatever_rows_come_and_go(unet, is_also_fused):
    if is_also_fused:
        fuse_attention(unet)
    told = branches(unet, 4)
    texts = TextKeys(unet)
    plain = Denoiser(unet, model_sampling("karras"))
    remembering = Denoiser(unet, model_sampling("karras"), texts)
    for rows in (told[:2], told, told[1:3], told[:2], told[::-1], told[:2]):
        assert torch.equal(answer(remembering, rows), answer(plain, rows))
    assert texts.nbytes > 0


def test_a_text_is_projected_once(unet, monkeypatch):
    told = branches(unet, 2)
    denoiser = Denoiser(unet, model_sampling("karras"), TextKeys(unet))
    calls: list[Any] = []
    for name, module in unet.named_modules():
        if name.endswith("attn2.to_k"):
            module.register_forward_hook(lambda *_: calls.append(1))
    layers = len([name for name in unet.attn_processors if "attn2" in name])
    for _ in range(3):
        answer(denoiser, told)
    assert len(calls) == layers


def test_texts_are_forgotten_when_weights_change(unet, tmp_path):
    told, path = branches(unet, 2), lora(tmp_path, unet)
    texts = TextKeys(unet)
    denoiser = Denoiser(unet, model_sampling("karras"), texts)
    answer(denoiser, told)
    with_lora(unet, path)
    stale = answer(denoiser, told)
    texts.forget()
    assert texts.nbytes == 0
    expected = answer(Denoiser(unet, model_sampling("karras")), told)
    assert torch.equal(answer(denoiser, told), expected)
    assert not torch.equal(stale, expected)


def test_remembered_texts_keep_within_their_room(unet):
    told = branches(unet, 6)
    texts = TextKeys(unet)
    texts.of([told[0].context])
    one = texts.nbytes
    small = TextKeys(unet, room=3 * one)
    for branch in told:
        small.of([branch.context])
        assert small.nbytes <= 3 * one
    small.of([branch.context for branch in told])  # larger than the room: it alone
    assert small.nbytes == 6 * one
    for branch in told:
        texts.of([branch.context])
    assert texts.nbytes == MOST * one < len(told) * one


def test_every_lever_can_be_pulled_alone_and_none_is_needed(unet):
    assert {field.name for field in fields(Levers)} == {
        "channels_last",
        "fused_qkv",
        "cached_text",
        "attention",
        "compile",
    }
    told = branches(unet, 2)
    unet.to(memory_format=torch.channels_last)
    denoiser = Denoiser(unet, model_sampling("karras"))
    expected = answer(denoiser, told)
    pull(Levers(channels_last=False, fused_qkv=False), unet)
    assert unet.conv_in.weight.is_contiguous()
    assert not is_fused(unet)
    torch.testing.assert_close(answer(denoiser, told), expected, rtol=0, atol=1e-5)
    pull(Levers(), unet)
    assert is_fused(unet)
    torch.testing.assert_close(answer(denoiser, told), expected, rtol=0, atol=1e-5)


def test_the_usual_levers_of_a_processor_are_the_defaults():
    assert Levers.usual(torch.device("cpu")) == Levers()


def test_the_kernel_that_is_asked_for_goes_first_and_only_on_a_gpu():
    from torch.nn.attention import _cur_sdpa_kernel_backends

    def order() -> list[str]:
        kernels = _cur_sdpa_kernel_backends(with_priority=True)
        return [kernel.name.partition("_")[0].lower() for kernel in kernels]

    usual = order()
    for kernel in get_args(Kernel):
        with attending(kernel, torch.device("cpu")):
            assert order() == usual
        with attending(kernel, torch.device("cuda")):
            assert kernel == "auto" or order()[0] == kernel
            assert set(order()) >= {"cudnn", "flash", "efficient", "math"}
        assert order() == usual


def test_the_engine_pulls_the_levers_that_it_is_given(models_dir):
    off = Levers(fused_qkv=False, cached_text=False, channels_last=False)
    engine = create(str(models_dir), device="cpu", levers=off)
    plain = engine._palette.load("tiny")
    assert not is_fused(plain.loaded.unet)
    assert (plain.texts, plain.compiled, plain.denoiser("karras").texts) == (None, None, None)
    engine = create(str(models_dir), device="cpu", levers=Levers(compile=True, attention="flash"))
    fast = engine._palette.load("tiny")
    assert is_fused(fast.loaded.unet)
    assert fast.compiled is not None
    denoiser = fast.denoiser("karras")
    assert denoiser.texts is fast.texts is not None
    assert denoiser.attention == "flash"


def test_a_folder_for_compiled_code_pulls_that_lever(models_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    engine = create(str(models_dir), device="cpu", compile_dir=str(tmp_path))
    assert engine._palette.load("tiny").compiled is not None
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
