"""Styles: named texts that are put around or beside a prompt, read from JSON files.

A file is an array of ``{"name", "prompt", "negative_prompt"}``; ``{prompt}`` in a text stands for the main prompt. Knows
nothing of images: `engine.prompt.assemble` applies styles.
"""

import difflib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidRequest

EXPANSION_STYLE = "Fooocus V2"
"""Not a template: adds words to the prompt."""
RANDOM_STYLE = "Random Style"
"""Not a template: stands for another one, drawn for each image."""
SPECIAL_STYLES = (EXPANSION_STYLE, RANDOM_STYLE)
PLACEHOLDER = "{prompt}"
"""Where a style takes the main prompt in."""
PACKS = ("fooocus", "sai", "mre", "twri", "diva", "marc_k3nt3l")
"""The packs of Fooocus in their order: ``sai.json``, or ``sdxl_styles_sai.json`` as Fooocus calls it."""

log = logging.getLogger(__name__)

_SPELLINGS = (("3d", "3D"), ("Sai", "SAI"), ("Mre", "MRE"), ("(s", "(S"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A named pair of texts; each line of them is a text of its own."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""

    @property
    def wraps(self) -> bool:
        """Whether it takes the main prompt in, so that the prompt need not stand alone."""
        return PLACEHOLDER in self.prompt


def style_name(name: str) -> str:
    """Spell a style's name as Fooocus shows it: ``sai-3d-model`` is ``SAI 3D Model``."""
    name = " ".join(word.capitalize() for word in name.replace("-", " ").split(" "))
    for written, shown in _SPELLINGS:
        name = name.replace(written, shown)
    return name


def read_styles(folders: Sequence[Path]) -> Mapping[str, Style]:
    """Read all styles below some folders.

    Files of unknown names come first, by path, then Fooocus' packs in their order: this is the order in which styles are
    shown and drawn. Of two styles with one name the one from the later folder holds; within a folder, other files win
    over Fooocus' packs, and later entries over earlier ones. (In Fooocus nothing wins over its packs.) A file that is
    not as it should be is left out whole, with a line in the log.

    Args:
        folders: The shipped one first, a person's own ones after it.

    Returns:
        The styles by their names as shown.
    """
    files = [
        (_place(path), number, path)
        for number, folder in enumerate(folders)
        for path in sorted(folder.rglob("*.json"))
    ]
    styles: dict[str, Style] = {}
    rank: dict[str, tuple[int, bool]] = {}
    for place, number, path in sorted(files):
        mine = (number, place < 0)
        for style in _read(path):
            if style.name in SPECIAL_STYLES:
                log.warning("%s: style %r left out: the name is taken", path, style.name)
            elif mine >= rank.get(style.name, mine):
                styles[style.name], rank[style.name] = style, mine
    return styles


def find_style(name: str, names: Iterable[str], field: str = "styles") -> str:
    """Find a style whatever its capitals, hyphens and blanks.

    Args:
        name: As asked for.
        names: Of all templates; the special ones are known.
        field: Named in the error.

    Returns:
        The name as shown.

    Raises:
        InvalidRequest: there is no such style; the message names the closest.
    """
    known = {_fold(each): each for each in (*names, *SPECIAL_STYLES)}
    folded = _fold(name)
    if folded in known:
        return known[folded]
    close = difflib.get_close_matches(folded, known, n=2, cutoff=0.5)
    hint = f"; closest are {' and '.join(repr(known[key]) for key in close)}" if close else ""
    raise InvalidRequest(field, f"no style named {name[:80]!r}{hint}")


def find_styles(names: Sequence[str], styles: Iterable[str]) -> tuple[str, ...]:
    """Find all styles of a selection; order and repeats stay.

    Raises:
        InvalidRequest: naming the first one that is not there, as ``styles.2``.
    """
    known = tuple(styles)
    return tuple(find_style(name, known, field=f"styles.{i}") for i, name in enumerate(names))


def _place(path: Path) -> int:
    """Rank a file among Fooocus' packs; -1 is none of them."""
    pack = path.stem.removeprefix("sdxl_styles_")
    return PACKS.index(pack) if pack in PACKS else -1


def _read(path: Path) -> tuple[Style, ...]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(entries, list):
            raise ValueError(f"expected a list of styles, got {type(entries).__name__}")
        return tuple(_styles(entries))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s: styles left out: %s", path, error)
        return ()


def _styles(entries: Iterable[object]) -> Iterator[Style]:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"entry {number}: expected an object, got {type(entry).__name__}")
        texts = {key: entry.get(key) or "" for key in ("name", "prompt", "negative_prompt")}
        for key, text in texts.items():
            if not isinstance(text, str) or (key == "name" and not text.strip()):
                raise ValueError(f"entry {number}: expected a text as {key!r}, got {text!r:.80}")
        yield Style(**{**texts, "name": style_name(texts["name"])})


def _fold(name: str) -> str:
    return " ".join(re.split(r"[-_\s]+", name.casefold().strip()))
