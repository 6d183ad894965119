"""ControlNets of every layout are loaded whole, and answer as diffusers' own or as the written formula says."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.controlnets import UNION_MODES, build_controlnet, load_controlnet
from engine.models.patches import Patch, WeightPatcher
from tests.golden_data import golden_folder, golden_model
from tests.toy_controls import (
    Tensors,
    control_lora,
    hint,
    original_layout,
    question,
    shake,
    toy_controlnet,
    toy_union,
)
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch
EXACT = 1e-5


@pytest.fixture
def unet() -> Any:
    torch.set_num_threads(1)
    return load_toy_unet(golden_folder()).requires_grad_(requires_grad=False)


def library_answer(network: Any, asked: Mapping[str, Any], drawing: Tensor) -> list[Tensor]:
    down, middle = network(
        asked["x"],
        asked["timesteps"],
        asked["context"],
        drawing.expand(len(asked["x"]), -1, -1, -1),
        added_cond_kwargs=asked["added"],
        return_dict=False,
    )
    return [*down, middle]


def our_answer(
    net: Any, asked: Mapping[str, Any], drawing: Tensor, *, modes: tuple[int, ...] = ()
) -> list[Tensor]:
    embedding = net.embed(drawing).expand(len(asked["x"]), -1, -1, -1)
    return net.residuals(embedding, **asked, modes=modes)


def assert_same(ours: list[Tensor], expected: list[Tensor], tolerance: float = EXACT) -> None:
    assert len(ours) == len(expected) == 10
    for mine, wanted in zip(ours, expected, strict=True):
        assert wanted.std() > 1e-3
        assert (mine - wanted).abs().max() <= tolerance * wanted.std()


def save(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path)
    return path


def in_a_folder(network: Any, folder: Path) -> Path:
    network.save_pretrained(folder / "canny")
    return folder / "canny"


def in_a_folder_of_halves(network: Any, folder: Path) -> Path:
    network.save_pretrained(folder / "halves", variant="fp16")
    return folder / "halves"


def in_one_file(network: Any, folder: Path) -> Path:
    return save(folder / "net.safetensors", network.state_dict())


def in_one_original_file(network: Any, folder: Path) -> Path:
    return save(folder / "old.safetensors", original_layout(network.state_dict()))


def in_a_file_of_a_whole_model(network: Any, folder: Path) -> Path:
    weights = original_layout(network.state_dict())
    prefixed = {f"control_model.{key}": value for key, value in weights.items()}
    return save(folder / "all.safetensors", prefixed | {"model.other": torch.zeros(3)})


@pytest.mark.parametrize(
    "write",
    [
        in_a_folder,
        in_a_folder_of_halves,
        in_one_file,
        in_one_original_file,
        in_a_file_of_a_whole_model,
    ],
)
@torch.inference_mode()
def test_every_layout_answers_as_diffusers(
    write: Callable[[Any, Path], Path], unet: Any, tmp_path: Path
) -> None:
    network = toy_controlnet(unet)
    net = load_controlnet(write(network, tmp_path), unet)
    asked = question(unet)
    assert_same(our_answer(net, asked, hint()), library_answer(network, asked, hint()))
    assert not net.modes
    assert net.mode("canny") is None
    assert not any(weight.requires_grad for weight in net.network.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"down_block_types": ("DownBlock2D",) * 3, "mid_block_type": "UNetMidBlock2D"},
        {"transformer_layers_per_block": [0, 0, 1]},
        {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")},
        {"transformer_layers_per_block": [1, 2, 3]},
        {"conditioning_channels": 4, "conditioning_embedding_out_channels": (4, 8, 8, 32)},
    ],
    ids=["small", "mid", "as SD 1.5", "deep", "other hint"],
)
@torch.inference_mode()
def test_settings_are_told_from_shapes(changes: Mapping[str, Any], unet: Any) -> None:
    network = toy_controlnet(unet, **changes)
    net = build_controlnet("x", network.state_dict(), unet)
    channels = changes.get("conditioning_channels", 3)
    drawing, asked = hint()[:, [0, 1, 2, 0][:channels]], question(unet)
    assert_same(our_answer(net, asked, drawing), library_answer(network, asked, drawing))


@torch.inference_mode()
def test_a_net_trained_on_blue_green_red_gets_it(unet: Any, tmp_path: Path) -> None:
    network = toy_controlnet(unet, controlnet_conditioning_channel_order="bgr")
    net = load_controlnet(in_a_folder(network, tmp_path), unet)
    asked = question(unet)
    assert_same(our_answer(net, asked, hint()), library_answer(network, asked, hint()))


def union_answer(
    network: Any, asked: Mapping[str, Any], drawing: Tensor, mode: int
) -> list[Tensor]:
    rows, kinds = len(asked["x"]), network.config.num_control_type
    down, middle = network(
        asked["x"],
        asked["timesteps"],
        asked["context"],
        [drawing.expand(rows, -1, -1, -1)],
        control_type=torch.eye(kinds)[mode][None].expand(rows, -1),
        control_type_idx=[mode],
        added_cond_kwargs=asked["added"],
        return_dict=False,
    )
    return [*down, middle]


@pytest.mark.parametrize("kinds", [6, 8])
@torch.inference_mode()
def test_a_union_answers_as_diffusers_for_one_picture(
    kinds: int, unet: Any, tmp_path: Path
) -> None:
    network = toy_union(unet, kinds)
    net = load_controlnet(in_a_folder(network, tmp_path), unet)
    assert net.modes == kinds
    mode = net.mode("canny")
    assert mode == 3
    asked = question(unet)
    asked["x"], asked["timesteps"] = asked["x"][:1].repeat(2, 1, 1, 1), torch.tensor([500.0] * 2)
    ours = our_answer(net, asked, hint(), modes=(mode, mode))
    assert_same(ours, union_answer(network, asked, hint(), mode), 1e-4)


@torch.inference_mode()
def test_rows_of_a_union_do_not_see_one_another(unet: Any) -> None:
    network, asked = toy_union(unet), question(unet)
    net = build_controlnet("x", network.state_dict(), unet)
    modes = (3, 1)
    ours = our_answer(net, asked, hint(), modes=modes)
    for row, mode in enumerate(modes):
        alone = row_of(asked, row)
        expected = union_answer(network, alone, hint(), mode)
        assert_same([answer[row : row + 1] for answer in ours], expected, 1e-4)


def row_of(asked: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {
        key: row_of(value, row) if isinstance(value, dict) else value[row : row + 1]
        for key, value in asked.items()
    }


def test_a_union_refuses_kinds_it_does_not_know(unet: Any) -> None:
    net = build_controlnet("six", toy_union(unet, 6).state_dict(), unet)
    assert net.mode("segmentation") == 5
    with pytest.raises(ModelIncompatible, match=r"^six: expected .* that knows tile, got one of 6"):
        net.mode("tile")
    assert set(UNION_MODES.values()) == set(range(8))


def merged_by_formula(unet: Any, file: Tensors) -> Any:
    """Build the network of a control-LoRA as the formula says: the UNet's weight plus up @ down, the file's own above it."""
    from diffusers import ControlNetModel

    widths = [
        value.shape[0]
        for key, value in sorted(
            file.items(), key=lambda item: int(item[0].split(".")[1]) if "hint" in item[0] else 0
        )
        if key.startswith("input_hint_block.") and key.endswith(".weight")
    ]
    network = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(widths[0], *widths[2:-1:2])
    )
    weights = network.state_dict()
    for key, theirs in zip(weights, original_layout({key: key for key in weights}), strict=True):
        module = theirs.rpartition(".")[0]
        if theirs in file:
            weights[key] = file[theirs].float()
        elif theirs.endswith(".weight") and f"{module}.up" in file:
            up, down = file[f"{module}.up"].float(), file[f"{module}.down"].float()
            change = (up.flatten(1) @ down.flatten(1)).reshape(weights[key].shape)
            weights[key] = unet.state_dict()[key] + change
    network.load_state_dict(weights)
    return network.eval()


def toy_control_lora(unet: Any) -> Tensors:
    return control_lora(original_layout(toy_controlnet(unet).state_dict()))


@torch.inference_mode()
def test_a_control_lora_is_the_unets_weights_and_a_change(unet: Any, tmp_path: Path) -> None:
    file = toy_control_lora(unet)
    net = load_controlnet(save(tmp_path / "lora.safetensors", file), unet)
    network, asked = merged_by_formula(unet, file), question(unet)
    assert_same(our_answer(net, asked, hint()), library_answer(network, asked, hint()))
    biases = [key for key in file if key.endswith(".bias")]
    assert len(biases) > 50
    ours = net.network.state_dict()
    assert torch.equal(ours["conv_in.bias"], file["input_blocks.0.0.bias"])
    assert len(net.merged) == sum(key.endswith(".up") for key in file)


def golden_control_lora() -> Tensors:
    packed = golden_model("tiny_control_lora.safetensors.gz").read_bytes()
    return load(gzip.decompress(packed))


@torch.inference_mode()
def test_what_a_control_lora_leaves_out_is_shared(unet: Any) -> None:
    net = build_controlnet("tiny", golden_control_lora(), unet)
    theirs = dict(unet.named_parameters())
    ours = dict(net.network.named_parameters())
    shared = [key for key, weight in ours.items() if weight is theirs.get(key)]
    new = {key for key in ours if key.startswith("controlnet_")}
    assert len(net.merged) == 7
    assert len(shared) == len(ours) - len(new) - 7
    asked = question(unet)
    network = merged_by_formula(unet, golden_control_lora())
    assert_same(our_answer(net, asked, hint()), library_answer(network, asked, hint()))


@torch.inference_mode()
def test_a_control_lora_follows_the_patches_of_the_unet(unet: Any) -> None:
    patcher, asked = WeightPatcher({"unet": unet}), question(unet)
    file = golden_control_lora() | {
        "input_blocks.4.1.transformer_blocks.0.attn2.to_q.up": torch.randn(64, 4),
        "input_blocks.4.1.transformer_blocks.0.attn2.to_q.down": torch.randn(4, 64),
    }
    net = build_controlnet("tiny", file, unet)
    plain = our_answer(net, asked, hint())
    addresses = [merged.weight.data_ptr() for merged in net.merged]
    patcher.use([Patch(golden_model("lora/kohya_alpha.safetensors"), 1.0)])
    net.refresh()
    patched = our_answer(net, asked, hint())
    assert_same(patched, our_answer(build_controlnet("again", file, unet), asked, hint()), 0.0)
    assert max((a - b).abs().max() for a, b in zip(plain, patched, strict=True)) > 1e-3
    patcher.use([])
    net.refresh()
    assert_same(our_answer(net, asked, hint()), plain, 0.0)
    assert [merged.weight.data_ptr() for merged in net.merged] == addresses


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_nets_take_the_number_format_of_the_unet(dtype: torch.dtype, unet: Any) -> None:
    files = (toy_controlnet(unet).state_dict(), toy_control_lora(unet))
    whole = [build_controlnet("x", file, unet) for file in files]
    asked = question(unet)
    expected = [our_answer(net, asked, hint()) for net in whole]
    unet.to(dtype)
    asked = question(unet)
    for file, wanted in zip(files, expected, strict=True):
        net = build_controlnet("x", file, unet)
        assert {weight.dtype for weight in net.network.parameters()} == {dtype}
        for mine, answer in zip(our_answer(net, asked, hint()), wanted, strict=True):
            assert mine.dtype == dtype
            assert (mine.float() - answer).std() <= 0.05 * answer.std()


OTHERS = {
    "adapter.body.0.resnets.0.block1.weight": "a T2I adapter, which is another kind of network",
    "body.0.block1.weight": "a T2I adapter, which is another kind of network",
    "lllite_unet_input_blocks_4_1.depth1.0.weight": "a ControlNet-LLLite, which is another kind of network",
    "ip_adapter.1.to_k_ip.weight": "an IP-Adapter",
    "lora_unet_mid_block.lora_up.weight": "a LoRA",
    "unet.mid_block.to_q.lora_A.weight": "a LoRA",
    "model.diffusion_model.input_blocks.0.0.weight": "a base model",
    "something": "a file of other weights",
}


@pytest.mark.parametrize("key", list(OTHERS))
def test_other_files_are_refused_by_name(key: str, unet: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "x.safetensors", {key: torch.zeros(2, 2)})
    with pytest.raises(ModelIncompatible) as error:
        load_controlnet(path, unet)
    expected = f"x.safetensors: expected a ControlNet or a control-LoRA, got {OTHERS[key]}"
    assert str(error.value) == expected


def test_a_missing_weight_is_named_as_the_file_names_it(unet: Any) -> None:
    diffusers = toy_controlnet(unet).state_dict()
    original = original_layout(diffusers)
    del original["zero_convs.3.0.bias"], diffusers["controlnet_mid_block.weight"]
    for file, key in (
        (original, "zero_convs.3.0.bias"),
        (diffusers, "controlnet_mid_block.weight"),
    ):
        with pytest.raises(ModelIncompatible, match=rf"^x: expected a tensor {key}, got none$"):
            build_controlnet("x", file, unet)


@pytest.mark.parametrize("key", ["conv_in.weight", "controlnet_cond_embedding.conv_out.bias"])
def test_a_file_that_is_cut_short_is_refused(key: str, unet: Any) -> None:
    file = toy_controlnet(unet).state_dict()
    del file[key]
    with pytest.raises(ModelIncompatible, match=r"^x: expected .*, got "):
        build_controlnet("x", file, unet)


def test_a_weight_of_another_shape_is_named(unet: Any) -> None:
    file = toy_controlnet(unet).state_dict()
    file["time_embedding.linear_2.bias"] = torch.zeros(5)
    problem = r"^x: expected time_embedding.linear_2.bias of \(128,\), got \(5,\)$"
    with pytest.raises(ModelIncompatible, match=problem):
        build_controlnet("x", file, unet)


def test_factors_that_do_not_fit_are_named(unet: Any) -> None:
    file = golden_control_lora()
    lonely = {key: value for key, value in file.items() if key != "time_embed.0.down"}
    with pytest.raises(
        ModelIncompatible, match=r"^x: expected a tensor time_embed.0.down, got none$"
    ):
        build_controlnet("x", lonely, unet)
    file["time_embed.0.down"] = torch.zeros(4, 31)
    problem = r"factors time_embed.0.up and .down of a weight of \(128, 32\), got \(128, 4\) and"
    with pytest.raises(ModelIncompatible, match=problem):
        build_controlnet("x", file, unet)


def other_unet(unet: Any, **changes: Any) -> Any:
    return shake(type(unet).from_config({**unet.config, **changes}))


def test_nets_of_other_base_models_are_refused(unet: Any) -> None:
    wide = other_unet(unet, cross_attention_dim=96)
    large = other_unet(unet, block_out_channels=(32, 64, 96))
    text = r"^x: expected a ControlNet for this base model, whose text is 64 wide, got one for text 96 wide$"
    for file in (toy_controlnet(wide).state_dict(), toy_control_lora(wide)):
        with pytest.raises(ModelIncompatible, match=text):
            build_controlnet("x", file, unet)
    widths = r"^x: .* with block_out_channels \[32, 64, 128\], got \(32, 64, 96\)$"
    with pytest.raises(ModelIncompatible, match=widths):
        build_controlnet("x", toy_controlnet(large).state_dict(), unet)


def test_folders_without_weights_are_refused(unet: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="got none$"):
        load_controlnet(tmp_path, unet)
    for name in ("a", "b"):
        save(tmp_path / f"{name}.safetensors", {"x": torch.zeros(1)})
    with pytest.raises(ModelNotFound, match=r"got a\.safetensors, b\.safetensors$"):
        load_controlnet(tmp_path, unet)


def test_broken_settings_and_pooling_nets_are_refused(unet: Any, tmp_path: Path) -> None:
    folder = in_a_folder(toy_controlnet(unet), tmp_path)
    config = folder / "config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"global_pool_conditions": True}))
    with pytest.raises(ModelIncompatible, match="^canny: .* got one that takes means$"):
        load_controlnet(folder, unet)
    config.write_text("{")
    with pytest.raises(ModelIncompatible, match="^canny: "):
        load_controlnet(folder, unet)


def test_pickled_files_are_read_where_they_are_allowed(unet: Any, tmp_path: Path) -> None:
    path = tmp_path / "control.pth"
    torch.save({"state_dict": original_layout(toy_controlnet(unet).state_dict())}, path)
    with pytest.raises(ModelIncompatible, match="pickled"):
        load_controlnet(path, unet)
    assert load_controlnet(path, unet, allow_pickle=True).name == "control.pth"
