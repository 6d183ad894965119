"""IP-Adapter files of every kind give the keys and values that diffusers works out, and wrong ones are named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import ModelIncompatible
from engine.conditioning.image_attention import ImageTokens, image_layers
from engine.models.checkpoints import CONFIGS
from engine.models.image_encoders import EncodedImage
from engine.models.ip_adapters import (
    build_ip_adapter,
    carries_lora,
    load_ip_adapter,
    read_negative,
)
from engine.models.patches import Patch, WeightPatcher
from tests.tiny_adapters import (
    EMBED_WIDTH,
    ENCODER_WIDTH,
    FACE_WIDTH,
    Shapes,
    adapter_shapes,
    base_shapes,
    face_lora_shapes,
    face_plus_shapes,
    face_shapes,
    full_shapes,
    nested,
    plus_shapes,
    random_tensors,
    save_adapter,
)

pytestmark = pytest.mark.torch

TEXT_WIDTH = 80
HIDDEN = 128
KINDS: dict[str, Shapes] = {
    "plus": plus_shapes(ENCODER_WIDTH, HIDDEN, TEXT_WIDTH, count=5),
    "base": base_shapes(EMBED_WIDTH, TEXT_WIDTH),
    "full": full_shapes(ENCODER_WIDTH, TEXT_WIDTH),
    "FaceID": face_shapes(TEXT_WIDTH),
    "FaceID plus": face_plus_shapes(ENCODER_WIDTH, 64, TEXT_WIDTH),
    "InstantID": plus_shapes(FACE_WIDTH, HIDDEN, TEXT_WIDTH, count=16),
}


@pytest.fixture(scope="module")
def unet(models_dir: Path) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(
        models_dir / "checkpoints" / "tiny" / "unet", use_safetensors=True
    ).eval()


def tensors_of(kind: str, unet: Any) -> dict[str, Tensor]:
    widths = list(image_layers(unet).values())
    return random_tensors(adapter_shapes(KINDS[kind], widths, TEXT_WIDTH))


def encoded(seed: int = 1) -> EncodedImage:
    generator = torch.Generator().manual_seed(seed)
    return EncodedImage(
        torch.randn(1, 17, ENCODER_WIDTH, generator=generator),
        torch.randn(1, EMBED_WIDTH, generator=generator),
        torch.randn(1, 1, FACE_WIDTH, generator=generator),
    )


@torch.inference_mode()
def by_diffusers(
    tensors: dict[str, Tensor], unet: Any, image: EncodedImage, *, shortcut: bool = False
) -> ImageTokens:
    """Let the library convert the same weights, and project the image with them."""
    parts = nested(tensors)
    projection = unet._convert_ip_adapter_image_proj_to_diffusers(
        parts["image_proj"], low_cpu_mem_usage=False
    )
    own = parts["image_proj"]
    if {"proj.0.weight", "norm.weight"} <= set(own):
        projection.clip_embeds, projection.shortcut = image.hidden_states[None], shortcut
        tokens = projection(image.face[0])
    elif "proj.weight" in own:
        tokens = projection(image.image_embeds)
    elif "latents" in own and own["proj_in.weight"].shape[1] == FACE_WIDTH:
        tokens = projection(image.face)
    else:
        tokens = projection(image.hidden_states)
    processors = unet._convert_ip_adapter_attn_to_diffusers([parts], low_cpu_mem_usage=False)
    layers = [processors[name] for name in image_layers(unet)]
    return ImageTokens(
        tuple(layer.to_k_ip[0](tokens) for layer in layers),
        tuple(layer.to_v_ip[0](tokens) for layer in layers),
    )


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_keys_and_values_equal_those_of_diffusers(
    kind: str, ending: str, unet: Any, tmp_path: Path
) -> None:
    tensors = tensors_of(kind, unet)
    path = save_adapter(tmp_path / f"adapter{ending}", tensors)
    adapter = load_ip_adapter(path, unet, allow_pickle=True)
    image = encoded()
    tokens = adapter.attend(adapter.project(image))
    expected = by_diffusers(tensors, unet, image)
    for ours, theirs in ((tokens.keys, expected.keys), (tokens.values, expected.values)):
        for own, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(own, other, rtol=0, atol=1e-4)


def test_a_shortcut_adds_the_tokens_of_the_face(unet: Any) -> None:
    tensors = tensors_of("FaceID plus", unet)
    adapter, image = build_ip_adapter("faces", tensors, unet, {}), encoded()
    tokens = adapter.attend(adapter.project(image, shortcut=True))
    expected = by_diffusers(tensors, unet, image, shortcut=True)
    for own, other in zip(tokens.keys, expected.keys, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-4)
    without = adapter.attend(adapter.project(image))
    assert not torch.allclose(tokens.keys[0], without.keys[0], atol=1e-2)


def test_only_adapters_of_faces_read_them(unet: Any) -> None:
    kinds = {kind: build_ip_adapter(kind, tensors_of(kind, unet), unet, {}) for kind in KINDS}
    assert {kind for kind, it in kinds.items() if it.reads_faces} == {
        "FaceID",
        "FaceID plus",
        "InstantID",
    }
    assert {kind for kind, it in kinds.items() if it.projection.is_unit} == {
        "FaceID",
        "FaceID plus",
    }


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
@pytest.mark.parametrize("kind", ["FaceID", "FaceID plus"])
def test_the_lora_of_a_face_file_is_that_of_diffusers(
    kind: str, ending: str, unet: Any, tmp_path: Path
) -> None:
    lora = random_tensors(face_lora_shapes(unet), 3)
    tensors = tensors_of(kind, unet)
    path = save_adapter(tmp_path / f"faces{ending}", {**tensors, **lora})
    assert carries_lora(path, allow_pickle=True)
    load_ip_adapter(path, unet, allow_pickle=True)
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    patcher = WeightPatcher({"unet": unet}, allow_pickle=True)
    report = patcher.use([Patch(path, 1.0, unet_only=True)])
    assert report.files[0].matched == len(lora)
    theirs = unet._load_ip_adapter_loras([nested({**tensors, **lora})])[0]
    for number, name in enumerate(unet.attn_processors):
        for part, module in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0")):
            key = f"{name.removesuffix('.processor')}.{module}.weight"
            up, down = (theirs[f"unet.{name}.to_{part}_lora.{it}.weight"] for it in ("up", "down"))
            torch.testing.assert_close(unet.state_dict()[key], before[key] + up @ down)
            assert torch.equal(up, lora[f"ip_adapter.{number}.to_{part}_lora.up.weight"])
    patcher.use([])
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())


def test_other_files_carry_no_lora(unet: Any, tmp_path: Path) -> None:
    assert not carries_lora(save_adapter(tmp_path / "a.safetensors", tensors_of("plus", unet)))


def test_a_pickled_file_needs_leave(unet: Any, tmp_path: Path) -> None:
    path = save_adapter(tmp_path / "adapter.bin", tensors_of("base", unet))
    with pytest.raises(ModelIncompatible, match="--allow-pickle"):
        load_ip_adapter(path, unet)


def test_metadata_tell_what_differs(unet: Any, tmp_path: Path) -> None:
    tensors = tensors_of("plus", unet)
    path = save_adapter(tmp_path / "a.safetensors", tensors, reference_width="128", head_size="32")
    adapter = load_ip_adapter(path, unet)
    assert adapter.reference_width == 128
    usual = build_ip_adapter("a", tensors, unet, {})
    assert usual.reference_width == 1280
    assert not torch.allclose(adapter.project(encoded()), usual.project(encoded()))
    with pytest.raises(ModelIncompatible, match="reference_width to be a whole number, got 'wide'"):
        build_ip_adapter("a", tensors, unet, {"reference_width": "wide"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_proj.latents": (5, HIDDEN)}, r"image_proj.latents with 3 dim.* got \(5, 128\)"),
        ({"image_proj.proj_in.bias": (7,)}, r"proj_in.bias of shape \(128,\), got \(7,\)"),
        ({"image_proj.layers.1.0.to_kv.weight": (7, 128)}, r"1.0.to_kv.weight of shape \(256, 128"),
        ({"image_proj.more": (1,)}, "image_proj.more of shape None, got"),
        ({"ip_adapter.3.to_v_ip.weight": (7, 80)}, r"ip_adapter.3.to_v_ip.weight .*\(7, 80\)"),
        ({"ip_adapter.99.to_v_ip.weight": (7, 80)}, "layers of this base model, got one for"),
    ],
    ids=["latents", "bias", "fused", "more", "matrix", "count"],
)
def test_wrong_weights_are_named(changes: Shapes, message: str, unet: Any) -> None:
    tensors = tensors_of("plus", unet) | random_tensors(changes)
    with pytest.raises(ModelIncompatible, match=f"adapter: expected.*{message}"):
        build_ip_adapter("adapter", tensors, unet, {})


def test_a_missing_weight_is_named(unet: Any) -> None:
    tensors = tensors_of("plus", unet)
    del tensors["image_proj.proj_out.bias"]
    with pytest.raises(ModelIncompatible, match=r"proj_out.bias of shape \(80,\), got None"):
        build_ip_adapter("adapter", tensors, unet, {})


def test_other_kinds_are_refused(unet: Any) -> None:
    other = random_tensors({"image_proj.proj.0.weight": (8, 8)})
    with pytest.raises(ModelIncompatible, match=r"base, plus, .*FaceID.* got a file without"):
        build_ip_adapter("other", other, unet, {})
    with pytest.raises(ModelIncompatible, match="got a file without its weights"):
        build_ip_adapter("lora", random_tensors({"unet.to_q.weight": (8, 8)}), unet, {})


def test_another_encoder_is_refused(unet: Any) -> None:
    adapter = build_ip_adapter("adapter", tensors_of("plus", unet), unet, {})
    other = EncodedImage(torch.zeros(1, 17, 96), torch.zeros(1, 24))
    with pytest.raises(ModelIncompatible, match="hidden_states are 128 wide, got 96"):
        adapter.project(other)
    with pytest.raises(ModelIncompatible, match="expected tokens of 80 numbers, got 64"):
        adapter.attend(torch.zeros(1, 5, 64))


def test_the_negative_tokens_are_a_tensor_called_data(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "negative.safetensors"
    tokens = torch.randn(16, 32).half()
    save_file({"data": tokens}, path)
    torch.testing.assert_close(read_negative(path), tokens.float()[None])
    save_file({"other": tokens}, path)
    with pytest.raises(ModelIncompatible, match="negative.safetensors: .*called data, got other"):
        read_negative(path)


REAL = {
    "sdxl": (plus_shapes(1280, 1280, 2048, count=16), 2048, 70),
    "sd15": (plus_shapes(1280, 768, 768, count=16), 768, 16),
}
"""The plus adapters of the field with the ViT-H encoder."""


def test_the_plus_adapter_has_the_published_size() -> None:
    """The pickled file that Fooocus fetches has 1013454427 bytes: float32 for the resampler, float16 for the matrices."""
    projection, token_width, _ = REAL["sdxl"]
    widths = [640] * 4 + [1280] * 50 + [640] * 6 + [1280] * 10
    shapes = adapter_shapes(projection, widths, token_width)
    size = sum(
        (4 if key.startswith("image_proj") else 2) * torch.Size(shape).numel()
        for key, shape in shapes.items()
    )
    assert 0 < 1013454427 - size < 50_000


@pytest.mark.parametrize("family", REAL)
def test_real_layouts_fit_their_base_models(family: str) -> None:
    from diffusers import UNet2DConditionModel

    projection, token_width, count = REAL[family]
    with torch.device("meta"):
        config = UNet2DConditionModel.load_config(CONFIGS / family / "unet")
        unet = UNet2DConditionModel.from_config(config)
    widths = list(image_layers(unet).values())
    assert len(widths) == count
    shapes = adapter_shapes(projection, widths, token_width)
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    adapter = build_ip_adapter("real", tensors, unet, {})
    image = EncodedImage(
        torch.empty(1, 257, 1280, device="meta"), torch.empty(1, 1024, device="meta")
    )
    tokens = adapter.attend(adapter.project(image))
    assert [tuple(key.shape) for key in tokens.keys] == [(1, 16, width) for width in widths]
