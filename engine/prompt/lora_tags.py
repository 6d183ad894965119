"""LoRA tags: ``<lora:name:weight>`` in a prompt asks for a LoRA by the stem of its file.

Knows file names, not files. Fooocus drops names that it doesn't know without a word; here they are told to the caller.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from engine.errors import InvalidRequest
from engine.prompt.syntax import tidy_commas

_TAG = re.compile(r"<lora:([^:]+):([+-]?(?:\d+\.?\d*|\.\d+))>")

NamedLora = tuple[str, float]
"""A LoRA's file name, with its folder below the LoRA folder, and its weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenTags:
    """A prompt line without its LoRA tags, and what they asked for."""

    text: str
    loras: tuple[NamedLora, ...]
    """The given ones, then those of the tags in their order."""
    unknown: tuple[str, ...]
    """Names without a file."""
    beyond_limit: tuple[str, ...]
    """Files that were asked for, but are more than there is room for."""


def take_lora_tags(
    text: str,
    files: Sequence[str],
    *,
    given: Sequence[NamedLora] = (),
    limit: int,
    hidden: str | None = None,
) -> TakenTags:
    """Take the LoRA tags out of a prompt line.

    A file among the `given` ones keeps its weight there; the same file with the same weight is taken once. Tags that are
    not well formed stay as text. The line is tidied at its commas, with tags or without.

    Args:
        text: The first line of a prompt; other lines have no tags.
        files: Names of all LoRA files; of two with one stem the first is meant.
        given: LoRAs that the request names itself.
        limit: Most LoRAs altogether; the given ones are never cut.
        hidden: The file of the performance mode, which a tag cannot ask for.

    Raises:
        InvalidRequest: a weight is too large for a number.
    """
    by_stem = {_stem(file): file for file in reversed(files) if file != hidden}
    taken = {file for file, _ in given}
    found: list[NamedLora] = []
    unknown: list[str] = []
    for item in text.split(","):
        for name, number in _TAG.findall(item):
            file, weight = by_stem.get(name), float(number)
            if not math.isfinite(weight):
                raise InvalidRequest("prompt", f"expected a finite LoRA weight, got {number[:20]}…")
            if file is not None and file not in taken and (file, weight) not in found:
                found.append((file, weight))
            if file is None and (hidden is None or name != _stem(hidden)):
                unknown.append(name)
    room = max(0, limit - len(given))
    return TakenTags(
        text=tidy_commas(",".join(_TAG.sub("", item) for item in text.split(","))),
        loras=(*given, *found[:room]),
        unknown=tuple(dict.fromkeys(unknown)),
        beyond_limit=tuple(dict.fromkeys(file for file, _ in found[room:])),
    )


def drop_tags(text: str) -> tuple[str, tuple[str, ...]]:
    """Take tags out of a line in which they have no effect.

    Returns:
        The line, changed only where it had tags, and the names in them.
    """
    names = tuple(name for name, _ in _TAG.findall(text))
    return (tidy_commas(_TAG.sub("", text)) if names else text), names


def _stem(file: str) -> str:
    return PurePosixPath(file).stem
