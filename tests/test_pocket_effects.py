"""What a person sees when they turn a knob, read from the pixels of the pocket model's pictures.

A handful of cases for each claim; the full table is made by `python -m pocket.measure_modes`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch

MODELS = Path(__file__).parent.parent / "models"
FEW_STEPS = {"num_inference_steps": 10, "previews": False}
FULL_CHUNK = "a star, " + "blue " * 30 + "({}:{})".format("red " * 29 + "red", "{weight}")
"""A prompt that fills its 75 tokens. In short captions the pocket model reads colours from the end of the text and the
padding, which no weight touches; here the weighted words are the larger part."""


@pytest.fixture(scope="module")
def studio() -> Any:
    import torch

    from pocket.measure_modes import open_studio

    opened = open_studio(MODELS)
    torch.set_num_threads(1)
    return opened


def painted(studio: Any, prompt: str, count: int, **fields: Any) -> Any:
    """(N, 128, 128, 3) pictures in float, seeds 0 to N - 1."""
    advanced = {**FEW_STEPS, **fields.pop("advanced", {})}
    return studio.paint([prompt] * count, {**fields, "advanced": advanced}).astype(float)


def edge_energy(pictures: Any) -> Any:
    """Mean absolute difference of neighbouring pixels, one number a picture."""
    down = np.abs(np.diff(pictures, axis=1)).mean((1, 2, 3))
    across = np.abs(np.diff(pictures, axis=2)).mean((1, 2, 3))
    return down + across


def object_colours(pictures: Any) -> list[str | None]:
    """The colour of the shape in each picture, as the pocket's scorer reads it."""
    from pocket.score import read

    return [read(picture.astype(np.uint8)).colour for picture in pictures]


def test_sharpness_adds_edges(studio: Any) -> None:
    prompt = "a large shaded star on a blue background"
    soft = edge_energy(painted(studio, prompt, 64, sharpness=0))
    sharp = edge_energy(painted(studio, prompt, 64, sharpness=30))
    assert sharp.mean() > soft.mean()


def test_a_negative_prompt_removes_what_it_names(studio: Any) -> None:
    plain = object_colours(painted(studio, "a star", 24))
    without = object_colours(painted(studio, "a star", 24, negative_prompt="pink"))
    assert plain.count("pink") >= 8
    assert without.count("pink") <= plain.count("pink") / 4


def test_a_weight_moves_the_colour_its_way(studio: Any) -> None:
    heavy, light = (painted(studio, FULL_CHUNK.format(weight=weight), 16) for weight in (1.4, 0.6))
    redness = [(item[..., 0] - item[..., 2]).mean((1, 2)) for item in (heavy, light)]
    assert redness[0].mean() > redness[1].mean() + 5
    assert (redness[0] > redness[1]).mean() > 0.8


@pytest.mark.parametrize("mode", ["Extreme Speed", "Lightning", "Hyper-SD"])
def test_a_mode_of_few_steps_keeps_what_was_asked(studio: Any, mode: str) -> None:
    """At least 80 % of what 30 steps get right; they get 98 to 100 % (pocket/README.md)."""
    from pocket.measure import Settings, prompts
    from pocket.score import read

    scenes, texts = prompts(Settings(24))
    seen = [read(picture) for picture in studio.paint(texts, {"performance": mode})]
    for field in ("background", "colour", "place"):
        right = sum(
            getattr(one, field) == getattr(scene, field)
            for one, scene in zip(seen, scenes, strict=True)
        )
        assert right >= 0.8 * len(scenes), field


def test_the_style_lora_draws_dots_and_leaves_the_shape(studio: Any) -> None:
    from pocket.dots import dottedness
    from pocket.measure_modes import SHEET_PROMPTS
    from pocket.score import read

    def dotted(**fields: Any) -> Any:
        return studio.paint(SHEET_PROMPTS[:6], {"advanced": FEW_STEPS, **fields})

    def weighted(scale: float) -> Any:
        return dotted(loras=[{"path": "pocket_dots", "scale": scale}])

    plain, off, half, full = dotted(), weighted(0), weighted(0.5), weighted(1)
    assert np.array_equal(plain, off)
    amounts = [np.mean([dottedness(item) for item in pictures]) for pictures in (off, half, full)]
    assert amounts[0] < amounts[1] < amounts[2]
    for before, after in zip(plain, full, strict=True):
        assert read(before).background == read(after).background


def test_the_modes_of_the_pocket_model_have_loras_of_their_own(studio: Any) -> None:
    catalog = studio.library.catalog
    for mode, file in catalog.checkpoint("pocket").performance_loras:
        assert catalog.has("lora", file), mode
