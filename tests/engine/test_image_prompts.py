"""Images that follow image prompts walk together, and one that follows nothing is the same as without any, to the last bit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.conditioning.branch import Branch
from engine.conditioning.image_attention import ImagePrompt, ImageTokens, image_layers
from engine.conditioning.size_ids import size_ids
from engine.geometry import Size
from engine.loop import Denoiser, Running, Setup, step
from engine.passes import Course, begin
from engine.plan import Guidance
from engine.sampling.prediction import model_sampling

pytestmark = pytest.mark.torch

STEPS = 4


@pytest.fixture(scope="module")
def unet(models_dir: Path) -> Any:
    from diffusers import UNet2DConditionModel

    torch.set_num_threads(1)
    folder = models_dir / "checkpoints" / "tiny" / "unet"
    return UNet2DConditionModel.from_pretrained(folder, use_safetensors=True).eval()


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prompt(unet: Any, seed: int, **more: Any) -> ImagePrompt:
    def tokens(seed: int) -> ImageTokens:
        widths = image_layers(unet).values()
        return ImageTokens(
            tuple(drawn(seed + i, 1, 4, width) for i, width in enumerate(widths)),
            tuple(drawn(seed - i, 1, 4, width) for i, width in enumerate(widths)),
        )

    settings: dict[str, Any] = {"weight": 1.0, "reference_width": 64} | more
    return ImagePrompt(positive=tokens(seed), negative=tokens(seed + 500), **settings)


def start(unet: Any, prompts: Sequence[ImagePrompt], seed: int) -> Running:

    sides = [
        Branch(drawn(side, 1, 7, 80), drawn(side, 1, 40), size_ids(Size(64, 64), 1.0, end=0.3))
        for side in (1, 2)
    ]
    setup = Setup(Denoiser(unet, model_sampling("karras")), *sides, image_prompts=prompts)
    course = Course(
        sampler="euler",
        scheduler="karras",
        steps=STEPS,
        strength=1.0,
        seed=seed,
        guidance=Guidance(guidance_scale=4.0, adaptive_cfg=7.0, sharpness=2.0),
    )
    return begin(course, setup, torch.zeros(1, 4, 8, 8))


def walk(*images: Running) -> list[int]:
    """Run images to their end together; gives the UNet calls of each step."""
    calls = []
    while not all(image.is_done for image in images):
        calls.append(step([image for image in images if not image.is_done]))
    return calls


@pytest.mark.parametrize("settings", [{"weight": 0.0}, {"stop": 0.0}], ids=["weight", "stop"])
def test_a_slot_that_is_off_equals_no_slot(settings: dict[str, float], unet: Any) -> None:
    plain, off, on = (
        start(unet, prompts, 7)
        for prompts in ((), (prompt(unet, 1, **settings),), (prompt(unet, 1),))
    )
    for image in (plain, on, off):
        walk(image)
    assert torch.equal(off.latents, plain.latents)
    assert not torch.allclose(on.latents, plain.latents, atol=1e-3)


def test_jobs_of_other_images_share_calls_until_one_stops(unet: Any) -> None:
    def jobs() -> list[Running]:
        return [
            start(unet, [prompt(unet, 1, weight=0.4, stop=0.5)], 7),
            start(unet, [prompt(unet, 20)], 8),
        ]

    together, alone = jobs(), jobs()
    calls = walk(*together)
    for ours, own in zip(together, alone, strict=True):
        walk(own)
        torch.testing.assert_close(ours.latents, own.latents, rtol=1e-3, atol=1e-3)
    assert calls[0] == 1
    assert 2 in calls


def test_two_images_both_count(unet: Any) -> None:
    first, second = prompt(unet, 1), prompt(unet, 20)
    both, one, other = (start(unet, item, 7) for item in ((first, second), (first,), (second,)))
    for image in (both, one, other):
        walk(image)
    assert not torch.allclose(both.latents, one.latents, atol=1e-3)
    assert not torch.allclose(both.latents, other.latents, atol=1e-3)
