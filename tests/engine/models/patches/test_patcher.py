"""Weights are always pristine plus the patches in force, worked out in float32; going back is exact, to the last bit."""

import json
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.patches import Patch, WeightPatcher
from tests.golden_data import golden_folder, golden_model
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch
QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "text_model.encoder.layers.0.mlp.fc1"
RANK = 4


@pytest.fixture
def networks() -> dict[str, nn.Module]:
    """The toy UNet in bfloat16 as the engine holds it, and two small text encoders in float16."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    sizes = CLIPTextConfig(
        vocab_size=9,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    unet: nn.Module = load_toy_unet(golden_folder())
    return {
        "unet": unet.to(torch.bfloat16, memory_format=torch.channels_last),
        "text_encoder": CLIPTextModel(sizes).half(),
        "text_encoder_2": CLIPTextModelWithProjection(sizes).half(),
    }


def state(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": weight.detach().clone()
        for part, network in networks.items()
        for name, weight in network.named_parameters()
    }


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return all(
        torch.equal(value.view(torch.int16), second[key].view(torch.int16))
        for key, value in first.items()
    )


def lora(path: Path, *, seed: int = 0, text: bool = True, **extra: Tensor) -> Path:
    """Write a LoRA of three layers of the toy UNet, and of one of each text encoder."""
    draw = torch.Generator().manual_seed(seed)
    layers = {
        f"lora_unet_{QUERY.replace('.', '_')}": ((64, RANK), (RANK, 64)),
        f"lora_unet_{KEY.replace('.', '_')}": ((64, RANK), (RANK, 64)),
        f"lora_unet_{CONV.replace('.', '_')}": ((32, RANK, 1, 1), (RANK, 32, 3, 3)),
    }
    if text:
        for part in ("te1", "te2"):
            layers[f"lora_{part}_{TEXT.replace('.', '_')}"] = ((24, RANK), (RANK, 16))
    tensors: dict[str, Tensor] = dict(extra)
    for name, (up, down) in layers.items():
        tensors[f"{name}.lora_up.weight"] = torch.randn(up, generator=draw).half() * 0.1
        tensors[f"{name}.lora_down.weight"] = torch.randn(down, generator=draw).half()
        tensors[f"{name}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)
    return path


def change(path: Path, layer: str = QUERY) -> Tensor:
    """The difference that `lora` wrote for a layer of the UNet, in float32."""
    from safetensors.torch import load_file

    tensors, name = load_file(path), f"lora_unet_{layer.replace('.', '_')}"
    up, down = (tensors[f"{name}.lora_{part}.weight"].float().flatten(1) for part in ("up", "down"))
    return 2.0 / RANK * up @ down


def test_a_lora_changes_what_it_names_and_nothing_else(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    before, path = state(networks), lora(tmp_path / "a.safetensors")
    report = WeightPatcher(networks).use([Patch(path, 0.8)])
    after = state(networks)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    text = TEXT.removeprefix("text_model.")
    assert {key.removesuffix(".weight").replace(".text_model", "") for key in changed} == {
        *(f"unet.{layer}" for layer in (QUERY, KEY, CONV)),
        *(f"{part}.{text}" for part in ("text_encoder", "text_encoder_2")),
    }
    assert report.changed == set(networks)
    assert [(file.path, file.matched, file.unmatched, file.skipped) for file in report.files] == [
        (path, 15, 0, 0)
    ]
    assert report.seconds > 0


def test_sums_in_float32_and_rounds_once(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    pristine = state(networks)[f"unet.{QUERY}.weight"]
    first, second = lora(tmp_path / "a.safetensors"), lora(tmp_path / "b.safetensors", seed=1)
    WeightPatcher(networks).use([Patch(first, 0.3), Patch(second, -1.1)])
    exact = pristine.float() + 0.3 * change(first) - 1.1 * change(second)
    actual = state(networks)[f"unet.{QUERY}.weight"]
    assert (actual != exact.bfloat16()).float().mean() < 0.005  # sums of another order, near a tie
    twice = (pristine + (0.3 * change(first)).bfloat16()) - (1.1 * change(second)).bfloat16()
    assert (actual != twice).float().mean() > 0.1


def test_forty_random_switches_leave_no_trace(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    chance = random.Random(0)
    files = [lora(tmp_path / f"{i}.safetensors", seed=i, text=i < 2) for i in range(4)]
    before, patcher = state(networks), WeightPatcher(networks, cache_bytes=300_000)
    addresses = [
        weight.data_ptr() for network in networks.values() for weight in network.parameters()
    ]
    seen: dict[str, dict[str, Tensor]] = {}
    for _ in range(40):
        wanted = [
            Patch(file, chance.choice([-1.0, 0.0, 0.5, 1.0]), unet_only=chance.random() < 0.2)
            for file in chance.sample(files, chance.randint(0, 3))
        ]
        patcher.use(wanted)
        now = state(networks)
        assert equal(seen.setdefault(patcher.key, now), now)
        assert equal(before, now) == (patcher.key == "")
    patcher.use([])
    assert equal(before, state(networks))
    assert patcher.pristine_bytes == 0
    assert len(seen) >= 20
    strides = networks["unet"].get_parameter(f"{CONV}.weight").stride()
    assert strides == torch.empty(32, 32, 3, 3).to(memory_format=torch.channels_last).stride()
    assert addresses == [
        weight.data_ptr() for network in networks.values() for weight in network.parameters()
    ]


def test_scale_0_changes_nothing(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    before, patcher = state(networks), WeightPatcher(networks)
    report = patcher.use([Patch(lora(tmp_path / "a.safetensors"), 0.0)])
    assert equal(before, state(networks))
    assert patcher.key == ""
    assert not report.files
    assert not report.changed


def test_an_equal_set_does_nothing(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    path, patcher = lora(tmp_path / "a.safetensors"), WeightPatcher(networks)
    first, key = patcher.use([Patch(path, 0.5)]), patcher.key
    weight = networks["unet"].get_parameter(f"{QUERY}.weight")
    with torch.no_grad():
        weight[0, 0] = 1234.0
    again = patcher.use([Patch(path, 0.5)])
    assert weight[0, 0] == torch.tensor(1234.0).bfloat16()
    assert not again.changed
    assert again.files == first.files
    assert patcher.key == key


def test_only_networks_that_change_are_named(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    whole, unet_part = (
        lora(tmp_path / "a.safetensors"),
        lora(tmp_path / "b.safetensors", text=False),
    )
    patcher = WeightPatcher(networks)
    assert patcher.use([Patch(unet_part, 1.0)]).changed == {"unet"}
    assert patcher.use([Patch(unet_part, 1.0), Patch(whole, 1.0, unet_only=True)]).changed == {
        "unet"
    }
    assert patcher.use([Patch(whole, 1.0)]).changed == set(networks)
    assert patcher.use([Patch(whole, 1.0), Patch(unet_part, 1.0)]).changed == {"unet"}
    assert patcher.use([]).changed == set(networks)


def test_the_key_tells_sets_apart(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    first, second = lora(tmp_path / "a.safetensors"), lora(tmp_path / "b.safetensors", seed=1)
    patcher, keys = WeightPatcher(networks), set()
    sets: list[Sequence[Patch]] = [
        [],
        [Patch(first, 1.0)],
        [Patch(first, 0.5)],
        [Patch(first, 1.0, unet_only=True)],
        [Patch(second, 1.0)],
        [Patch(first, 1.0), Patch(second, 1.0)],
        [Patch(second, 1.0), Patch(first, 1.0)],
        [Patch(first, 1.0), Patch(first, 1.0)],
    ]
    for patches in sets:
        patcher.use(patches)
        keys.add(patcher.key)
    assert len(keys) == len(sets)


def test_a_file_written_anew_is_read_anew(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    path, patcher = lora(tmp_path / "a.safetensors"), WeightPatcher(networks)
    before = state(networks)[f"unet.{QUERY}.weight"].float()
    patcher.use([Patch(path, 1.0)])
    lora(path, seed=7)
    patcher.use([Patch(path, 1.0)])
    added = state(networks)[f"unet.{QUERY}.weight"].float() - before
    assert torch.allclose(added, change(path), atol=0.02)


def test_memory_of_copies_is_of_touched_weights_only(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    first = lora(tmp_path / "a.safetensors")
    small = tmp_path / "b.safetensors"
    save_file({f"lora_unet_{QUERY.replace('.', '_')}.diff": torch.ones(64, 64)}, small)
    patcher = WeightPatcher(networks)
    patcher.use([Patch(first, 1.0)])
    touched = 2 * (64 * 64 + 64 * 64 + 32 * 32 * 9) + 2 * 2 * 24 * 16
    assert patcher.pristine_bytes == touched
    patcher.use([Patch(small, 1.0)])
    assert patcher.pristine_bytes == 2 * 64 * 64
    patcher.use([])
    assert patcher.pristine_bytes == 0


def test_kept_bytes_stay_within_the_room(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    room, path = 150_000, lora(tmp_path / "a.safetensors")
    patcher = WeightPatcher(networks, cache_bytes=room)
    for scale in range(1, 30):
        patcher.use([Patch(path, scale / 10)])
        assert 0 < patcher.kept_bytes <= 3 * room
    small = WeightPatcher(networks, cache_bytes=100)
    patcher.use([])
    small.use([Patch(path, 1.0)])
    assert small.kept_bytes == 0


def test_refused_files_change_nothing(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    good, patcher = lora(tmp_path / "a.safetensors"), WeightPatcher(networks)
    patcher.use([Patch(good, 1.0)])
    before, key = state(networks), patcher.key
    junk = {f"junk.{i}": torch.ones(1) for i in range(13)}
    bad = lora(tmp_path / "b.safetensors", **junk)
    problem = r"^b\.safetensors: expected weights that fit this model, got 13 keys that belong to no part of it, such as 'junk\.\d+'$"
    for wanted in ([Patch(good, 0.5), Patch(bad, 1.0)], [Patch(bad, 1.0)]):
        with pytest.raises(ModelIncompatible, match=problem):
            patcher.use(wanted)
    with pytest.raises(ModelIncompatible, match=problem):
        patcher.check(bad)
    with pytest.raises(ModelNotFound, match=r"^gone\.safetensors: expected a file of weights in "):
        patcher.use([Patch(tmp_path / "gone.safetensors", 1.0)])
    assert equal(before, state(networks))
    assert patcher.key == key
    assert patcher.check(good).matched == 15


def test_an_error_on_the_way_leaves_all_pristine(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    good, before = lora(tmp_path / "a.safetensors"), state(networks)
    odd = tmp_path / "b.safetensors"
    save_file(
        {f"lora_unet_{KEY.replace('.', '_')}.diff": torch.ones(64, 64, dtype=torch.complex64)}, odd
    )
    patcher = WeightPatcher(networks)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error"
        )  # torch warns of the imaginary part while the weights are half changed
        with pytest.raises(UserWarning, match="imaginary"):
            patcher.use([Patch(good, 1.0), Patch(odd, 1.0)])
    assert equal(before, state(networks))
    assert (patcher.key, patcher.pristine_bytes) == ("", 0)
    assert patcher.use([Patch(good, 1.0)]).changed == set(networks)


FOREIGN: dict[str, tuple[dict[str, Tensor], str]] = {
    "sd15": (
        {
            f"lora_unet_down_blocks_0_attentions_{i}_transformer_blocks_0_attn2_to_k.lora_{part}.weight": torch.ones(shape)
            for i in range(20)
            for part, shape in (("up", (320, 2)), ("down", (2, 768)))
        },
        r"some made for Stable Diffusion 1\.x: cross-attention width 768, this model has 64",
    ),
    "full size": (
        {f"unet.{KEY}.lora_{part}.weight": torch.ones(shape) for part, shape in (("B", (640, 2)), ("A", (2, 2048)))},
        "some made for SDXL: cross-attention width 2048, this model has 64",
    ),
    "flux": (
        {f"lora_unet_double_blocks_{i}_img_mod_lin.lora_up.weight": torch.ones(8, 2) for i in range(20)},
        "some made for Flux",
    ),
    "checkpoint": (
        {f"first_stage_model.{i}.weight": torch.ones(1) for i in range(20)},
        "a whole model",
    ),
    "shapes": (
        {f"unet.{QUERY}.lora_{part}.weight": torch.ones(shape) for part, shape in (("B", (99, 2)), ("A", (2, 99)))},
        rf"1 of 1 layers of another shape, such as 'unet\.{QUERY}'",
    ),
    "half a layer": ({f"unet.{QUERY}.lora_B.weight": torch.ones(64, 2)}, "none"),
    "nothing": ({"emb_params": torch.ones(2, 8)}, "none"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_weights_for_another_model_are_refused(
    kind: str, networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    tensors, reason = FOREIGN[kind]
    save_file(tensors, tmp_path / "a.safetensors")
    expected = rf"^a\.safetensors: expected weights that fit this model, got {reason}$"
    with pytest.raises(ModelIncompatible, match=expected):
        WeightPatcher(networks).use([Patch(tmp_path / "a.safetensors", 1.0)])


def test_a_tensor_of_another_shape_is_left_out_with_a_line(
    networks: dict[str, nn.Module], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {"lora_unet_conv_in.diff": torch.ones(32, 9, 3, 3)}
    path, patcher = lora(tmp_path / "a.safetensors", **odd), WeightPatcher(networks)
    (report,) = patcher.use([Patch(path, 1.0)]).files
    assert (report.matched, report.skipped) == (15, 1)
    assert "1 weights have another shape here and stay, such as conv_in.weight" in caplog.text


def test_a_refiner_takes_the_part_that_is_its_own(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    path = lora(tmp_path / "a.safetensors")
    (report,) = WeightPatcher({"unet": networks["unet"]}).use([Patch(path, 1.0)]).files
    assert (report.matched, report.unmatched, report.skipped) == (9, 0, 6)


def peft_file(
    path: Path, *, magnitude: bool = False, **settings: Any
) -> tuple[Path, Tensor, Tensor]:
    """Write one layer in PEFT's form; `settings` go into the header as diffusers writes them."""
    up, down = torch.randn(64, RANK), torch.randn(RANK, 64)
    tensors = {f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up}
    if magnitude:
        tensors[f"unet.{QUERY}.lora_magnitude_vector"] = torch.full((64,), 3.0)
    header = {f"unet.{name}": value for name, value in settings.items()}
    save_file(
        tensors, path, metadata={"lora_adapter_metadata": json.dumps(header)} if header else None
    )
    return path, up, down


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 1.0),
        ({"lora_alpha": 8, "r": RANK}, 2.0),
        ({"lora_alpha": 8, "r": RANK, "use_rslora": True}, 4.0),
        ({"lora_alpha": 8, "alpha_pattern": {"attn1.to_q": 2}}, 0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"to_k": 2}}, 2.0),
    ],
)
def test_peft_files_keep_their_alpha_in_the_header(
    settings: dict[str, Any], factor: float, tmp_path: Path
) -> None:
    unet = load_toy_unet(golden_folder())
    before = unet.get_parameter(f"{QUERY}.weight").detach().clone()
    path, up, down = peft_file(tmp_path / "a.safetensors", **settings)
    WeightPatcher({"unet": unet}).use([Patch(path, 0.5)])
    added = unet.get_parameter(f"{QUERY}.weight").detach() - before
    assert torch.allclose(added, 0.5 * factor * up @ down, atol=1e-5)


def test_peft_magnitudes_are_doras(tmp_path: Path) -> None:
    unet = load_toy_unet(golden_folder())
    before = unet.get_parameter(f"{QUERY}.weight").detach().clone()
    path, up, down = peft_file(tmp_path / "a.safetensors", magnitude=True)
    WeightPatcher({"unet": unet}).use([Patch(path, 1.0)])
    whole = before + up @ down
    expected = 3.0 * whole / whole.norm(dim=1, keepdim=True)
    assert torch.allclose(unet.get_parameter(f"{QUERY}.weight").detach(), expected, atol=1e-5)


def test_fooocus_reads_neither_peft_nor_dora(tmp_path: Path) -> None:
    unet = load_toy_unet(golden_folder())
    before = state({"unet": unet})
    path, _, _ = peft_file(tmp_path / "a.safetensors", magnitude=True)
    patcher = WeightPatcher({"unet": unet}, compat="fooocus")
    (report,) = patcher.use([Patch(path, 1.0)]).files
    assert (report.matched, report.unmatched) == (0, 3)
    assert patcher.key == ""
    assert all(torch.equal(before[key], value) for key, value in state({"unet": unet}).items())


def test_lokr_in_tuckers_form_is_merged_unless_asked(tmp_path: Path) -> None:
    layer = "lora_unet_down_blocks_0_resnets_0_conv1"
    tensors = {
        f"{layer}.lokr_w1": torch.randn(4, 4),
        f"{layer}.lokr_w2_a": torch.randn(2, 8),
        f"{layer}.lokr_w2_b": torch.randn(2, 8),
        f"{layer}.lokr_t2": torch.randn(2, 2, 3, 3),
        f"{layer}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    unet = load_toy_unet(golden_folder())
    patch = Patch(tmp_path / "a.safetensors", 1.0)
    assert WeightPatcher({"unet": unet}).use([patch]).changed == {"unet"}
    unet = load_toy_unet(golden_folder())
    assert not WeightPatcher({"unet": unet}, compat="fooocus").use([patch]).changed


@pytest.mark.parametrize("layer", [QUERY, CONV], ids=["matrix", "convolution"])
@pytest.mark.parametrize("is_old", [False, True])
def test_glora_files_come_in_two_orders(layer: str, is_old: bool, tmp_path: Path) -> None:
    unet = load_toy_unet(golden_folder())
    weight = unet.get_parameter(f"{layer}.weight").detach().clone()
    width, kernel = weight.shape[1], weight.shape[2:]
    ones = (1,) * len(kernel)
    a_up, a_down = torch.randn(width, RANK, *ones), torch.randn(RANK, width, *ones)
    up, down = torch.randn(width, RANK, *ones), torch.randn(RANK, width, *kernel)
    pairs = {"a1": a_up, "a2": a_down, "b1": up, "b2": down}
    if is_old:
        pairs = {"a2": a_up, "a1": a_down, "b2": up, "b1": down}
    tensors = {f"unet.{layer}.{slot}.weight": value for slot, value in pairs.items()}
    save_file({**tensors, f"unet.{layer}.alpha": torch.tensor(2.0)}, tmp_path / "a.safetensors")
    WeightPatcher({"unet": unet}).use([Patch(tmp_path / "a.safetensors", 1.0)])
    mix = a_up.flatten(1) @ a_down.flatten(1)
    mixed = torch.einsum("oi...,ij->oj...", weight, mix)
    expected = weight + 2.0 / RANK * (mixed + torch.tensordot(up.flatten(1), down, dims=1))
    assert torch.allclose(unet.get_parameter(f"{layer}.weight").detach(), expected, atol=1e-4)


def test_query_key_and_value_in_one_matrix_are_parted(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    change = torch.randn(48, 16)
    key = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj.diff"
    save_file({key: change}, tmp_path / "a.safetensors")
    encoder = networks["text_encoder_2"].float()
    layer = "text_model.encoder.layers.0.self_attn"
    names = [f"{layer}.{letter}_proj.weight" for letter in "qkv"]
    before = torch.cat([encoder.get_parameter(name).detach() for name in names])
    WeightPatcher(networks).use([Patch(tmp_path / "a.safetensors", 1.0)])
    after = torch.cat([encoder.get_parameter(name).detach() for name in names])
    assert torch.allclose(after - before, change, atol=1e-5)


def test_the_inpaint_patch_needs_leave_or_its_hash(networks: dict[str, nn.Module]) -> None:
    from engine.models.tensors import sha256_of

    patch = Patch(golden_model("lora/toy.fooocus.patch", golden_folder()), 1.0, unet_only=True)
    with pytest.raises(
        ModelIncompatible, match=r"^toy\.fooocus\.patch: expected a safetensors file, got a pickled"
    ):
        WeightPatcher(networks).use([patch])
    patcher = WeightPatcher(networks, known_sha256={sha256_of(patch.path)})
    assert patcher.use([patch]).changed == {"unet"}


def test_keeps_copies_where_it_is_told(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    before, patcher = state(networks), WeightPatcher(networks, keep_on=torch.device("cpu"))
    patcher.use([Patch(lora(tmp_path / "a.safetensors"), 1.0)])
    patcher.use([])
    assert equal(before, state(networks))
