"""The lines at the top of the README are what a Space is built from: known keys, allowed values, versions that go together."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import SpaceHardware
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
KEYS = {
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file"),
    *("license", "short_description", "tags", "thumbnail", "models", "datasets", "pinned"),
    *("suggested_hardware", "startup_duration_timeout", "preload_from_hub", "fullWidth", "header"),
    *("hf_oauth", "hf_oauth_scopes", "hf_oauth_expiration_minutes", "disable_embedding"),
}
PRELOAD = re.compile(r"[\w.-]+/[\w.-]+( [\w./-]+(,[\w./-]+)*( [0-9a-f]{40})?)?")
"""``owner/name``, then files between commas, then a commit."""


@pytest.fixture(scope="module")
def front() -> dict[str, Any]:
    assert README.startswith("---\n")
    found: dict[str, Any] = yaml.safe_load(README.split("---\n")[1])
    return found


def test_every_key_is_one_that_spaces_know(front) -> None:
    assert set(front) <= KEYS
    assert {"title", "sdk", "sdk_version", "python_version", "app_file", "license"} <= set(front)


def test_values_are_allowed(front) -> None:
    assert {front["colorFrom"], front["colorTo"]} <= COLOURS
    assert front["sdk"] == "gradio"
    assert (ROOT / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60
    assert len(front["emoji"]) == 1
    assert re.fullmatch(r"\d+(\.\d+)?(h|m|s)", front["startup_duration_timeout"])
    assert front["header"] in ("mini", "default")
    assert front["suggested_hardware"] in {it.value for it in SpaceHardware}
    assert front["hf_oauth"] is True
    assert 0 < front["hf_oauth_expiration_minutes"] <= 43200
    assert re.match(r"\s*Apache License\s+Version 2.0", (ROOT / "LICENSE").read_text())


def test_gradio_and_python_are_those_that_it_runs_with(front) -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = {
        it.name: it.specifier for it in map(Requirement, filter(re.compile(r"\w").match, lines))
    }
    assert wanted["gradio"].contains(front["sdk_version"])
    assert "spaces" not in wanted  # ZeroGPU brings its own
    assert front["python_version"] in ("3.11", "3.12", "3.12.12")


def test_lines_that_preload_weights_are_written_as_spaces_read_them(front) -> None:
    [example] = re.findall(r"```yaml\n(preload_from_hub:.*?)```", GUIDE, re.S)
    for line in [*front.get("preload_from_hub", []), *yaml.safe_load(example)["preload_from_hub"]]:
        assert PRELOAD.fullmatch(line), line
