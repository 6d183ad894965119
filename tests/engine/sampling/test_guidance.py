"""Guidance is classifier-free guidance with Fooocus' sharpness and adaptive scale, image by image."""

import pytest
import torch
from torch import Tensor

from engine.plan import Guidance
from engine.sampling.guidance import Estimates, guide, joint_bilateral_filter
from tests.golden_data import golden_arrays, golden_json

pytestmark = pytest.mark.torch

CASES = golden_json("parts.json").get("cfg", [])
ARRAYS = {key: torch.tensor(value) for key, value in golden_arrays("parts.npz").items()}


def noisy(seed: int, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(seed))


def estimates(
    seed: int, w: float = 4.0, sharpness: float = 2.0, progress: float = 0.5
) -> Estimates:
    guidance = Guidance(guidance_scale=w, adaptive_cfg=3.0, sharpness=sharpness)
    negative = noisy(seed + 2) if guidance.needs_negative else None
    return Estimates(noisy(seed), noisy(seed + 1), negative, progress, guidance)


@pytest.mark.parametrize(
    "i", range(sum(key.startswith("filter") and key.endswith("_x") for key in ARRAYS))
)
def test_filter_golden(i):
    filtered = joint_bilateral_filter(ARRAYS[f"filter{i}_x"], ARRAYS[f"filter{i}_g"])
    torch.testing.assert_close(filtered, ARRAYS[f"filter{i}_out"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_guidance_golden(case):
    guidance = Guidance(
        guidance_scale=case["cfg_scale"],
        adaptive_cfg=case["adaptive_cfg"],
        sharpness=case["sharpness"],
    )
    image = Estimates(
        x=ARRAYS["cfg_x"],
        positive=ARRAYS["cfg_x0_pos"],
        negative=ARRAYS["cfg_x0_neg"] if guidance.needs_negative else None,
        progress=case["progress"],
        guidance=guidance,
    )
    (guided,) = guide([image])
    torch.testing.assert_close(guided, ARRAYS[f"cfg{case['i']}_out"], rtol=1e-5, atol=1e-5)
    epsilon = (image.x - guided) / case["sigma"]
    torch.testing.assert_close(epsilon, ARRAYS[f"cfg{case['i']}_eps_record"], rtol=1e-5, atol=1e-5)


def test_guidance_worked_by_hand():
    # e+ = 1, e- = 3: at scale 4 e = 3 + 4 (1 - 3) = -5; at the adaptive scale 2 e = -1; half-way e = -3.
    x, positive, negative = torch.tensor([5.0]), torch.tensor([4.0]), torch.tensor([2.0])
    plain = Guidance(guidance_scale=4.0, adaptive_cfg=7.0, sharpness=0.0)
    adaptive = Guidance(guidance_scale=4.0, adaptive_cfg=2.0, sharpness=0.0)
    images = [Estimates(x, positive, negative, 0.5, guidance) for guidance in (plain, adaptive)]
    assert [guided.item() for guided in guide(images)] == [10.0, 8.0]


def test_without_a_negative_the_positive_estimate_is_given_back():
    image = estimates(1, w=1.0, sharpness=30.0)
    assert guide([image])[0] is image.positive


@pytest.mark.parametrize(("sharpness", "progress"), [(0.0, 1.0), (30.0, 0.0)])
def test_the_filter_is_left_out_where_it_has_no_share(sharpness, progress):
    # Latents this small would be refused by the filter.
    guidance = Guidance(guidance_scale=4.0, adaptive_cfg=7.0, sharpness=sharpness)
    tiny = torch.ones(1, 4, 2, 2)
    assert guide([Estimates(tiny, tiny, tiny, progress, guidance)])[0].shape == tiny.shape


def test_images_guided_together_equal_images_guided_alone():
    images = [
        estimates(10, sharpness=2.0),
        estimates(20, w=1.0),
        estimates(30, sharpness=0.0),
        estimates(40, w=9.0, sharpness=30.0, progress=0.9),
    ]
    together = guide(images)
    for image, guided in zip(images, together, strict=True):
        assert torch.equal(guided, guide([image])[0])


@pytest.mark.parametrize(("height", "width"), [(9, 11), (16, 24), (33, 7)])
def test_filtered_together_equals_filtered_alone(height, width):
    pairs = [(noisy(i, height, width), noisy(i + 9, height, width)) for i in range(3)]
    together = joint_bilateral_filter(*(torch.cat(part) for part in zip(*pairs, strict=True)))
    for i, pair in enumerate(pairs):
        assert torch.equal(together[i], joint_bilateral_filter(*pair)[0])


def test_the_filter_keeps_flat_latents_flat():
    flat = torch.full((1, 4, 12, 12), 3.0)
    torch.testing.assert_close(joint_bilateral_filter(flat, noisy(1, 12, 12)), flat)


def test_the_filter_keeps_the_edges_of_the_guide():
    edge = torch.zeros(1, 4, 16, 16)
    edge[..., 8:] = 1.0
    kept = joint_bilateral_filter(edge, edge * 100)
    blurred = joint_bilateral_filter(edge, torch.zeros_like(edge))
    assert (kept - edge).abs().max() < 0.2
    assert (blurred - edge).abs().max() > 0.3


def test_latents_too_small_for_the_filter_are_refused():
    small = torch.zeros(1, 4, 6, 9)
    with pytest.raises(ValueError, match=r"^latents: expected sides above 6 cells, got 9x6$"):
        joint_bilateral_filter(small, small)
