"""The scorer reads true drawings rightly from their pixels alone."""

import numpy as np
import pytest

from pocket.draw import draw
from pocket.score import read
from pocket.world import BUCKETS, seen_scenes

FIELDS = ("background", "colour", "shape", "place", "size", "style")


@pytest.mark.parametrize("size", BUCKETS)
def test_true_drawings_are_read_rightly(size):
    rng = np.random.default_rng(42)
    known = (s for s in seen_scenes(rng) if s.size != "small")
    scenes = [next(known) for _ in range(60)]
    pictures = draw(scenes, rng, width=size[0], height=size[1])
    readings = [read(picture) for picture in pictures]
    for field in FIELDS:
        hits = [
            getattr(s, field) == getattr(r, field) for s, r in zip(scenes, readings, strict=True)
        ]
        assert np.mean(hits) >= 0.95, field


def test_an_empty_picture_has_only_a_background():
    reading = read(np.full((128, 128, 3), (34, 84, 224), np.uint8))
    assert reading.background == "blue"
    assert reading.shape is None
