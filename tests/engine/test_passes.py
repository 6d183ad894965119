"""An image is sampled in one run, in one that changes hands, or in two; by every kind of UNet."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from engine.conditioning.branch import Branch
from engine.conditioning.size_ids import refiner_ids, size_ids
from engine.geometry import Size
from engine.loop import Denoiser, Running, Setup, step
from engine.passes import Course, Refining, begin
from engine.plan import FreeU, Guidance
from engine.sampling.latent_format import SD15, SDXL
from engine.sampling.listings import listing
from engine.sampling.prediction import model_sampling
from engine.sampling.samplers import SAMPLERS
from engine.sampling.schedules import SCHEDULES

pytestmark = pytest.mark.torch

SIZE = Size(64, 64)
PLAIN = Guidance(guidance_scale=4.0, adaptive_cfg=7.0, sharpness=0.0)
POOLED = 16
IDS = {"sdxl": 6, "sdxl-refiner": 5}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def tiny_unet(family: str, seed: int = 1) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    added = {}
    if family in IDS:
        added = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": POOLED + 8 * IDS[family],
        }
    return UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=24,
        **added,
    ).eval()


def tiny_setup(family: str = "sdxl", *, scheduler: str = "karras", unet=None, **more) -> Setup:
    generator = torch.Generator().manual_seed(3)

    def branch(score: float) -> Branch:
        context = torch.randn((1, 77, 24), generator=generator)
        if family == "sd15":
            return Branch(context, None, None)
        ids = refiner_ids(SIZE, score) if family == "sdxl-refiner" else size_ids(SIZE, 1.5, end=0.3)
        return Branch(context, torch.randn((1, POOLED), generator=generator), ids)

    latent_format = SD15 if family == "sd15" else SDXL
    denoiser = Denoiser(
        unet or tiny_unet(family), model_sampling(scheduler, latent_format=latent_format)
    )
    return Setup(denoiser, branch(6.0), branch(2.5), **more)


def course(**changes) -> Course:
    settings = {
        "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras",
        "steps": 6,
        "strength": 1.0,
        "seed": 7,
        "guidance": PLAIN,
    }
    return Course(**{**settings, **changes})


def start(setup: Setup, refining: Refining | None = None, **changes) -> Running:
    return begin(course(**changes), setup, torch.zeros(1, 4, 8, 8), refining)


def walk(running: Running) -> list[tuple[float, Denoiser, int]]:
    """Run to the end; gives each question's level, who answered it, and the steps so far."""
    seen = []
    while not running.is_done:
        sigma, denoiser = running.asked.sigma, running.denoiser
        step([running])
        seen.append((sigma, denoiser, running.step))
    return seen


class Still(torch.nn.Module):
    """In a UNet's place: predicts half of what it is shown, on any device."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.dtype, self.device = torch.float32, torch.device(device)

    def forward(self, x: Tensor, *args, **kwargs) -> tuple[Tensor]:
        return (x * 0.5,)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_every_sampler_runs_on_every_schedule(sampler, scheduler):
    branch = Branch(torch.zeros(1, 1, 1), None, None)
    setup = Setup(Denoiser(Still(), model_sampling(scheduler)), branch, None)
    running = start(setup, sampler=sampler, scheduler=scheduler, steps=5)
    seen = walk(running)
    assert bool(running.latents.isfinite().all())
    assert 0 < seen[-1][2] <= running.steps


@pytest.mark.parametrize("method", ["joint", "separate", "vae"])
@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde_gpu", "euler_ancestral"])
def test_the_loop_never_waits_for_the_device(method, sampler):
    # Meta tensors have no numbers: reading one, as a wait for a GPU would, is an error.
    branch = Branch(torch.zeros(1, 1, 1, device="meta"), None, None)
    setup = Setup(Denoiser(Still("meta"), model_sampling("karras")), branch, branch)
    guidance = Guidance(guidance_scale=9.0, adaptive_cfg=7.0, sharpness=2.0)
    running = start(
        setup,
        Refining(setup=setup, method=method, switch=3),
        sampler=sampler,
        guidance=guidance,
    )
    walk(running)
    assert running.latents.is_meta


@pytest.mark.parametrize("scheduler", ["DPM++ 2M SDE Karras", "Euler A", "DDIM", "LCM", "TCD"])
def test_the_walks_of_diffusers_never_wait_for_the_device(scheduler):
    walk_down = listing(scheduler, 6, eta=0.5)
    branch = Branch(torch.zeros(1, 1, 1, device="meta"), None, None)
    setup = Setup(Denoiser(Still("meta"), walk_down.model_sampling()), branch, branch)
    running = start(setup, listing=walk_down)
    assert [count for _, _, count in walk(running)] == [1, 2, 3, 4, 5, 6]
    assert running.latents.is_meta


def test_images_of_both_kinds_share_a_call():
    unet = tiny_unet("sdxl")
    plain = tiny_setup(unet=unet)
    walks = [listing(name, 6, sigmas=(9.0, 3.1, 0.4)) for name in ("Euler", "LCM")]
    setups = [replace(plain, denoiser=Denoiser(unet, item.model_sampling())) for item in walks]
    studio = [start(setup, listing=item) for setup, item in zip(setups, walks, strict=True)]
    assert step([start(plain), *studio]) == 1
    assert [image.steps for image in studio] == [3, 3]


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde_gpu", "heun"])
@pytest.mark.parametrize("switch", [0, 2, 5])
def test_joint_hands_over_after_the_first_answer_of_the_step(sampler, switch):
    base, other = tiny_setup(), tiny_setup("sdxl-refiner")
    refining = Refining(setup=other, method="joint", switch=switch)
    running = start(base, refining, sampler=sampler)
    seen = walk(running)
    firsts = [i for i, item in enumerate(seen) if i == 0 or item[2] > seen[i - 1][2]]
    last_of_base = firsts[switch]
    assert [denoiser is base.denoiser for _, denoiser, _ in seen] == [
        i <= last_of_base for i in range(len(seen))
    ]
    assert running.step == running.steps == 6


def test_joint_never_hands_over_past_the_end():
    base, other = tiny_setup(), tiny_setup("sdxl-refiner")
    seen = walk(start(base, Refining(setup=other, method="joint", switch=6)))
    assert all(denoiser is base.denoiser for _, denoiser, _ in seen)


@pytest.mark.parametrize("method", ["separate", "vae"])
@pytest.mark.parametrize("switch", [0, 1, 4, 6, 9])
def test_a_second_run_refines_the_first(method, switch):
    base, other = tiny_setup(), tiny_setup("sdxl-refiner")
    running = start(base, Refining(setup=other, method=method, switch=switch))
    seen = walk(running)
    assert sum(denoiser is base.denoiser for _, denoiser, _ in seen) == min(switch, 6)
    assert [count for _, _, count in seen] == [1, 2, 3, 4, 5, 6]
    assert running.steps == 6
    if 0 < switch < 6:
        left, found = seen[switch - 1][0], seen[switch][0]
        whole = [sigma for sigma, _, _ in walk(start(base))]
        assert left == whole[switch - 1]
        assert found == pytest.approx(whole[switch] * (1.4 if method == "vae" else 1))


def test_separate_without_another_model_is_the_same_road():
    # A sampler without memory does not notice that it was stopped and started.
    base = tiny_setup()
    whole = start(base, sampler="euler_ancestral")
    parts = start(
        base, Refining(setup=base, method="separate", switch=3), sampler="euler_ancestral"
    )
    walk(whole)
    walk(parts)
    assert torch.equal(whole.latents, parts.latents)


def test_an_sd15_refiner_gets_converted_latents_in_its_own_scale():
    base, other = tiny_setup(), tiny_setup("sd15")
    got: list[Tensor] = []

    def convert(latents: Tensor) -> Tensor:
        got.append(latents)
        return latents + 1

    running = start(base, Refining(setup=other, method="vae", switch=3, convert=convert))
    while running.denoiser is base.denoiser:
        step([running])
        clean = running.denoised  # the last of them is where the base model ends
    torch.testing.assert_close(got[0], SDXL.to_vae(clean), rtol=1e-4, atol=1e-3)
    assert running.latent_format is SD15
    walk(running)
    assert bool(running.latents.isfinite().all())


def test_sd15_has_its_own_steps_to_align():
    sigmas = {}
    for family in ("sdxl", "sd15"):
        setup = tiny_setup(family, scheduler="align_your_steps")
        running = start(setup, scheduler="align_your_steps", steps=10, sampler="euler")
        sigmas[family] = [sigma for sigma, _, _ in walk(running)]
    assert sigmas["sdxl"][1] == pytest.approx(6.3184485)
    assert sigmas["sd15"][1] == pytest.approx(6.4745761)


def test_one_unet_is_called_once_for_images_on_different_levels_and_schedules():
    unet = tiny_unet("sdxl")
    plain = tiny_setup(unet=unet)
    edm = tiny_setup(unet=unet, scheduler="edm_playground_v2.5")
    lcm = tiny_setup(unet=unet, scheduler="lcm")
    images = [
        start(plain),
        start(edm, scheduler="edm_playground_v2.5", sampler="heun"),
        start(lcm, scheduler="lcm", sampler="lcm"),
    ]
    assert step(images) == 1


def test_together_each_image_gets_what_it_gets_alone():
    unet = tiny_unet("sdxl")
    setups = [tiny_setup(unet=unet), tiny_setup(unet=unet, scheduler="lcm")]
    settings = [{}, {"scheduler": "lcm", "sampler": "lcm"}]
    alone = [start(setup, **more) for setup, more in zip(setups, settings, strict=True)]
    for image in alone:
        walk(image)
    together = [start(setup, **more) for setup, more in zip(setups, settings, strict=True)]
    while not all(image.is_done for image in together):
        step([image for image in together if not image.is_done])
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.latents, other.latents, rtol=1e-4, atol=1e-4)


def test_images_share_a_call_only_with_the_same_freeu():
    unet = tiny_unet("sdxl")
    freeu = FreeU(b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    plain, changed = tiny_setup(unet=unet), tiny_setup(unet=unet, freeu=freeu)
    alone = [start(plain), start(changed)]
    for image in alone:
        walk(image)
    assert not torch.allclose(alone[0].latents, alone[1].latents)
    images = [start(plain), start(changed), start(changed)]
    assert step(images) == 2
    while not images[0].is_done:
        step(images)
    for image, expected in zip(images, [alone[0], alone[1], alone[1]], strict=True):
        torch.testing.assert_close(image.latents, expected.latents, rtol=1e-4, atol=1e-4)


def test_the_seed_decides_and_compat_keeps_its_path():
    base = tiny_setup(scheduler="edm_playground_v2.5")

    def final(**changes) -> Tensor:
        running = start(base, scheduler="edm_playground_v2.5", **changes)
        walk(running)
        return running.latents

    assert torch.equal(final(), final())
    assert not torch.equal(final(), final(seed=8))
    # Fooocus' Brownian path ends at SDXL's highest level: above it there is no noise.
    assert not torch.equal(final(), final(as_fooocus=True))


def test_a_step_that_is_closed_half_way_stops_asking():
    running = start(tiny_setup())
    step([running])
    running.close()
    assert not running.is_done
