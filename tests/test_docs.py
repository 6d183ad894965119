"""The README and the guides say what the program does: every flag is in a table, every path in the tree exists, links lead somewhere."""

import re
from pathlib import Path

import pytest

from settings import read_settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FLAGS = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_table_of_flags_is_complete(capsys) -> None:
    try:
        read_settings(["--help"], {})
    except SystemExit:
        shown = capsys.readouterr().out
    flags = set(re.findall(r"^  (--[a-z-]+)", shown, flags=re.MULTILINE))
    assert len(flags) >= 14
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", FLAGS, flags=re.MULTILINE)) == flags


def test_every_flag_is_an_environment_variable() -> None:
    settings = read_settings(
        [], {"POCHADE_PORT": "9", "POCHADE_MODELS_DIR": "m", "POCHADE_SHARE": "1"}
    )
    assert (settings.port, settings.models_dir, settings.share) == (9, Path("m"), True)
    assert read_settings(["--port", "8"], {"POCHADE_PORT": "9"}).port == 8


def test_the_readme_stays_short() -> None:
    assert README.count("\n") <= 150


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {_anchor(text) for text in headings}, target


def _anchor(heading: str) -> str:
    """Write a heading as the link to it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_tree_is_there() -> None:
    tree = README.partition("## What is inside")[2].split("```")[1]
    folder = ROOT
    for line in tree.strip().splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = ROOT / name
            assert folder.exists(), name
        else:
            assert (folder / name).exists(), f"{folder.name}/{name}"
