"""The partners that ship: small, whole, and doing in pictures what they are for."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from pocket.export import PARTNERS  # noqa: E402
from pocket.measure_modes import open_studio  # noqa: E402
from pocket.measure_partners import (  # noqa: E402
    edge_overlap,
    follow,
    make_cases,
    of_two,
    share,
)
from pocket.score import read  # noqa: E402
from pocket.train import MODEL  # noqa: E402

CASES = 6
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def studio():
    studio = open_studio(MODEL.parent)
    torch.set_num_threads(1)
    return studio


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return make_cases(CASES, tmp_path_factory.mktemp("drawings"))


def files() -> list[Path]:
    places = [MODEL / place for place in PARTNERS.values()]
    return [f for p in places for f in (p.rglob("*") if p.is_dir() else [p]) if f.is_file()]


def test_files_are_small():
    sizes = [file.stat().st_size for file in files()]
    assert max(sizes) < 16 * MIB
    assert sum(sizes) < 25_000_000


def test_the_card_names_files_that_are_there():
    card = json.loads((MODEL / "pochade.json").read_text("utf-8"))
    assert set(card["partners"]) >= set(PARTNERS)
    for role, place in PARTNERS.items():
        assert (MODEL / place).exists()
        assert place.endswith(card["partners"][role])


def test_settings_name_no_place_on_a_machine():
    configs = [file for file in files() if file.name == "config.json"]
    assert len(configs) == 3
    assert all("_name_or_path" not in json.loads(file.read_text("utf-8")) for file in configs)


@pytest.mark.parametrize("kind", ["PyraCanny", "CPDS"])
def test_form_comes_from_the_drawing_and_colours_from_the_prompt(studio, cases, kind):
    pictures = follow(studio, cases, kind, weight=1.0, stop=1.0)
    readings = [read(picture) for picture in pictures]
    overlaps = [edge_overlap(p, d) for p, d in zip(pictures, cases.drawings, strict=True)]
    assert sum(overlaps) / CASES > 0.6
    assert share(cases.scenes, readings, "place") > 0.8
    assert share(cases.wanted, readings, "background") > 0.8
    assert share(cases.wanted, readings, "colour") > 0.6


def test_an_image_gives_its_colours_to_an_empty_prompt_by_its_weight(studio, cases):
    whole, half, none = (
        [read(it) for it in follow(studio, cases, "ImagePrompt", weight=weight, stop=1.0)]
        for weight in (1.0, 0.5, 0.0)
    )
    for fact in ("background", "colour"):
        assert share(cases.scenes, whole, fact) > 0.8
    backgrounds = [share(cases.scenes, it, "background") for it in (whole, half, none)]
    assert backgrounds[0] >= backgrounds[1] >= backgrounds[2]
    assert backgrounds[2] < 0.5


def test_of_two_images_one_gives_the_thing_and_the_other_the_ground(studio, cases):
    readings, following = of_two(studio, cases), cases.scenes[1:] + cases.scenes[:1]
    assert share(cases.scenes, readings, "colour") > 0.8
    assert share(following, readings, "background") > 0.8
