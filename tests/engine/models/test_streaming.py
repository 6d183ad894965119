"""Weights that a stream brings to a device can be patched: what it copies from is what patches write to.

There is no device here: a second place in the same memory stands for one, and what a stream does is done at once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks.group_offloading import (
    GroupOffloadingConfig,
    GroupOffloadingType,
    ModuleGroup,
    _apply_group_offloading,
)
from safetensors.torch import save_file

from engine.conditioning.image_attention import (
    ImagePrompt,
    ImageTokens,
    attend_images,
    attention_kwargs,
    image_layers,
)
from engine.models.apart import copy_apart
from engine.models.memory import Tier, house_unet
from engine.models.patches import Patch, WeightPatcher
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parent.parent.parent / "golden"
PATCHED = "mid_block.resnets.0.conv1.weight"


class AtOnce:
    """A stream that is never behind."""

    def synchronize(self) -> None:
        pass


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The toy UNet, group-offloaded by a stream to another place."""

    @contextmanager
    def pinned(group: ModuleGroup) -> Iterator[dict[Any, torch.Tensor]]:
        yield group.cpu_param_dict

    def transfer(
        group: ModuleGroup, tensor: torch.Tensor, source: torch.Tensor, _stream: Any
    ) -> None:
        tensor.data = source.clone()

    monkeypatch.setattr(ModuleGroup, "_pinned_memory_tensors", pinned)
    monkeypatch.setattr(ModuleGroup, "_transfer_tensor_to_device", transfer)
    monkeypatch.setattr(torch.cpu, "current_stream", lambda device=None: AtOnce())
    unet = load_toy_unet(GOLDEN).requires_grad_(requires_grad=False)
    config = GroupOffloadingConfig(
        onload_device=CPU,
        offload_device=CPU,
        offload_type=GroupOffloadingType.LEAF_LEVEL,
        non_blocking=False,
        record_stream=False,
        low_cpu_mem_usage=True,
        stream=AtOnce(),
    )
    _apply_group_offloading(unet, config)
    return unet


@pytest.fixture
def plain() -> Any:
    return load_toy_unet(GOLDEN).requires_grad_(requires_grad=False)


@pytest.fixture
def patch(tmp_path: Path, plain: Any) -> Patch:
    drawn = torch.Generator().manual_seed(1)
    shape = plain.get_parameter(PATCHED).shape
    change = {
        "q": torch.randint(0, 256, shape, generator=drawn, dtype=torch.uint8),
        "lo": torch.tensor(-0.5),
        "hi": torch.tensor(0.5),
    }
    path = tmp_path / "patch.safetensors"
    save_file({f"diffusion_model.{PATCHED}|{key}": it for key, it in change.items()}, path)
    return Patch(path, 1.0, unet_only=True)


@torch.inference_mode()
def answer(unet: Any, told_beside: Mapping[str, Any] | None = None) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(2)
    width = unet.config.cross_attention_dim
    pooled = unet.config.projection_class_embeddings_input_dim
    pooled -= 6 * unet.config.addition_time_embed_dim
    told = {
        "text_embeds": torch.randn(1, pooled, generator=drawn),
        "time_ids": torch.zeros(1, 6),
    }
    x = torch.randn(1, 4, 8, 8, generator=drawn)
    context = torch.randn(1, 77, width, generator=drawn)
    made: torch.Tensor = unet(
        x,
        torch.tensor([500.0]),
        context,
        cross_attention_kwargs=told_beside,
        added_cond_kwargs=told,
        return_dict=False,
    )[0]
    return made


def an_image(unet: Any) -> Mapping[str, Any] | None:
    """What a call is told that follows an image."""
    keys = tuple(torch.ones(1, 4, width) for width in image_layers(unet).values())
    tokens = ImageTokens(keys, keys)
    prompt = ImagePrompt(positive=tokens, negative=tokens, weight=0.5)
    return attention_kwargs([[(prompt, False)]])


def test_patches_reach_a_streamed_unet_and_leave_it(streamed, plain, patch):
    wanted = answer(plain)
    pristine = {name: weight.clone() for name, weight in plain.named_parameters()}
    patchers = [WeightPatcher({"unet": unet}) for unet in (streamed, plain)]
    for _ in range(
        2
    ):  # first while the order of the layers is learned, then with each brought ahead
        assert torch.equal(answer(streamed), wanted)
    for patcher in patchers:
        patcher.use([patch])
    changed = answer(plain)
    assert not torch.equal(changed, wanted)
    for _ in range(2):
        assert torch.equal(answer(streamed), changed)
    patchers[0].use([])
    assert torch.equal(answer(streamed), wanted)
    for name, weight in streamed.named_parameters():
        assert torch.equal(weight, pristine[name]), name


def test_the_other_memory_is_left_after_each_call(streamed):
    before = {name: weight.data_ptr() for name, weight in streamed.named_parameters()}
    for _ in range(2):
        answer(streamed)
        assert {name: weight.data_ptr() for name, weight in streamed.named_parameters()} == before


def test_no_layer_is_left_behind_by_a_call_that_follows_an_image(streamed, plain):
    """Layers are brought ahead in the order of the first call, so all calls need one order."""
    before = {name: weight.data_ptr() for name, weight in streamed.named_parameters()}
    answer(streamed)
    for unet in (streamed, plain):
        attend_images(unet)
    wanted = answer(plain, an_image(plain))
    assert torch.equal(answer(streamed, an_image(streamed)), wanted)
    assert not torch.equal(wanted, answer(plain))
    assert {name: weight.data_ptr() for name, weight in streamed.named_parameters()} == before


@pytest.mark.parametrize("tier", list(Tier), ids=str)
def test_a_copy_shares_all_weights_but_some(plain, patch, tier):
    wanted = answer(plain)
    unet = house_unet(plain, CPU, tier)
    own = answer(unet)
    copied = copy_apart(unet, {PATCHED}, tier)
    weights = dict(unet.named_parameters())
    apart = {name for name, weight in copied.named_parameters() if weight is not weights[name]}
    assert apart == {PATCHED}
    WeightPatcher({"unet": unet}).use([patch])
    assert not torch.equal(answer(unet), own)
    assert torch.equal(answer(copied), own)
    if tier is Tier.FP8:
        assert weights[PATCHED].dtype == torch.float8_e4m3fn
    else:
        assert torch.equal(own, wanted)
