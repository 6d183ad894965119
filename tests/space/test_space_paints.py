"""A Space as its visitors meet it: started with what a Space gives, on a disk that is read-only but for its home."""

import pytest

from tests.space.living_space import BROWSER, tree
from tests.space.page_client import Visitor
from tests.test_app import ROOT, get

pytestmark = pytest.mark.torch
PROMPT = "a large red star on a blue background"
SMALL = {"num_images": 1, "performance": "Extreme Speed", "random_seed": False, "seed": "7"}
"""One picture in eight steps, for which a LoRA is put on."""


def test_a_picture_is_painted_from_the_page_and_nothing_is_written_elsewhere(space) -> None:
    before = {name: tree(ROOT / name) for name in ("models", "presets", "styles", "ui")}
    with Visitor(space.address, BROWSER) as ann:
        story = ann.story(ann.paint(PROMPT, **SMALL))
        assert story[-1]["kind"] == "finished", story[-1]
        [image] = ann.images()
        assert (image["prompt"], image["seed"]) == (PROMPT, "7")
        assert ann.picture(image["id"])[:4] == b"\x89PNG"
    assert list((space.home / "pochade" / "outputs").rglob("*.png"))
    models = str(
        ROOT / "models"
    )  # --models-dir: hashes are remembered there, where it can be written
    assert [it for it in space.refused() if not it.split()[1].startswith(models)] == []
    assert {name: tree(ROOT / name) for name in before} == before


def test_strangers_names_and_pages_are_refused(space) -> None:
    assert get(space.address + "/", Host="x-y.hf.space")[0] == 200
    assert get(space.address + "/", Host="evil.example")[0] == 403
    foreign = {"Host": "x-y.hf.space", "Origin": "https://z-y.hf.space"}
    assert get(space.address + "/studio/state", **foreign)[0] == 403
