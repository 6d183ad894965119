"""The README says what the program does: every flag is in its table, every path in its tree exists, its pictures are there."""

import re
from pathlib import Path

from settings import read_settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_flags_is_complete(capsys) -> None:
    try:
        read_settings(["--help"], {})
    except SystemExit:
        shown = capsys.readouterr().out
    flags = set(re.findall(r"^  (--[a-z-]+)", shown, flags=re.MULTILINE))
    assert len(flags) >= 14
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", README, flags=re.MULTILINE)) == flags


def test_every_flag_is_an_environment_variable() -> None:
    settings = read_settings(
        [], {"POCHADE_PORT": "9", "POCHADE_MODELS_DIR": "m", "POCHADE_SHARE": "1"}
    )
    assert (settings.port, settings.models_dir, settings.share) == (9, Path("m"), True)
    assert read_settings(["--port", "8"], {"POCHADE_PORT": "9"}).port == 8


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / target).exists(), target


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
