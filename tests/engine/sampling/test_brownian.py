"""Our Brownian path is torchsde's, number by number, with fewer draws."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.brownian import BrownianPath
from engine.sampling.levels import sdxl_table
from engine.sampling.schedules import schedule

pytestmark = pytest.mark.torch

SHAPE = (1, 4, 2, 3)
LOW, HIGH = 0.0291671771556139, 14.614643096923828
times = st.floats(LOW, HIGH)


def torchsde_tree(seed: int, start: float, end: float):
    torchsde = pytest.importorskip("torchsde")
    return torchsde.BrownianTree(start, torch.zeros(SHAPE), end, entropy=seed)


def inside(path_ends, at: float) -> float:
    # torchsde warns where it is asked beyond its rounded ends.
    return min(max(at, round(path_ends[0], 6)), round(path_ends[1], 6))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**63 - 1), st.lists(st.tuples(times, times), min_size=1, max_size=5))
def test_it_equals_torchsde_bit_by_bit(seed, queries):
    path = BrownianPath(seed, SHAPE, start=LOW, end=HIGH)
    tree = torchsde_tree(seed, LOW, HIGH)
    for query in queries:
        start, end = sorted(inside((LOW, HIGH), at) for at in query)
        assert torch.equal(path.increment(start, end), tree(start, end))


@pytest.mark.parametrize("n", [4, 30])
def test_the_steps_of_a_schedule_equal_torchsdes(n):
    sigmas = schedule("karras", sdxl_table(), n)[:-1]
    path = BrownianPath(5, SHAPE, start=sigmas[-1], end=sigmas[0])
    tree = torchsde_tree(5, sigmas[-1], sigmas[0])
    for high, low in pairwise(sigmas):
        low, high = (inside((sigmas[-1], sigmas[0]), at) for at in (low, high))
        assert torch.equal(path.increment(low, high), tree(low, high))


def test_steps_side_by_side_share_their_draws(monkeypatch):
    sigmas = schedule("karras", sdxl_table(), 30)[:-1]
    path = BrownianPath(5, SHAPE, start=sigmas[-1], end=sigmas[0])
    drawn = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **k: drawn.append(1) or randn(*a, **k))
    for high, low in pairwise(sigmas):
        path.increment(low, high)
    assert len(drawn) < 20 * len(sigmas)


def test_outside_its_ends_it_stands_still():
    path = BrownianPath(1, SHAPE, start=1.0, end=4.0)
    assert not path.increment(0.2, 0.5).any()
    assert not path.increment(5.0, 9.0).any()
    assert torch.equal(path.increment(0.2, 9.0), path.increment(1.0, 4.0))


def test_it_spreads_as_a_brownian_path_does():
    path = BrownianPath(1, (100, 100), start=1.0, end=5.0)
    for start, end in ((1.0, 5.0), (1.3, 2.3), (4.9, 4.95)):
        assert path.increment(start, end).var().item() == pytest.approx(end - start, rel=0.05)
