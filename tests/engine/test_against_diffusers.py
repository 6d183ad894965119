"""Each scheduler of the LoRA studio gives the latents of diffusers' own pipeline, with the same weights and seed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from engine.conditioning.branch import Branch
from engine.geometry import Size
from engine.loop import Denoiser, Setup, step
from engine.passes import Course, begin
from engine.plan import Guidance
from engine.sampling.levels import diffusers_table
from engine.sampling.listings import listing
from tests.stock_pictures import Sitting, Words, difference
from tests.stock_schedulers import STOCK, stock_scheduler

pytestmark = [
    pytest.mark.torch,
    # Of diffusers' own arithmetic with numpy.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

EQUAL = 1e-4
"""Largest difference of final latents over their standard deviation; 3e-5 was measured."""
POCKET = Path(__file__).parents[2] / "models" / "pocket"
TAKE_TIMESTEPS = (
    *("DPM++ 2M", "DPM++ 2M SDE", "Euler", "Euler (trailing timesteps)"),
    *("LCM", "LCM (trailing timesteps)", "TCD"),
)
"""Those that take timesteps in diffusers."""


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def tiny(models_dir: Path) -> dict[str, Any]:
    """A UNet of random weights, and random words."""
    generator = torch.Generator().manual_seed(3)

    def pair(*shape: int) -> tuple[Tensor, Tensor]:
        return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)

    unet = UNet2DConditionModel.from_pretrained(
        models_dir / "checkpoints" / "tiny" / "unet", use_safetensors=True
    )
    return {"unet": unet.eval(), "words": Words(pair(1, 77, 80), pair(1, 40))}


@pytest.fixture(scope="module")
def pocket() -> dict[str, Any]:
    """The pocket model, and a prompt that it knows."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(POCKET, use_safetensors=True).to(
        torch.float32
    )
    with torch.inference_mode():
        positive, negative, pooled, pooled_negative = pipeline.encode_prompt(
            "a large red star on a blue background"
        )
    words = Words((negative, positive), (pooled_negative, pooled))
    return {"unet": pipeline.unet.eval(), "words": words, "size": Size(128, 128)}


def is_equal(sitting: Sitting) -> bool:
    ours, theirs = sitting.by_us(), sitting.by_diffusers()
    assert theirs.isfinite().all()
    return difference(ours, theirs) < EQUAL


@pytest.mark.parametrize("scheduler", STOCK)
def test_latents_are_those_of_diffusers(tiny, scheduler):
    assert is_equal(Sitting(**tiny, scheduler=scheduler))


@pytest.mark.parametrize("scheduler", STOCK)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_zero_snr_and_velocities_are_those_of_diffusers(tiny, scheduler, prediction_type):
    assert is_equal(
        Sitting(
            **tiny,
            scheduler=scheduler,
            steps=3,
            prediction_type=prediction_type,
            is_zero_snr=True,
        )
    )


@pytest.mark.parametrize("scheduler", ["Euler", "DPM++ 2M SDE", "DDIM", "LCM", "TCD"])
def test_velocities_alone(tiny, scheduler):
    assert is_equal(
        Sitting(**tiny, scheduler=scheduler, steps=3, prediction_type="v_prediction", eta=0.4)
    )


@pytest.mark.parametrize("scheduler", ["Euler (trailing timesteps)", "DDIM", "LCM", "TCD"])
def test_one_step(tiny, scheduler):
    assert is_equal(Sitting(**tiny, scheduler=scheduler, steps=1, eta=0.5))


@pytest.mark.parametrize("scheduler", ["DDIM", "TCD"])
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_eta_brings_diffusers_noise(tiny, scheduler, eta):
    noisy = Sitting(**tiny, scheduler=scheduler, eta=eta)
    assert is_equal(noisy)
    assert difference(noisy.by_us(), Sitting(**tiny, scheduler=scheduler).by_us()) > 0.1


@pytest.mark.parametrize("scheduler", sorted(STOCK.keys() - {"DDIM", "TCD"}))
def test_eta_is_of_no_effect_elsewhere(tiny, scheduler):
    plain, asked = (Sitting(**tiny, scheduler=scheduler, steps=2, eta=eta) for eta in (0.0, 1.0))
    assert torch.equal(plain.by_us(), asked.by_us())


@pytest.mark.parametrize("scheduler", TAKE_TIMESTEPS)
def test_own_timesteps_are_walked_as_in_diffusers(tiny, scheduler):
    timesteps = (999, 850, 500, 90, 0)
    assert is_equal(Sitting(**tiny, scheduler=scheduler, timesteps=timesteps, eta=0.3))


@pytest.mark.parametrize("scheduler", ["Euler", "Euler (trailing timesteps)"])
def test_own_levels_are_walked_as_in_diffusers(tiny, scheduler):
    assert is_equal(Sitting(**tiny, scheduler=scheduler, sigmas=(14.6, 3.3, 0.7, 0.1)))


@pytest.mark.parametrize("scheduler", ["Euler", "DPM++ 2M Karras", "DDIM", "LCM"])
def test_the_pocket_model_gives_diffusers_latents(pocket, scheduler):
    assert is_equal(Sitting(**pocket, scheduler=scheduler))


class Gaussian(torch.nn.Module):
    """In a UNet's place: knows that clean latents are normal numbers, and predicts their noise as well as can be."""

    MEAN, DEVIATION = 0.7, 0.5

    def __init__(self) -> None:
        super().__init__()
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def forward(self, x: Tensor, timesteps: Tensor, **told: Any) -> tuple[Tensor]:
        sigma = diffusers_table().sigma(float(timesteps.max()))
        signal = 1 / (1 + sigma**2) ** 0.5
        spread = (signal * self.DEVIATION) ** 2 + (signal * sigma) ** 2
        clean = self.MEAN + self.DEVIATION**2 * signal / spread * (x - signal * self.MEAN)
        return ((x - signal * clean) / (signal * sigma),)


def sample(scheduler: str, eta: float, seed: int) -> Tensor:
    walk = listing(scheduler, 12, eta=eta)
    course = Course(
        sampler=scheduler,
        scheduler="diffusers",
        steps=12,
        strength=1.0,
        seed=seed,
        guidance=Guidance(guidance_scale=1.0, adaptive_cfg=1.0, sharpness=0.0),
        listing=walk,
    )
    branch = Branch(torch.zeros(1, 1, 1), None, None)
    setup = Setup(Denoiser(Gaussian(), walk.model_sampling()), branch, None)
    running = begin(course, setup, torch.zeros(1, 4, 96, 96))
    while not running.is_done:
        step([running])
    return running.latents


def stock_sample(scheduler: str, eta: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    stock, unet = stock_scheduler(scheduler), Gaussian()
    stock.set_timesteps(12)
    x = torch.randn((1, 4, 96, 96), generator=generator) * stock.init_noise_sigma
    more = {"eta": eta} if scheduler in ("DDIM", "TCD") else {}
    for timestep in stock.timesteps:
        (answer,) = unet(stock.scale_model_input(x, timestep), timestep)
        x = stock.step(answer, timestep, x, generator=generator, **more).prev_sample
    return x


@pytest.mark.parametrize(
    ("scheduler", "eta"),
    [
        *((name, 0.0) for name in ("DPM++ 2M SDE", "DPM++ 2M SDE Karras", "Euler A", "LCM")),
        *(("DDIM", 1.0), ("TCD", 0.3), ("TCD", 1.0)),
    ],
)
def test_new_noise_gives_diffusers_distribution(scheduler, eta):
    # 36,864 independent numbers each: five standard errors of a mean are 0.026 deviations, of a deviation 1.8 %.
    ours, theirs = sample(scheduler, eta, seed=1), stock_sample(scheduler, eta, seed=2)
    assert abs(ours.mean() - theirs.mean()) < 0.04 * theirs.std()
    assert float(ours.std() / theirs.std()) == pytest.approx(1, abs=0.03)
    assert difference(ours, stock_sample(scheduler, eta, seed=1)) < EQUAL
    together = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]
    assert abs(float(together)) < 0.05
