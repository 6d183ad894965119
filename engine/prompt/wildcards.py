"""Wildcards: ``__name__`` in a prompt becomes an entry of the list of that name.

Knows nothing of where the lists come from but their folders, and nothing of images but their number.
"""

import logging
import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.errors import InvalidRequest

MAX_ROUNDS = 64
"""How deep entries may name further lists; what is still unfilled then stays as it is."""
MAX_TEXT = 20_000
"""Longest text in characters that filling may give: twice the longest prompt."""

log = logging.getLogger(__name__)

_WILDCARD = re.compile(r"__([\w-]+)__")


def read_wildcards(folders: Iterable[Path]) -> Mapping[str, tuple[str, ...]]:
    """Read all lists below some folders.

    A list is a UTF-8 text file ``NAME.txt`` with one entry a line; empty lines don't count. Subfolders are read too, but
    a list is named by its file alone: of two with one name the first wins, folders in the given order and files by path.
    A file that cannot be read is left out with a line in the log.

    Returns:
        The entries by name; a list may be empty.
    """
    lists: dict[str, tuple[str, ...]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.txt")):
            if path.stem in lists:
                continue
            try:
                text = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                log.warning("%s: wildcards left out: %s", path, error)
                continue
            lists[path.stem] = tuple(line for line in text.splitlines() if line)
    return lists


def fill_wildcards(
    text: str,
    lists: Mapping[str, tuple[str, ...]],
    rng: random.Random,
    *,
    index: int,
    in_order: bool,
    field: str = "prompt",
) -> str:
    """Put entries in the place of all wildcards, in rounds, as entries may hold wildcards themselves.

    A name without a list, or with an empty one, stands for itself.

    Args:
        text: One line of a prompt.
        lists: Entries by name.
        rng: The image's own; one draw for each wildcard.
        index: Number of the image, from 0.
        in_order: Take entry `index` of each list, from the start again at its end, instead of drawing.
        field: Named in the error.

    Raises:
        InvalidRequest: the text grows beyond 20,000 characters.
    """
    for _ in range(MAX_ROUNDS):
        names: list[str] = _WILDCARD.findall(text)
        if not names:
            return text
        for name in names:
            entries = lists.get(name)
            if not entries:
                text = text.replace(f"__{name}__", name)
                continue
            entry = entries[index % len(entries)] if in_order else rng.choice(entries)
            text = text.replace(f"__{name}__", entry, 1)
            if len(text) > MAX_TEXT:
                problem = f"expected wildcards to give at most {MAX_TEXT} characters, got more from {name[:40]!r}"
                raise InvalidRequest(field, problem)
    log.warning("%s: wildcards nested more than %d deep are left as they are", field, MAX_ROUNDS)
    return text
