"""The shipped styles bear Fooocus' names in its order, and every text is well formed and unlike the others."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "styles"
NAMES: dict[str, list[str]] = json.loads(
    (Path(__file__).parent / "golden" / "style_names.json").read_text(encoding="utf-8")
)
"""The names by pack; names are interface, so they are all there and in order."""
PLACEHOLDER = "{prompt}"
NEGATIVE_ONLY = {"Fooocus Enhance", "Fooocus Semi Realistic", "Fooocus Negative"}
WITHOUT_NEGATIVE = {"Mk Luminogram", "Mk Tlingit Art"}
PROMPT_WORDS = range(12, 46)
NEGATIVE_WORDS = range(4, 26)
MOST_SHARED = {"prompt": 0.4, "negative_prompt": 0.5}
"""Largest part of the smaller of two word sets that may stand in the other one, by text."""
COMMON = {"a", "an", "and", "as", "at", "by", "from", "in", "into", "of", "on", "or", "over", "the"}
COMMON |= {"to", "with", "under"}
"""Words too short of meaning to tell two texts apart."""
FILES = sorted(FOLDER.glob("*.json"))


def read(path: Path) -> list[dict[str, str]]:
    """Read one pack."""
    entries: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return entries


STYLES = [style for path in FILES for style in read(path)]
PROMPTS = [style for style in STYLES if style["name"] not in NEGATIVE_ONLY]
NEGATIVES = [style for style in STYLES if style["name"] not in WITHOUT_NEGATIVE]


def words(text: str) -> list[str]:
    """All words of a text in lower case, less the placeholder."""
    return re.findall(r"[a-z0-9_'-]+", text.replace(PLACEHOLDER, "").lower())


def named(style: dict[str, str]) -> str:
    return style["name"]


def too_alike(styles: list[dict[str, str]], key: str) -> list[tuple[str, str, set[str]]]:
    """Pairs of styles with too many words in common, and the words."""
    sets = [(style["name"], set(words(style[key])) - COMMON) for style in styles]
    return [
        (one, other, mine & theirs)
        for (one, mine), (other, theirs) in combinations(sets, 2)
        if len(mine & theirs) > MOST_SHARED[key] * min(len(mine), len(theirs))
    ]


def test_every_pack_is_there_and_no_other() -> None:
    assert {path.stem for path in FILES} == set(NAMES)
    assert sum(map(len, NAMES.values())) == 277


@pytest.mark.parametrize("pack", list(NAMES))
def test_names_are_fooocus_names_in_order(pack: str) -> None:
    assert [named(style) for style in read(FOLDER / f"{pack}.json")] == NAMES[pack]


def test_names_are_unique() -> None:
    assert len({named(style) for style in STYLES}) == len(STYLES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_ascii_and_printed_alike(path: Path) -> None:
    text = path.read_text(encoding="ascii")
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


@pytest.mark.parametrize("style", STYLES, ids=named)
def test_texts_are_lists_of_phrases(style: dict[str, str]) -> None:
    assert set(style) <= {"name", "prompt", "negative_prompt"}
    for key in style.keys() - {"name"}:
        text = style[key]
        assert text or style["name"] in NEGATIVE_ONLY | WITHOUT_NEGATIVE
        assert text == text.strip(" ,.")
        assert not re.search(r"[\n\t()\[\]<>\"]|  | ,|,[^ ]|,\s*,|:\d", text)
        assert text.count(",") >= 2 or not text


@pytest.mark.parametrize("style", PROMPTS, ids=named)
def test_prompts_take_the_subject_in_once(style: dict[str, str]) -> None:
    assert style["prompt"].count(PLACEHOLDER) == 1
    assert not re.search(r"[{}]", style["prompt"].replace(PLACEHOLDER, ""))
    assert len(words(style["prompt"])) in PROMPT_WORDS


@pytest.mark.parametrize("name", sorted(NEGATIVE_ONLY))
def test_some_styles_leave_the_subject_alone(name: str) -> None:
    (style,) = [style for style in STYLES if style["name"] == name]
    assert PLACEHOLDER not in style.get("prompt", "")


@pytest.mark.parametrize("style", NEGATIVES, ids=named)
def test_negatives_are_short_and_of_their_own(style: dict[str, str]) -> None:
    assert "{" not in style["negative_prompt"]
    assert len(words(style["negative_prompt"])) in NEGATIVE_WORDS


def test_no_two_prompts_are_alike() -> None:
    assert too_alike(PROMPTS, "prompt") == []


def test_no_two_negatives_are_alike() -> None:
    assert too_alike(NEGATIVES, "negative_prompt") == []


def test_the_subject_does_not_always_come_first() -> None:
    leading = sum(style["prompt"].startswith(PLACEHOLDER) for style in PROMPTS)
    assert leading < 0.6 * len(PROMPTS)
