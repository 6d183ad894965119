"""What is saved on the page is a preset like any other, in its own folder, and replaces nothing unasked."""

import json
from pathlib import Path

import pytest

from engine import InvalidRequest, TextRequest
from engine.presets import read_presets
from jobs import StorageFailed
from ui.saved_presets import MAX_NAME, own_presets, remove, save, slug

REQUEST = TextRequest(
    prompt="a secret",
    seed=5,
    styles=("SAI Anime",),
    loras=({"path": "ink.safetensors", "scale": 0.5},),
    advanced={"clip_skip": 3, "freeu": {"b1": 1.2}},
)


def saved(folder: Path, name: str, *, replaces: bool = False, taken=("default",)) -> str:
    return save(folder, name, REQUEST, taken=taken, replaces=replaces)[0]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Evening light", "evening-light"),
        ("  Äpfel & Öl!  ", "apfel-ol"),
        ("../../etc/passwd", "etc-passwd"),
        ("a/b\\c", "a-b-c"),
        (".hidden", "hidden"),
    ],
)
def test_a_name_becomes_a_plain_file_name(name, file):
    assert slug(name) == file


def test_names_without_latin_letters_are_told_apart():
    first, second = slug("夕暮れ"), slug("朝")
    assert first.startswith("preset-")
    assert first != second


def test_a_saved_preset_is_read_back_as_it_was(tmp_path):
    key = saved(tmp_path, "Evening  light")
    preset = read_presets(tmp_path)[key]
    assert preset.name == "Evening light"
    assert preset.summary == "Speed, 1152×896, 1 style, 1 LoRA"
    assert not {"prompt", "seed"} & set(preset.request)
    again = TextRequest.parse({**preset.request, "prompt": "a secret", "seed": 5})
    assert again == REQUEST


def test_one_of_ones_own_is_replaced_only_when_asked(tmp_path):
    saved(tmp_path, "Mine")
    with pytest.raises(
        InvalidRequest, match=r"^preset: expected a name that is free, there is one called 'MINE'$"
    ):
        saved(tmp_path, "MINE")
    saved(tmp_path, "MINE", replaces=True)
    assert json.loads((tmp_path / "mine.json").read_text())["name"] == "MINE"


def test_a_preset_that_ships_is_never_covered(tmp_path):
    with pytest.raises(
        InvalidRequest, match=r"^preset: expected a name that is free, 'Default' comes with"
    ):
        saved(tmp_path, "Default", replaces=True)
    assert own_presets(tmp_path) == frozenset()


@pytest.mark.parametrize("name", ["", "   ", "x" * (MAX_NAME + 1), "a\x00b", "a\u202eb"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(InvalidRequest, match=r"^preset: expected a name of 1 to 60 letters, got "):
        saved(tmp_path, name)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(StorageFailed, match=r"^preset: the folder cannot be written \("):
        saved(file / "presets", "Mine")


def test_only_what_was_saved_here_is_removed(tmp_path):
    folder = tmp_path / "presets"
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    key = saved(folder, "Mine")
    for name in ("../outside", "default", ""):
        with pytest.raises(InvalidRequest, match=r"^preset: expected one that was saved here, got"):
            remove(folder, name)
    remove(folder, key)
    assert own_presets(folder) == frozenset()
    assert outside.exists()


def test_where_nothing_can_be_saved_nothing_is_ones_own():
    assert own_presets(None) == frozenset()
