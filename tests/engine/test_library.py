"""A library: what settings of another program name and is not there is left out; fetched files are noticed."""

from pathlib import Path

from engine import Catalog, Checkpoint, Library
from engine.catalog import Source, Weights
from engine.prompt.styles import Style

HERE = Path(__file__)


def library(*offers: Weights) -> Library:
    catalog = Catalog(
        [Checkpoint(name="own.safetensors", path=HERE)],
        [Weights(name="ink.safetensors", path=HERE, kind="lora")],
        offers,
    )
    return Library(catalog=catalog, styles={"Ink": Style(name="Ink")})


def test_settings_keep_what_is_there_and_lose_the_rest() -> None:
    asked = {
        "sharpness": 3,
        "styles": ["ink", "Nope"],
        "loras": [{"path": "ink.safetensors", "scale": 1}, {"path": "gone", "scale": 1}],
        "refiner_model": "gone.safetensors",
        "advanced": {"base_model": "gone.safetensors", "vae": "gone", "clip_skip": 3},
    }
    assert library().usable(asked) == {
        "sharpness": 3,
        "styles": ["ink"],
        "loras": [{"path": "ink.safetensors", "scale": 1}],
        "advanced": {"clip_skip": 3},
    }


def test_a_base_model_that_is_named_elsewhere_wins() -> None:
    asked = {"advanced": {"base_model": "own.safetensors"}}
    assert library().usable(asked) == asked
    assert library().usable(asked, with_base=False) == {"advanced": {}}


def test_a_file_that_was_fetched_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "far.safetensors"
    source = Source(url="https://example.com/far.safetensors")
    offer = Weights(name=path.name, path=path, kind="lora", source=source)
    assert not library(offer).catalog.has_arrivals
    path.write_bytes(b"")
    assert library(offer).catalog.has_arrivals
