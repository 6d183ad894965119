"""The world is a law: the same seed gives the same scenes, words and pixels, and what is reserved stays so."""

import numpy as np
import pytest

from pocket.captions import full_caption, random_caption, surround
from pocket.draw import draw
from pocket.world import (
    BUCKETS,
    COLOURS,
    PLACES,
    SHAPES,
    STYLES,
    Scene,
    random_scene,
    seen_scenes,
    unseen_scenes,
)


def first(source, count):
    return [next(source) for _ in range(count)]


def test_the_world_is_wide_enough():
    assert len(COLOURS) >= 8
    assert len(SHAPES) >= 6
    assert len(PLACES) >= 5
    assert len(STYLES) >= 3


def test_buckets_are_a_square_a_portrait_and_a_landscape_in_steps_of_sixteen():
    assert BUCKETS[0] == (128, 128)
    assert any(width < height for width, height in BUCKETS)
    assert any(width > height for width, height in BUCKETS)
    assert all(side % 16 == 0 for bucket in BUCKETS for side in bucket)


def test_same_seed_gives_the_same_scenes_words_and_pixels():
    def everything(seed):
        rng = np.random.default_rng(seed)
        scenes = first(seen_scenes(rng), 8)
        return scenes, [random_caption(rng, s) for s in scenes], draw(scenes, rng).tobytes()

    assert everything(4) == everything(4)
    assert everything(4) != everything(5)


def test_training_never_sees_what_is_reserved():
    rng = np.random.default_rng(0)
    for scene in first(seen_scenes(rng), 500):
        assert not scene.reserved
    assert all(scene.reserved for scene in first(unseen_scenes(rng), 50))


def test_no_object_has_its_background_colour():
    rng = np.random.default_rng(0)
    assert all(s.colour != s.background for s in (random_scene(rng) for _ in range(300)))


@pytest.mark.parametrize("size", BUCKETS)
def test_a_drawing_has_the_size_that_was_asked_for(size):
    picture = draw(
        [Scene("star", "red", "blue")], np.random.default_rng(0), width=size[0], height=size[1]
    )
    assert picture.shape == (1, size[1], size[0], 3)
    assert picture.dtype == np.uint8


def test_drawing_nothing_is_refused():
    with pytest.raises(ValueError, match="^scenes: expected at least one, got none$"):
        draw([], np.random.default_rng(0))


def test_a_complete_caption_names_every_part_of_the_scene():
    rng = np.random.default_rng(1)
    scene = Scene("triangle", "red", "blue", size="large", place="left", style="striped")
    for _ in range(30):
        text = full_caption(rng, scene, complete=True).text
        assert all(word in text for word in ("triangle", "red", "blue", "left", "strip"))
        assert any(word in text for word in ("large", "big", "huge"))


def test_distractors_leave_the_sentence_whole():
    rng = np.random.default_rng(2)
    for _ in range(30):
        assert "a red star" in surround(rng, "a red star")
