"""Twins: the same object in other colours, and what is cached of them."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

from pocket import twins  # noqa: E402
from pocket.measure_partners import edge_overlap  # noqa: E402
from pocket.score import object_mask  # noqa: E402
from pocket.twins import Twins, draw_chunk, fill_hints, recoloured  # noqa: E402
from pocket.world import BUCKETS, Scene  # noqa: E402

SCENE = Scene("star", "red", "blue", "large", "left", "striped", "plain")


def test_a_recoloured_scene_keeps_the_object():
    rng = np.random.default_rng(0)
    others = [recoloured(rng, SCENE) for _ in range(50)]
    assert {(o.shape, o.size, o.place, o.style) for o in others} == {
        ("star", "large", "left", "striped")
    }
    assert all(other.colour != other.background for other in others)
    assert len({(o.colour, o.background) for o in others}) > 10


def test_twins_stand_where_their_drawings_stand():
    chunk = draw_chunk(0, 3)
    overlaps = []
    for drawing, twin in zip(chunk.drawings[:16], chunk.twins[:16], strict=True):
        one, other = object_mask(drawing), object_mask(twin)
        overlaps.append((one & other).sum() / max(1, (one | other).sum()))
    assert np.median(overlaps) > 0.95
    assert (chunk.drawings != chunk.twins).any()


def test_the_same_numbers_draw_the_same_chunk():
    assert (draw_chunk(1, 2).twins == draw_chunk(1, 2).twins).all()


def test_a_hint_is_added_for_every_drawing(tmp_path):
    (tmp_path / "twins").mkdir()
    for bucket, (width, height) in enumerate(BUCKETS):
        stem = f"{width}x{height}.npy"
        rows = np.asarray([twins.to_row(scene) for scene in draw_chunk(bucket, 0).scenes], np.uint8)
        np.save(tmp_path / "twins" / f"scenes.{stem}", rows)
        np.save(tmp_path / "twins" / f"latents.{stem}", np.zeros((64, 4, 2, 2), np.float16))
    fill_hints(tmp_path, {"red": lambda picture: picture[..., 0]})
    _, scenes, seen = Twins(tmp_path, "red").sample(np.random.default_rng(0), 5, 0)
    reds = draw_chunk(0, 0).twins[..., 0]
    assert len(scenes) == 5
    assert all(any((one == red).all() for red in reds) for one in seen)


def test_edges_of_a_picture_overlap_with_their_own_and_not_with_another():
    drawings = draw_chunk(0, 0).drawings
    assert edge_overlap(drawings[0], drawings[0]) == 1
    moved = np.roll(drawings[0], 2, axis=1)
    far = np.roll(drawings[0], 40, axis=(0, 1))
    assert edge_overlap(moved, drawings[0]) > 0.8
    assert edge_overlap(far, drawings[0]) < 0.5
    assert edge_overlap(np.zeros_like(drawings[0]), drawings[0]) == 0
