"""An inpaint head is read from either form of file, and acts on the rows that have it and on no others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.hashes import sha256_of
from engine.models.inpaint_head import (
    WideInput,
    head_addition,
    load_inpaint_head,
    widen_input,
    with_additions,
)
from tests.golden_data import golden_folder
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch
CHANNELS = 32


@pytest.fixture(scope="module")
def toy() -> UNet2DConditionModel:
    torch.set_num_threads(1)
    return load_toy_unet(golden_folder())


def ask(unet: Any, x: Tensor) -> Tensor:
    rows = x.shape[0]
    generator = torch.Generator().manual_seed(3)
    context = torch.randn(1, 77, 64, generator=generator).expand(rows, -1, -1)
    pooled = torch.randn(1, 1280, generator=generator).expand(rows, -1)
    told = {"text_embeds": pooled, "time_ids": torch.ones(rows, 6)}
    with torch.inference_mode():
        return unet(x, 500, encoder_hidden_states=context, added_cond_kwargs=told).sample


def test_a_wide_input_changes_no_number_and_no_name(toy: UNet2DConditionModel) -> None:
    x, plain = torch.randn(2, 4, 8, 8), toy.conv_in
    before, names = ask(toy, x), [name for name, _ in toy.named_parameters()]
    widen_input(toy)
    widen_input(toy)
    assert isinstance(toy.conv_in, WideInput)
    assert toy.conv_in.weight is plain.weight
    assert [name for name, _ in toy.named_parameters()] == names
    assert torch.equal(ask(toy, x), before)


def test_additions_reach_their_own_rows_only(toy: UNet2DConditionModel) -> None:
    widen_input(toy)
    x, addition = torch.randn(3, 4, 8, 8), torch.randn(1, CHANNELS, 8, 8)
    alone = [ask(toy, row[None]) for row in x]
    together = ask(toy, with_additions(x, [None, addition, None]))
    torch.testing.assert_close(together[0:1], alone[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[2:3], alone[2], rtol=1e-4, atol=1e-5)
    assert (together[1:2] - alone[1]).abs().max() > 0.01
    assert torch.equal(ask(toy, x[:1]), alone[0])


def test_what_is_added_is_added_to_the_first_convolution(toy: UNet2DConditionModel) -> None:
    widen_input(toy)
    x, addition = torch.randn(2, 4, 8, 8), torch.randn(1, CHANNELS, 8, 8)
    answer = toy.conv_in(with_additions(x, [addition, None]))
    plain = toy.conv_in(x)
    assert torch.equal(answer[:1], plain[:1] + addition)
    assert torch.equal(answer[1:], plain[1:])


def test_without_additions_a_call_stays_as_it_is() -> None:
    x = torch.randn(2, 4, 8, 8)
    assert with_additions(x, [None, None]) is x


def test_half_precision_rows_take_additions() -> None:
    x, addition = torch.randn(2, 4, 8, 8).half(), torch.randn(1, CHANNELS, 8, 8)
    wide = with_additions(x, [addition, None])
    assert wide.dtype == torch.float16
    assert wide.shape == (2, 4 + CHANNELS, 8, 8)


def test_borders_of_what_the_head_sees_are_drawn_out() -> None:
    head = torch.ones(CHANNELS, 5, 3, 3)
    added = head_addition(head, torch.ones(1, 1, 4, 6), torch.full((1, 4, 4, 6), 2.0))
    assert torch.equal(added, torch.full((1, CHANNELS, 4, 6), 81.0))


@pytest.mark.parametrize("name", ["head.pth", "bare.pth", "head.safetensors"])
def test_heads_are_read_from_every_form(name: str, tmp_path: Path) -> None:
    head, path = torch.randn(CHANNELS, 5, 3, 3).half(), tmp_path / name
    if name.endswith(".safetensors"):
        save_file({"head": head}, path)
    else:
        torch.save(head if name == "bare.pth" else {"head": head}, path)
    read = load_inpaint_head(path, CHANNELS, known_sha256=[sha256_of(path)])
    assert read.dtype == torch.float32
    assert torch.equal(read, head.float())


def test_unknown_pickled_heads_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    torch.save({"head": torch.zeros(CHANNELS, 5, 3, 3)}, path)
    with pytest.raises(ModelIncompatible, match=r"^head\.pth: expected a safetensors file"):
        load_inpaint_head(path, CHANNELS)
    assert load_inpaint_head(path, CHANNELS, allow_pickle=True).shape == (CHANNELS, 5, 3, 3)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"^none\.safetensors: expected a file of weights"):
        load_inpaint_head(tmp_path / "none.safetensors", CHANNELS)
    wide = tmp_path / "wide.safetensors"
    save_file({"head": torch.zeros(320, 5, 3, 3)}, wide)
    problem = (
        r"^wide\.safetensors: expected an inpaint head of shape \(32, 5, 3, 3\), "
        r"got \(320, 5, 3, 3\)$"
    )
    with pytest.raises(ModelIncompatible, match=problem):
        load_inpaint_head(wide, CHANNELS)
    two = tmp_path / "two.safetensors"
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, two)
    problem = r"^two\.safetensors: expected an inpaint head, one tensor, got 2 tensors$"
    with pytest.raises(ModelIncompatible, match=problem):
        load_inpaint_head(two, CHANNELS)
