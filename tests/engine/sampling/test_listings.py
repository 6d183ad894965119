"""Levels, timesteps and the first noise are those of diffusers' schedulers, to the last bit."""

import math
from typing import get_args

import pytest
import torch

from engine.errors import InvalidRequest
from engine.sampling.levels import LARGEST_SIGMA, diffusers_table, sdxl_table
from engine.sampling.listings import listing
from engine.studio import StudioScheduler
from tests.stock_schedulers import STOCK, stock_scheduler

pytestmark = [
    pytest.mark.torch,
    # Of diffusers' own arithmetic with numpy.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

STEPS = (1, 2, 3, 7, 20, 30, 48, 50, 61, 96, 99, 150)
DISTILLED = ("LCM", "LCM (trailing timesteps)", "TCD")
KARRAS = ("DPM++ 2M Karras", "DPM++ 2M SDE Karras")


def test_all_of_fals_names_are_there():
    assert set(get_args(StudioScheduler)) == set(STOCK)


@pytest.mark.parametrize("is_zero_snr", [False, True])
@pytest.mark.parametrize("scheduler", STOCK)
def test_lists_are_those_of_diffusers(scheduler, is_zero_snr):
    stock = stock_scheduler(scheduler, is_zero_snr=is_zero_snr)
    for n in STEPS:
        if scheduler in DISTILLED and n > 50:
            continue
        stock.set_timesteps(n)
        ours = listing(scheduler, n, is_zero_snr=is_zero_snr)
        timesteps = stock.timesteps[:n]  # at 61 steps trailing ones have one more, at -1
        assert ours.levels.timesteps == tuple(timesteps.tolist())
        if hasattr(stock, "sigmas"):
            sigmas = stock.sigmas[:n]
        else:
            alphas = stock.alphas_cumprod[timesteps]
            sigmas = ((1 - alphas) / alphas).sqrt()
        assert ours.sigmas == (*sigmas.tolist(), 0.0)
        scale = float(stock.init_noise_sigma)
        if "Euler" not in scheduler:  # these know latents at variance 1
            scale *= math.sqrt(1 + ours.sigmas[0] ** 2)
        assert ours.start_scale == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("scheduler", sorted(STOCK.keys() - set(KARRAS) - {"DDIM", "Euler A"}))
def test_own_timesteps_are_read_as_in_diffusers(scheduler):
    stock = stock_scheduler(scheduler)
    stock.set_timesteps(timesteps=[999, 431, 17])
    ours = listing(scheduler, 30, timesteps=(999, 431, 17))
    assert ours.levels.timesteps == tuple(stock.timesteps.tolist())
    if hasattr(stock, "sigmas"):
        assert ours.sigmas == tuple(stock.sigmas.tolist())


def test_own_levels_are_read_as_in_diffusers():
    stock, sigmas = stock_scheduler("Euler"), (20.0, 5.5, 0.3, 0.01)
    stock.set_timesteps(sigmas=[*sigmas, 0.0])
    ours = listing("Euler", 30, sigmas=sigmas)
    assert ours.sigmas == tuple(stock.sigmas.tolist())
    assert ours.levels.timesteps == pytest.approx(stock.timesteps.tolist(), rel=1e-6)
    assert ours.sigmas == listing("Euler", 30, sigmas=(*sigmas, 0.0)).sigmas


@pytest.mark.parametrize("scheduler", STOCK)
def test_a_list_replaces_every_spacing(scheduler):
    timesteps = listing(scheduler, 30, timesteps=(800, 20), is_zero_snr=True)
    table = diffusers_table(is_zero_snr=True).sigmas
    assert timesteps.sigmas == (float(table[800]), float(table[20]), 0.0)
    assert timesteps.levels.timesteps == (800, 20)
    sigmas = listing(scheduler, 30, sigmas=(8.0, 1.0))
    assert sigmas.sigmas == (8.0, 1.0, 0.0)
    is_rounded = "Euler" not in scheduler
    assert all(told.is_integer() == is_rounded for told in sigmas.levels.timesteps)


def test_what_cannot_be_listed_is_refused():
    with pytest.raises(InvalidRequest, match=r"^studio\.timesteps: expected falling numbers"):
        listing("Euler", 30, timesteps=(1, 2))
    with pytest.raises(InvalidRequest, match=r"^studio\.num_inference_steps: expected at most 50"):
        listing("TCD", 60)


def test_shares_are_counted_in_steps():
    levels = listing("Euler", 10).levels
    assert [levels.percent_to_sigma(share) for share in (-0.01, 0.0, 0.3, 0.9, 1.0)] == [
        LARGEST_SIGMA,
        levels.sigmas[0],
        levels.sigmas[3],
        levels.sigmas[9],
        0.0,
    ]


def test_the_table_is_sdxls_in_float32():
    table = diffusers_table()
    assert not torch.equal(table.sigmas, sdxl_table().sigmas)
    torch.testing.assert_close(table.sigmas, sdxl_table().sigmas, rtol=2e-5, atol=0)
    rescaled = diffusers_table(is_zero_snr=True)
    assert rescaled.sigma_max == pytest.approx(4096)
    assert rescaled.sigma_min == pytest.approx(table.sigma_min, rel=1e-4)


@pytest.mark.parametrize("timestep", [0.0, 0.25, 431.5, 999.0])
def test_levels_between_entries_have_timesteps_between(timestep):
    table = diffusers_table()
    assert table.timestep_between(table.sigma(timestep)) == pytest.approx(timestep, abs=1e-2)
    assert (table.timestep_between(0.001), table.timestep_between(99.0)) == (0, 999)


@pytest.mark.parametrize(
    ("sigmas", "last"), [((5.0,), diffusers_table().sigma_min), ((5.0, 0.01), 0.01)]
)
def test_ddim_ends_at_the_lowest_level_and_never_goes_up(sigmas, last):
    down = listing("DDIM", 1, sigmas=sigmas)
    x = torch.full((1, 4, 2, 2), 5.0)
    run = down.sampler.run(x, down.sigmas, lambda *_: x, down.levels)
    next(run)
    final = x
    try:
        while True:
            run.send(torch.zeros_like(x))
    except StopIteration as end:
        final = end.value
    assert float(final.mean()) == pytest.approx(last / math.hypot(1, last), rel=1e-3)
