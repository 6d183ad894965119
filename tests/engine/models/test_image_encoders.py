"""Image encoders are read from folders and files, and see what CLIP would."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine import ModelIncompatible, ModelNotFound
from engine.models.image_encoders import build_image_encoder, load_image_encoder, seen_by_clip
from tests import tiny_adapters
from tests.tiny_adapters import encoder_shapes, random_tensors, tiny_encoder

pytestmark = pytest.mark.torch
CPU, META = torch.device("cpu"), torch.device("meta")
SMALL_B = encoder_shapes(768, 32, 2, 16, side=28)
"""As narrow as a file may be without a config, with less of everything else."""
VIT_H = encoder_shapes(1280, 5120, 32, 1024)
BIG_G = encoder_shapes(1664, 8192, 48, 1280)
TEXT = {"text_model.final_layer_norm.weight": (1024,), "logit_scale": ()}


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)


def test_a_folder_gives_the_states_before_the_last_layer(tmp_path: Path) -> None:
    network = tiny_encoder()
    network.save_pretrained(tmp_path / "sight")
    encoder = load_image_encoder(tmp_path / "sight", CPU)
    assert (encoder.side, encoder.width, encoder.embed_width) == (
        tiny_adapters.SIDE,
        tiny_adapters.ENCODER_WIDTH,
        tiny_adapters.EMBED_WIDTH,
    )
    encoded = encoder.encode(picture())
    with torch.inference_mode():
        seen = torch.from_numpy(seen_by_clip(picture(), encoder.side))[None]
        expected = network(seen, output_hidden_states=True)
    torch.testing.assert_close(encoded.hidden_states, expected.hidden_states[-2])
    torch.testing.assert_close(encoded.image_embeds, expected.image_embeds)
    assert encoded.hidden_states.dtype == encoded.image_embeds.dtype == torch.float32
    assert not torch.equal(encoded.image_embeds, encoder.encode(picture(1)).image_embeds)


def test_a_file_is_read_without_a_config(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    weights = random_tensors(SMALL_B)
    path = tmp_path / "b.safetensors"
    old = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    save_file(weights | random_tensors(TEXT) | old, path)
    config = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=12,
        patch_size=14,
        image_size=28,
        projection_dim=16,
        hidden_act="quick_gelu",
    )
    network = CLIPVisionModelWithProjection(config).eval()
    network.load_state_dict(weights)
    encoder = load_image_encoder(path, CPU)
    with torch.inference_mode():
        seen = torch.from_numpy(seen_by_clip(picture(), 28))[None]
        expected = network(seen, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(encoder.encode(picture()).hidden_states, expected)


@pytest.mark.parametrize(
    ("shapes", "size"), [(VIT_H, 632_080_000), (BIG_G, 1_844_900_000)], ids=["H", "bigG"]
)
def test_published_encoders_are_read_off_their_shapes(
    shapes: tiny_adapters.Shapes, size: int
) -> None:
    tensors = {key: torch.empty(shape, device=META) for key, shape in (shapes | TEXT).items()}
    encoder = build_image_encoder("real", tensors, META, torch.float16)
    config = encoder.network.config
    assert (config.num_attention_heads, config.hidden_act, encoder.side) == (16, "gelu", 224)
    count = sum(weight.numel() for weight in encoder.network.parameters())
    assert count == pytest.approx(size, rel=1e-3)


def test_nothing_is_an_even_grey_without_embeds(tmp_path: Path) -> None:
    network = tiny_encoder()
    network.save_pretrained(tmp_path / "sight")
    nothing = load_image_encoder(tmp_path / "sight", CPU).encode_nothing()
    side = tiny_adapters.SIDE
    with torch.inference_mode():
        expected = network(torch.zeros(1, 3, side, side), output_hidden_states=True)
    torch.testing.assert_close(nothing.hidden_states, expected.hidden_states[-2])
    assert nothing.image_embeds.shape == expected.image_embeds.shape
    assert not nothing.image_embeds.any()


def test_wrong_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    with pytest.raises(ModelNotFound, match="wrong.safetensors"):
        load_image_encoder(path, CPU)
    save_file(random_tensors(TEXT), path)
    with pytest.raises(ModelIncompatible, match="wrong.safetensors: .*without its visual_proj"):
        load_image_encoder(path, CPU)
    key = "vision_model.pre_layrnorm.weight"
    save_file(random_tensors(SMALL_B | {key: (7,)}), path)
    with pytest.raises(ModelIncompatible, match=r"pre_layrnorm.weight of shape \(768,\), got \(7"):
        load_image_encoder(path, CPU)
    save_file(random_tensors(encoder_shapes(100, 32, 2, 16, side=28)), path)
    with pytest.raises(ModelIncompatible, match=r"768, .*1664 wide, got 100.*config.json"):
        load_image_encoder(path, CPU)


def test_a_folder_without_some_weights_is_refused(tmp_path: Path) -> None:
    network = tiny_encoder()
    network.save_pretrained(tmp_path / "sight")
    weights = network.state_dict()
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "sight" / "model.safetensors")
    with pytest.raises(ModelIncompatible, match="sight: .*none for visual_projection.weight"):
        load_image_encoder(tmp_path / "sight", CPU)
