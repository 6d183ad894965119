"""The catalog finds weights by name, and a name is never a path."""

import json
from pathlib import Path

import pytest

from engine import ModelNotFound, Size, read_catalog

POCKET = {
    "native_size": 128,
    "buckets": [[128, 128], [112, 144]],
    "summary": "Shapes.",
    "examples": ["a star"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    own = tmp_path / "checkpoints"
    (own / "photo").mkdir(parents=True)
    (own / "b.safetensors").write_bytes(b"")
    (own / "photo" / "a.safetensors").write_bytes(b"")
    (own / "parts" / "unet").mkdir(parents=True)
    (own / "parts" / "model_index.json").write_text("{}")
    (own / "parts" / "unet" / "model.safetensors").write_bytes(b"")
    (own / "old.ckpt").write_bytes(b"")
    (tmp_path / "pocket").mkdir()
    (tmp_path / "pocket" / "pochade.json").write_text(json.dumps(POCKET))
    return tmp_path


def test_files_and_folders_are_found_and_the_pocket_model_comes_last(folder: Path) -> None:
    names = [item.name for item in read_catalog(folder).checkpoints]
    assert names == ["b.safetensors", "photo/a.safetensors", "parts", "pocket"]
    assert read_catalog(folder).default().name == "b.safetensors"


def test_the_first_can_be_chosen(folder: Path) -> None:
    assert read_catalog(folder, "pocket").default().is_pocket
    with pytest.raises(ModelNotFound, match=r"^base_model: no base model named 'nothing'$"):
        read_catalog(folder, "nothing")


def test_the_pocket_model_says_what_it_paints(folder: Path) -> None:
    pocket = read_catalog(folder).checkpoint("pocket")
    assert pocket.native_size == 128
    assert pocket.buckets == (Size(128, 128), Size(112, 144))
    assert pocket.sizes == (Size(512, 512), Size(448, 576))
    assert pocket.default_size == Size(512, 512)
    assert pocket.examples == ("a star",)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "checkpoints/b.safetensors", "old.ckpt", "", "b"]
)
def test_a_name_that_is_not_listed_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match="^base_model: no base model named "):
        read_catalog(folder).checkpoint(name)


def test_an_empty_folder_has_no_default(tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFound,
        match=r"^models: expected at least one base model in the models folder, found none$",
    ):
        read_catalog(tmp_path).default()
