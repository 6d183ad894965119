"""A seed means the same noise everywhere, whatever other images are on their way."""

import pytest
import torch

from engine.sampling.noise import (
    ENERGY_SEEDS,
    brownian_noise,
    draw_noise,
    independent_noise,
    seeded_generator,
)
from tests.golden_data import golden_arrays, golden_json

pytestmark = pytest.mark.torch

PARTS = golden_json("parts.json")
ARRAYS = golden_arrays("parts.npz")
SHAPE = (1, 4, 4, 4)


@pytest.mark.parametrize("case", PARTS.get("noise", []))
def test_initial_noise_golden(case):
    i, shape = case["i"], tuple(case["shape"])
    generator = seeded_generator(case["seed"])
    noise = draw_noise(generator, shape).flatten().numpy()
    first, last = ARRAYS[f"noise{i}_first"], ARRAYS[f"noise{i}_last"]
    assert (noise[: len(first)] == first).all()
    assert (noise[-len(last) :] == last).all()
    step = independent_noise(generator, (6,))(2.0, 1.0).numpy()
    assert (step == ARRAYS[f"noise{i}_next6"]).all()
    kept = seeded_generator((case["seed"] + 1) % ENERGY_SEEDS)
    energy = draw_noise(kept, shape).flatten().numpy()
    assert (energy[: len(first)] == ARRAYS[f"energy{i}_first"]).all()


@pytest.mark.parametrize("case", PARTS.get("brownian", []))
def test_brownian_noise_golden(case):
    noise = brownian_noise(case["seed"], tuple(case["shape"]), tuple(case["interval"]))
    drawn = torch.stack([noise(*query) for query in case["queries"]])
    torch.testing.assert_close(
        drawn, torch.tensor(ARRAYS[f"brown{case['i']}"]), rtol=1e-6, atol=1e-6
    )


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    generator = seeded_generator(1)
    draw_noise(generator, SHAPE)
    independent_noise(generator, SHAPE)(2.0, 1.0)
    brownian_noise(1, SHAPE, (14.0, 0.03, 0.0))(2.0, 1.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_two_images_in_turns_get_what_each_gets_alone():
    a, b = (independent_noise(seeded_generator(seed), SHAPE) for seed in (1, 2))
    turns = [a(2, 1), b(2, 1), a(1, 0.5), b(1, 0.5)]
    alone = independent_noise(seeded_generator(1), SHAPE)
    assert torch.equal(turns[0], alone(2, 1))
    assert torch.equal(turns[2], alone(1, 0.5))


def test_brownian_steps_add_up_along_one_path():
    noise = brownian_noise(3, SHAPE, (4.0, 2.0, 1.0, 0.0))
    whole = noise(4.0, 1.0) * 3**0.5
    parts = noise(4.0, 2.0) * 2**0.5 + noise(2.0, 1.0)
    torch.testing.assert_close(whole, parts)
    assert torch.equal(noise(1.0, 4.0), -noise(4.0, 1.0))


@pytest.mark.parametrize("sigmas", [(14.0, 0.0), (0.0,), ()])
def test_a_schedule_of_one_level_needs_no_brownian_noise(sigmas):
    assert not brownian_noise(1, SHAPE, sigmas)(14.0, 1.0).any()


def test_the_path_stands_still_outside_the_schedule():
    noise = brownian_noise(3, SHAPE, (4.0, 1.0, 0.0))
    assert not noise(9.0, 5.0).any()
    assert not noise(0.5, 0.2).any()
