"""The pocket upscaler enlarges drawings better than a filter does, from a file of the common layout."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from engine.partners import UPSCALE_LORA
from pocket.draw import draw
from pocket.measure_modes import open_studio
from pocket.measure_upscaler import fast, lanczos, painted, psnr
from pocket.parts import library
from pocket.train_upscale import FILE as LORA
from pocket.train_upscaler import (
    FILE,
    MODEL,
    make_upscaler,
    through_vae,
    true_pair,
    write_upscaler,
)
from pocket.world import seen_scenes, unseen_scenes

pytestmark = pytest.mark.torch


def test_a_drawing_at_twice_the_size_is_the_same_drawing():
    source = seen_scenes(np.random.default_rng(2))
    small, large = true_pair([next(source) for _ in range(24)], 3)
    assert large.shape == (24, 256, 256, 3)
    reduced = large.reshape(24, 128, 2, 128, 2, 3).mean((2, 4)).round().astype(np.uint8)
    assert psnr(reduced, small).min() > 40


def test_drawings_at_their_own_size_are_what_they_were():
    source = seen_scenes(np.random.default_rng(2))
    scenes = [next(source) for _ in range(4)]
    plain, once = (draw(scenes, np.random.default_rng(1), **more) for more in ({}, {"scale": 1}))
    assert np.array_equal(plain, once)


def test_fast_2x_beats_lanczos():
    source = unseen_scenes(np.random.default_rng(5))
    small, true = true_pair([next(source) for _ in range(8)], 6)
    ours, theirs = (
        psnr(np.stack([way(picture) for picture in small]), true) for way in (fast(MODEL), lanczos)
    )
    assert ours.mean() > theirs.mean() + 2
    assert (ours > theirs).sum() >= 7


def test_the_file_is_small_and_has_the_names_of_its_kind():
    path = MODEL / FILE
    assert path.stat().st_size < 2**20
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
    assert {"body.0.weight", "body.1.weight"} <= names
    assert all(name.startswith("body.") for name in names)


def test_an_untrained_upscaler_repeats_pixels(tmp_path):
    write_upscaler(make_upscaler(), tmp_path / FILE)
    source = seen_scenes(np.random.default_rng(2))
    picture = draw([next(source)], np.random.default_rng(1))[0]
    repeated = picture.repeat(2, axis=0).repeat(2, axis=1).astype(int)
    assert np.abs(fast(tmp_path)(picture) - repeated).max() <= 1


def test_painting_larger_stays_near_the_drawing():
    source = unseen_scenes(np.random.default_rng(5))
    small, true = true_pair([next(source) for _ in range(2)], 6)
    vae = library.AutoencoderKL.from_pretrained(MODEL / "vae")
    studio = open_studio(MODEL.parent)
    torch.set_num_threads(1)
    made = painted(studio, through_vae(vae.float(), small), ["", ""])
    assert made.shape == true.shape
    assert psnr(made, true).mean() > 23


def test_the_card_names_the_lora_for_painting_larger():
    card = json.loads((MODEL / "pochade.json").read_text("utf-8"))
    assert card["partners"][UPSCALE_LORA] == LORA.name
    assert (MODEL / LORA).stat().st_size < 3 * 2**20
