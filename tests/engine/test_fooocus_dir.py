"""A Fooocus folder is read in place: its paths, its defaults, its presets."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidRequest
from engine.fooocus_dir import read_fooocus_dir, request_from_fooocus_config
from engine.places import Places, read_catalog
from engine.presets import read_presets
from engine.records.to_request import request_from
from engine.requests import TextRequest
from tests.golden_data import golden_json

PRESETS = Path(__file__).parent.parent.parent / "presets"
GOLDEN = golden_json("metadata/metadata.json").get("preset_to_metadata", [])


def merged(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    more = {**first.get("advanced", {}), **then.get("advanced", {})}
    return {**first, **then, "advanced": more}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(len(case["preset"])))
def test_golden_presets_mean_the_same(case: dict[str, Any]) -> None:
    """The original fills up a preset with its default one; ours, on top of our default preset, is the same request."""
    theirs, notes = request_from(case["metadata"], lambda kind, name: name)
    ours, problems = request_from_fooocus_config(case["preset"])
    start = dict(read_presets(PRESETS)["default"].request)

    assert (notes, problems) == ([], [])
    assert TextRequest.parse(merged(start, ours)) == TextRequest.parse(theirs)


@pytest.fixture
def fooocus(tmp_path: Path) -> Path:
    """A made-up installation; its checkpoints lie in two places."""
    root = tmp_path / "Fooocus"
    for folder in ("models/checkpoints/sub", "models/loras", "wildcards", "sdxl_styles", "presets"):
        (root / folder).mkdir(parents=True)
    (tmp_path / "shared" / "ckpt").mkdir(parents=True)
    (root / "models/checkpoints/sub/one.safetensors").touch()
    (tmp_path / "shared/ckpt/two.safetensors").touch()
    (root / "models/loras/ink.safetensors").touch()
    write(
        root / "presets/default.json",
        {
            "default_model": "first.safetensors",
            "default_cfg_scale": 4.0,
            "default_save_metadata_to_images": False,
        },
    )
    write(root / "presets/mine.json", {
        "default_model": "mine.safetensors",
        "default_refiner": "None",
        "default_loras": [[True, "ink.safetensors", 0.5], [False, "off", 1], ["None", 1], ["two", 0.2]],
        "default_aspect_ratio": "896*1152",
        "default_styles": ["Fooocus V2"],
        "default_overwrite_step": -1,
        "default_prompt": "",
        "default_save_metadata_to_images": False,
        "previous_default_models": ["older.safetensors"],
        "checkpoint_downloads": {"mine.safetensors": "https://example.org/mine", "../out": "https://x"},
        "lora_downloads": {"ink.safetensors": "file:///etc/passwd"},
    })  # fmt: skip
    write(root / "config.txt", {
        "path_checkpoints": [str(root / "models/checkpoints"), "../shared/ckpt"],
        "path_outputs": "/nowhere/at/all",
        "default_sampler": "euler",
        "default_clip_skip": "many",
        "default_save_metadata_to_images": True,
        "something_else": 1,
    })  # fmt: skip
    return root


def write(path: Path, values: object) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def test_folders_are_found_in_place(fooocus: Path) -> None:
    found = read_fooocus_dir(fooocus)

    assert found.folders == {
        "checkpoints": (fooocus / "models/checkpoints", fooocus.parent / "shared/ckpt"),
        "loras": (fooocus / "models/loras",),
        "wildcards": (fooocus / "wildcards",),
    }
    assert found.styles_dir == fooocus / "sdxl_styles"
    catalog = read_catalog(Places(models_dir=fooocus.parent / "none", more=found.weights))
    assert [item.name for item in catalog.checkpoints] == ["sub/one.safetensors", "two.safetensors"]
    assert [item.name for item in catalog.loras] == ["ink.safetensors"]


def test_the_folder_around_it_will_do(fooocus: Path) -> None:
    assert read_fooocus_dir(fooocus.parent) == read_fooocus_dir(fooocus)


def test_defaults_come_from_the_first_preset_and_the_config(fooocus: Path) -> None:
    found = read_fooocus_dir(fooocus)

    assert found.defaults == {
        "guidance_scale": 4.0,
        "advanced": {
            "base_model": "first.safetensors",
            "sampler": "euler",
            "save_metadata": True,
        },
    }
    assert found.notes == (
        "default_clip_skip: expected a number, got 'many'",
        "path_outputs: expected a folder, got '/nowhere/at/all'; the usual place is taken",
    )


def test_a_preset_holds_the_defaults_where_it_says_nothing(fooocus: Path) -> None:
    preset = read_fooocus_dir(fooocus).presets["mine"]

    assert preset.summary == "From the Fooocus folder, paints with mine."
    assert preset.request == {
        "guidance_scale": 4.0,
        "refiner_model": None,
        "styles": ["Fooocus V2"],
        "aspect_ratio": "896x1152",
        "loras": [{"path": "ink.safetensors", "scale": 0.5}, {"path": "two", "scale": 0.2}],
        "advanced": {
            "base_model": "mine.safetensors",
            "sampler": "euler",
            "num_inference_steps": None,
            "save_metadata": True,
        },
    }
    TextRequest.parse(preset.request)
    assert preset.substitutes == ("older.safetensors",)
    assert [(offer.kind, offer.file, offer.source.url) for offer in preset.weights] == [
        ("checkpoint", "mine.safetensors", "https://example.org/mine")
    ]


def test_old_settings_count_too(fooocus: Path) -> None:
    (fooocus / "ours").mkdir()
    write(fooocus / "user_path_config.txt", {"lorafile_path": "ours", "default_cfg_scale": 6})

    found = read_fooocus_dir(fooocus)

    assert found.folders["loras"] == (fooocus / "ours",)
    assert found.defaults["guidance_scale"] == 6


def test_broken_files_are_said(fooocus: Path) -> None:
    (fooocus / "config.txt").write_text("{", encoding="utf-8")
    (fooocus / "presets/mine.json").write_bytes(b"\xff\xfe\x00")
    write(fooocus / "presets/odd.json", {"default_loras": [["x", 99], 5], "default_styles": "all"})

    found = read_fooocus_dir(fooocus)

    assert found.notes[0] == "config.txt: expected a JSON object; nothing of it is used"
    assert found.notes[1].startswith("mine.json: expected a text file, got ")
    assert found.notes[2].startswith("odd.json: default_styles: expected ")
    assert found.notes[3:] == (
        "odd.json: default_loras: expected less than or equal to 2, got 99.0",
        "odd.json: default_loras: expected [name, weight], got 5",
    )
    assert found.presets["mine"].request == found.defaults


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_another_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(
        InvalidRequest, match=r"^fooocus_dir: expected Fooocus' folder, with models, "
    ):
        read_fooocus_dir(tmp_path / name)
