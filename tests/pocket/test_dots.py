"""Dots are drawn as clear as asked for, are measured as such, and change nothing else."""

from itertools import pairwise

import numpy as np
import pytest

from pocket.dots import RADIUS, dottedness, draw_dotted, lattice
from pocket.draw import draw
from pocket.score import read
from pocket.world import BUCKETS, seen_scenes

FIELDS = ("background", "colour", "shape", "place", "style")


def scenes_of(seed, count):
    known = (s for s in seen_scenes(np.random.default_rng(seed)) if s.size != "small")
    return [next(known) for _ in range(count)]


def test_the_measure_follows_the_strength():
    scenes = scenes_of(1, 12)
    measured = [
        [dottedness(p) for p in draw_dotted(scenes, [s] * 12, np.random.default_rng(2))]
        for s in (0.0, 0.25, 0.5, 1.0)
    ]
    assert max(measured[0]) < 0.02
    for weaker, stronger in pairwise(measured):
        assert all(a < b for a, b in zip(weaker, stronger, strict=True))
    assert min(measured[-1]) > 0.1


def test_without_dots_it_is_the_plain_drawing():
    scenes = scenes_of(3, 4)
    plain = draw(scenes, np.random.default_rng(4))
    dotted = draw_dotted(scenes, [0.0] * 4, np.random.default_rng(4))
    assert np.abs(plain.astype(int) - dotted).max() <= 1


def test_everything_else_is_still_read_rightly():
    scenes = scenes_of(5, 40)
    readings = [read(p) for p in draw_dotted(scenes, [1.0] * 40, np.random.default_rng(6))]
    for field in FIELDS:
        hits = [
            getattr(s, field) == getattr(r, field) for s, r in zip(scenes, readings, strict=True)
        ]
        assert np.mean(hits) >= 0.95, field


@pytest.mark.parametrize("size", BUCKETS)
def test_dots_keep_off_the_border(size):
    middles = np.asarray(list(lattice(*size)))
    assert len(middles) > 12
    assert middles.min() > 6 + RADIUS
    assert (np.asarray(size) - middles).min() > 6 + RADIUS
