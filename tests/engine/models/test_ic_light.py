"""IC-Light on a UNet that keeps its shape answers as one whose first convolution was really widened."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine import InvalidRequest, ModelIncompatible, Size
from engine.conditioning.branch import Branch
from engine.loop import Denoiser, Row, predict
from engine.models.checkpoints import SD15_CONFIG, SDXL_CONFIG
from engine.models.ic_light import load_ic_light
from engine.models.patches import Patch, WeightPatcher
from engine.models.patches.files import read_offsets
from engine.models.patches.names import Names
from engine.sampling.latent_format import SD15
from engine.sampling.prediction import model_sampling
from engine.stages.encode_picture import encode_values
from engine.stages.pixels import cover
from engine.stages.relight import over_grey, relight_addition
from tests import real_layout
from tests.tiny_sd15 import WIDTH, tiny_parts, unet_names

pytestmark = pytest.mark.torch
FIELD = "studio.ic_light.path"
BACKGROUND = "studio.ic_light.background"


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return {name: it.requires_grad_(requires_grad=False) for name, it in tiny_parts().items()}


def offsets_of(unet: Any, more: int) -> dict[str, Tensor]:
    """A difference for each weight by its own name, as the published files hold them; `more` input channels."""
    generator = torch.Generator().manual_seed(more)
    tensors = {
        key: torch.randn(value.shape, generator=generator) * 0.02
        for key, value in unet.state_dict().items()
    }
    shape = (unet.config.block_out_channels[0], 4 + more, 3, 3)
    return {**tensors, "conv_in.weight": torch.randn(shape, generator=generator) * 0.1}


def written(folder: Path, unet: Any, more: int) -> Path:
    path = folder / f"iclight_{more}.safetensors"
    save_file(offsets_of(unet, more), path)
    return path


def widened(unet: Any, offsets: dict[str, Tensor]) -> Any:
    """The UNet as IC-Light's authors build it: a wider first convolution, and all differences added."""
    wide, plain = copy.deepcopy(unet), unet.conv_in
    channels = offsets["conv_in.weight"].shape[1]
    wide.conv_in = nn.Conv2d(channels, plain.out_channels, 3, padding=1)
    with torch.no_grad():
        wide.conv_in.weight.zero_()
        wide.conv_in.weight[:, :4] = plain.weight
        wide.conv_in.bias.copy_(plain.bias)
        for key, value in wide.state_dict().items():
            value.add_(offsets[key])
    return wide.eval()


def pictures(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, 256, (48, 80, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("more", [4, 8])
@torch.inference_mode()
def test_the_answer_is_that_of_a_widened_unet(
    more: int, parts: dict[str, Any], tmp_path: Path
) -> None:
    unet, vae = copy.deepcopy(parts["unet"]), parts["vae"]
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    path = written(tmp_path, unet, more)
    light = load_ic_light(path, unet, FIELD)
    patcher = WeightPatcher({"unet": unet})
    report = patcher.use([light.patch])
    assert report.files[0].unmatched == 0
    assert report.files[0].matched == len(before)

    size, seen = Size(64, 48), pictures(more // 4)
    addition = relight_addition(
        light, vae, size, seen[0], background=(*seen, None)[1], field=BACKGROUND
    )
    torch.manual_seed(9)
    x, context = torch.randn(1, 4, 6, 8), torch.randn(1, 77, WIDTH)
    denoiser = Denoiser(unet, model_sampling("normal", "epsilon", SD15))
    row = Row(x, 500.0, Branch(context, None, None), addition=addition)
    plain = Row(x, 500.0, Branch(context, None, None))
    answer, without = predict(denoiser, [row, plain]).split(1)

    values = [
        torch.from_numpy(cover(it, size)).permute(2, 0, 1)[None].float() / 127 - 1 for it in seen
    ]
    told = [vae.encode(it).latent_dist.mode() * vae.config.scaling_factor for it in values]
    wide = widened(parts["unet"], offsets_of(unet, more))
    expected = wide(torch.cat([x, *told], 1), 500.0, encoder_hidden_states=context).sample
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-4)
    assert (answer - without).abs().max() > 1e-3
    nothing = wide(nn.functional.pad(x, (0, 0, 0, 0, 0, more)), 500.0, context).sample
    torch.testing.assert_close(without, nothing, rtol=0, atol=1e-4)

    patcher.use([])
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())


def test_original_names_are_read_too(parts: dict[str, Any], tmp_path: Path) -> None:
    unet = copy.deepcopy(parts["unet"])
    offsets = offsets_of(unet, 4)
    path = tmp_path / "ldm.safetensors"
    names = unet_names()
    save_file({f"diffusion_model.{old}": offsets[new] for old, new in names.items()}, path)
    light = load_ic_light(path, unet, FIELD)
    assert torch.equal(light.extra, offsets["conv_in.weight"][:, 4:])
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    WeightPatcher({"unet": unet}).use([light.patch])
    offsets["conv_in.weight"] = offsets["conv_in.weight"][:, :4]
    for key, value in unet.state_dict().items():
        torch.testing.assert_close(value, before[key] + offsets[key])


def test_it_stands_on_loras_and_goes_with_them(parts: dict[str, Any], tmp_path: Path) -> None:
    unet, path = copy.deepcopy(parts["unet"]), written(tmp_path, parts["unet"], 4)
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    up, down = torch.ones(96, 1), torch.ones(1, WIDTH)
    lora = tmp_path / "lora.safetensors"
    save_file({f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down}, lora)
    patcher = WeightPatcher({"unet": unet})
    before = unet.state_dict()[key].clone()
    patch = load_ic_light(path, unet, FIELD).patch
    patcher.use([Patch(lora, 0.5), patch])
    expected = before + 0.5 + offsets_of(unet, 4)[key]
    torch.testing.assert_close(unet.state_dict()[key], expected)
    patcher.use([patch])
    torch.testing.assert_close(unet.state_dict()[key], expected - 0.5)
    patcher.use([Patch(lora, 0.5)])
    torch.testing.assert_close(unet.state_dict()[key], before + 0.5)


@pytest.mark.parametrize("more", [4, 8])
def test_the_real_layout_has_a_place_for_every_key(more: int) -> None:
    """Told by the names and shapes of the published files, without the memory for them."""
    from diffusers import UNet2DConditionModel

    settings = UNet2DConditionModel.load_config(SD15_CONFIG / "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(settings)
        original = real_layout.unet_shapes(real_layout.SD15)
        tensors = {new: torch.empty(original[old]) for old, new in unet_names().items()}
        tensors["conv_in.weight"] = torch.empty(320, 4 + more, 3, 3)
    shapes = {("unet", key): value.shape for key, value in unet.named_parameters()}
    file = read_offsets(Path("real"), tensors, Names({"unet": unet}), shapes)
    assert file.deltas.keys() == shapes.keys()
    assert (file.report.matched, file.report.unmatched) == (686, 0)


@pytest.mark.parametrize("more", [4, 8])
def test_a_background_is_there_where_it_is_seen(
    more: int, parts: dict[str, Any], tmp_path: Path
) -> None:
    light = load_ic_light(written(tmp_path, parts["unet"], more), parts["unet"], FIELD)
    assert light.needs_background == (more == 8)
    picture = pictures(1)[0]
    background = None if light.needs_background else picture
    with pytest.raises(InvalidRequest) as error:
        relight_addition(
            light, parts["vae"], Size(64, 64), picture, background=background, field=BACKGROUND
        )
    sentence = {
        4: "expected none, since iclight_4.safetensors sees the picture alone, got one",
        8: "expected a background, which iclight_8.safetensors sees, got none",
    }
    assert str(error.value) == f"{BACKGROUND}: {sentence[more]}"


def test_an_sdxl_base_model_is_refused(tmp_path: Path, parts: dict[str, Any]) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(SDXL_CONFIG / "unet")
        )
    with pytest.raises(InvalidRequest) as error:
        load_ic_light(written(tmp_path, parts["unet"], 4), unet, FIELD)
    wanted = "expected a base model of SD 1.5, which IC-Light is made for, got one of SDXL"
    assert str(error.value) == f"{FIELD}: iclight_4.safetensors: {wanted}"


def test_other_files_are_refused(tmp_path: Path, parts: dict[str, Any]) -> None:
    unet = parts["unet"]
    rule = "expected IC-Light, whose first convolution is (32, 8, 3, 3) or (32, 12, 3, 3)"
    for name, tensors, got in (
        ("lora", {"x.lora_up.weight": torch.zeros(2, 2)}, "none"),
        ("plain", {"conv_in.weight": torch.zeros(32, 4, 3, 3)}, "(32, 4, 3, 3)"),
        ("wide", {"conv_in.weight": torch.zeros(64, 8, 3, 3)}, "(64, 8, 3, 3)"),
    ):
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path)
        with pytest.raises(InvalidRequest) as error:
            load_ic_light(path, unet, FIELD)
        assert str(error.value) == f"{FIELD}: {name}.safetensors: {rule}, got {got}"
    (tmp_path / "torn.safetensors").write_bytes(b"PK")
    with pytest.raises(ModelIncompatible):
        load_ic_light(tmp_path / "torn.safetensors", unet, FIELD)


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda tensors: tensors.pop("conv_out.weight"), "none"),
        (
            lambda tensors: tensors.update({"conv_out.weight": torch.zeros(4, 16, 3, 3)}),
            "one of (4, 16, 3, 3)",
        ),
    ],
)
def test_a_file_with_holes_changes_nothing(
    change: Any, got: str, tmp_path: Path, parts: dict[str, Any]
) -> None:
    unet, tensors = copy.deepcopy(parts["unet"]), offsets_of(parts["unet"], 4)
    change(tensors)
    path = tmp_path / "holes.safetensors"
    save_file(tensors, path)
    patch = load_ic_light(path, unet, FIELD).patch
    with pytest.raises(ModelIncompatible) as error:
        WeightPatcher({"unet": unet}).use([patch])
    wanted = "expected a difference of shape (4, 32, 3, 3) for conv_out.weight"
    assert str(error.value) == f"holes.safetensors: {wanted}, got {got}"
    expected = parts["unet"].state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in unet.state_dict().items())


def test_what_is_transparent_shows_grey() -> None:
    image = np.zeros((2, 2, 4), np.uint8)
    image[..., 0], image[0, 0, 3], image[1, 1, 3] = 200, 255, 51
    shown = over_grey(image)
    assert shown[0, 0].tolist() == [200, 0, 0]
    assert shown[0, 1].tolist() == [127, 127, 127]
    assert shown[1, 1].tolist() == [141, 101, 101]
    assert over_grey(image[..., 0]).shape == (2, 2, 3)


def test_grey_is_nothing_to_the_vae(parts: dict[str, Any], tmp_path: Path) -> None:
    light = load_ic_light(written(tmp_path, parts["unet"], 4), parts["unet"], FIELD)
    grey = np.full((64, 64, 3), 127, np.uint8)
    latents = encode_values(parts["vae"], torch.zeros(1, 3, 64, 64), None)
    expected = light.addition(latents * 0.18215)
    found = relight_addition(light, parts["vae"], Size(64, 64), grey, field=BACKGROUND)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
