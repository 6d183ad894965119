"""Pictures become image prompts once, whatever asks for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import ModelIncompatible
from engine.conditioning.image_attention import ImagePrompt, image_layers
from engine.conditioning.image_prompt import ImageReader
from engine.models.image_encoders import ImageEncoder
from engine.models.ip_adapters import IPAdapter, build_ip_adapter
from tests.tiny_adapters import (
    ENCODER_WIDTH,
    adapter_shapes,
    plus_shapes,
    random_tensors,
    tiny_encoder,
)

pytestmark = pytest.mark.torch

TEXT_WIDTH = 80
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def adapter(models_dir: Path) -> IPAdapter:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(
        models_dir / "checkpoints" / "tiny" / "unet", use_safetensors=True
    )
    projection = plus_shapes(ENCODER_WIDTH, 64, TEXT_WIDTH, count=5)
    shapes = adapter_shapes(projection, list(image_layers(unet).values()), TEXT_WIDTH)
    return build_ip_adapter("tiny", random_tensors(shapes), unet, {"reference_width": "64"})


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder("tiny", tiny_encoder(), CPU)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)


def read(reader: ImageReader, seed: int = 0, **more: Any) -> ImagePrompt:
    settings: dict[str, Any] = {"weight": 0.6, "stop": 0.5, "formula": "joint"} | more
    return reader.prompt(picture(seed), seed, **settings)


def test_a_picture_is_encoded_projected_and_weighted_once(
    encoder: ImageEncoder, adapter: IPAdapter
) -> None:
    reader = ImageReader(encoder, adapter)
    first = read(reader)
    assert read(reader) is first
    stronger = read(reader, weight=1.0, formula="separate")
    assert stronger.positive is first.positive
    assert stronger.negative is first.negative
    assert (stronger.weight, stronger.formula, stronger.reference_width) == (1.0, "separate", 64)
    other = read(reader, 1)
    assert other.negative is first.negative
    assert not torch.equal(other.positive.keys[0], first.positive.keys[0])


def test_the_adapter_sees_what_the_encoder_says(encoder: ImageEncoder, adapter: IPAdapter) -> None:
    image = read(ImageReader(encoder, adapter))
    expected = adapter.attend(adapter.project(encoder.encode(picture())))
    nothing = adapter.attend(adapter.project(encoder.encode_nothing()))
    for ours, theirs in ((image.positive, expected), (image.negative, nothing)):
        for own, other in zip(ours.values, theirs.values, strict=True):
            torch.testing.assert_close(own, other)


def test_negative_tokens_come_from_a_file_where_there_is_one(
    encoder: ImageEncoder, adapter: IPAdapter
) -> None:
    negative = torch.randn(1, 5, TEXT_WIDTH)
    image = read(ImageReader(encoder, adapter, negative))
    torch.testing.assert_close(image.negative.keys[3], adapter.attend(negative).keys[3])
    wrong = ImageReader(encoder, adapter, torch.randn(1, 5, TEXT_WIDTH - 1))
    with pytest.raises(ModelIncompatible, match="tokens of 80 numbers, got 79"):
        read(wrong)


def test_old_pictures_are_forgotten(encoder: ImageEncoder, adapter: IPAdapter) -> None:
    reader = ImageReader(encoder, adapter)
    first = read(reader, 0)
    for seed in range(1, 9):
        read(reader, seed)
    again = read(reader, 0)
    assert again is not first
    torch.testing.assert_close(again.positive.keys[0], first.positive.keys[0])
