"""A library: what settings of another program name and is not there is left out; fetched files are noticed."""

import json
from pathlib import Path

from engine import Catalog, Checkpoint, Library, read_catalog
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


def test_a_hub_model_that_was_fetched_is_noticed(tmp_path: Path) -> None:
    """Then its family is known, and with it its sizes."""
    far = read_catalog(tmp_path, "owner/small")
    assert (far.default().native_size, far.has_arrivals) == (1024, False)
    folder = tmp_path / "checkpoints" / "owner" / "small"
    folder.mkdir(parents=True)
    index = json.dumps({"_class_name": "StableDiffusionPipeline"})
    (folder / "model_index.json").write_text(index)
    assert far.has_arrivals
    near = read_catalog(tmp_path, "owner/small")
    assert (near.default().native_size, near.has_arrivals) == (512, False)
