"""Fooocus' inpaint patch is read from both forms of file, stands on LoRAs, and leaves no trace."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import ModelIncompatible
from engine.models.hashes import sha256_of
from engine.models.inpaint_head import widen_input
from engine.models.patches import Patch, WeightPatcher
from tests.golden_data import PUBLIC
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch
PICKLED = PUBLIC / "lora/toy.fooocus.patch"
SAFE = PUBLIC / "lora/toy_patch_as_safetensors.safetensors"
KEY = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture(scope="module")
def toy() -> nn.Module:
    unet = load_toy_unet(PUBLIC)
    widen_input(unet)
    return unet


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def patched(patcher: WeightPatcher, toy: nn.Module, *patches: Patch) -> dict[str, Tensor]:
    patcher.use(patches)
    return weights_of(toy)


def test_both_forms_of_file_are_the_same_patch(toy: nn.Module) -> None:
    patcher = WeightPatcher({"unet": toy}, known_sha256=[sha256_of(PICKLED)])
    before = weights_of(toy)
    first, second = (patched(patcher, toy, Patch(path, 1.0)) for path in (PICKLED, SAFE))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(before[name], first[name]) for name in first)
    patcher.use([])
    after = weights_of(toy)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_patch_stands_on_loras_and_is_taken_off_alone(toy: nn.Module, tmp_path: Path) -> None:
    lora = tmp_path / "lora.safetensors"
    layer = f"lora_unet_{KEY.removesuffix('.weight').replace('.', '_')}"
    up, down = torch.randn(64, 2), torch.randn(2, 64)
    save_file({f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down}, lora)
    patcher, before = WeightPatcher({"unet": toy}), weights_of(toy)
    alone = patched(patcher, toy, Patch(SAFE, 1.0, unet_only=True))
    with_lora = patched(patcher, toy, Patch(lora, 0.5))
    both = patched(patcher, toy, Patch(lora, 0.5), Patch(SAFE, 1.0, unet_only=True))
    added = both[KEY] - before[KEY]
    torch.testing.assert_close(
        added, (alone[KEY] - before[KEY]) + (with_lora[KEY] - before[KEY]), atol=1e-5, rtol=1e-5
    )
    again = patched(patcher, toy, Patch(lora, 0.5))
    assert all(torch.equal(again[name], with_lora[name]) for name in again)
    patcher.use([])


def test_a_pickled_patch_that_nobody_knows_is_refused(toy: nn.Module) -> None:
    patcher = WeightPatcher({"unet": toy})
    with pytest.raises(ModelIncompatible, match=r"^toy\.fooocus\.patch: expected a safetensors"):
        patcher.use([Patch(PICKLED, 1.0)])


def test_a_pickled_patch_that_was_changed_is_looked_at_again(
    toy: nn.Module, tmp_path: Path
) -> None:
    path = Path(shutil.copy(PICKLED, tmp_path))
    patcher = WeightPatcher({"unet": toy}, cache_bytes=0, known_sha256=[sha256_of(path)])
    assert patcher.check(path).matched
    assert patcher.check(path).matched
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelIncompatible, match=r"^toy\.fooocus\.patch: expected a safetensors"):
        patcher.check(path)
