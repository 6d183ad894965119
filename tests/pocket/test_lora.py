"""Adapters on hooks, adapters in a file and adapters merged by the engine are the same adapters."""

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from engine.models.patches import Patch, WeightPatcher  # noqa: E402
from pocket.lora import Adapter, Lora, merge, read_metadata, save_lora  # noqa: E402
from pocket.parts import make_unet  # noqa: E402

ADAPTER = Adapter("Toy", "Nothing to see.", rank=4, alpha=6, trigger="toy")


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return make_unet().eval().requires_grad_(requires_grad=False)


@pytest.fixture
def lora(unet):
    adapters = Lora(unet, ADAPTER)
    yield adapters
    adapters.detach()


def shake(lora):
    torch.manual_seed(1)
    for pair in lora.pairs.values():
        torch.nn.init.normal_(pair.up.weight, std=0.05)


def answer(unet, count=2):
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        return unet(
            torch.randn(count, 4, 8, 8, generator=rng),
            500,
            torch.randn(count, 5, 160, generator=rng),
            added_cond_kwargs={
                "text_embeds": torch.randn(count, 96, generator=rng),
                "time_ids": torch.full((count, 6), 128.0),
            },
        ).sample


def test_new_adapters_change_nothing(unet, lora):
    with_adapters = answer(unet)
    lora.detach()
    assert torch.equal(with_adapters, answer(unet))


def test_at_strength_0_trained_ones_change_nothing_either(unet, lora):
    shake(lora)
    lora.strength = 0.0
    without = answer(unet)
    lora.strength = 1.0
    assert not torch.allclose(without, answer(unet), atol=1e-3)
    lora.detach()
    assert torch.equal(without, answer(unet))


def test_each_picture_has_its_own_strength(unet, lora):
    shake(lora)
    alone = []
    for strength in (0.3, 1.0):
        lora.strength = strength
        alone.append(answer(unet))
    lora.strength = torch.tensor([0.3, 1.0])
    together = answer(unet)
    assert torch.allclose(together[0], alone[0][0], atol=1e-5)
    assert torch.allclose(together[1], alone[1][1], atol=1e-5)


def test_a_file_is_what_was_trained_whoever_merges_it(unet, lora, tmp_path):
    shake(lora)
    lora.strength = 0.7
    trained = answer(unet)
    lora.detach()
    file = tmp_path / "toy.safetensors"
    save_lora(dict(lora.named_parameters()), ADAPTER, file)
    plain = answer(unet)
    merge(unet, file, 0.7)
    merged = answer(unet)
    merge(unet, file, -0.7)
    assert torch.allclose(merged, trained, atol=2e-3)
    assert not torch.allclose(merged, plain, atol=2e-2)
    assert torch.allclose(answer(unet), plain, atol=1e-4)
    patcher = WeightPatcher({"unet": unet})
    report = patcher.use([Patch(file, 0.7)])
    assert report.files[0].unmatched == report.files[0].skipped == 0
    assert torch.allclose(answer(unet), merged, atol=1e-4)
    patcher.use([])
    assert torch.allclose(answer(unet), plain, atol=1e-4)


def test_a_file_says_what_it_is(lora, tmp_path):
    file = tmp_path / "toy.safetensors"
    save_lora(dict(lora.named_parameters()), ADAPTER, file)
    said = read_metadata(file)
    assert said["ss_network_dim"] == "4"
    assert said["ss_network_alpha"] == "6"
    assert said["modelspec.title"] == "Toy"
    assert said["modelspec.trigger_phrase"] == "toy"
    assert said["pochade.summary"] == "Nothing to see."


def test_a_file_for_another_model_is_refused(unet, lora, tmp_path):
    file = tmp_path / "toy.safetensors"
    weights = {
        "pairs.nowhere.down.weight": torch.ones(4, 3),
        "pairs.nowhere.up.weight": torch.ones(3, 4),
    }
    save_lora(weights, ADAPTER, file)
    with pytest.raises(ValueError, match="lora_unet_nowhere"):
        merge(unet, file, 1.0)
