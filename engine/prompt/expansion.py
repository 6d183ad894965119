"""Our own prompt expansion for the style *Fooocus V2*: a prompt gets words that suit any subject.

Fooocus' expansion, its word list and its weights may be used outside Fooocus only without profit. This one is made of
words that we wrote (`expansion_words.txt`) and of chance: the same prompt and seed give the same words everywhere, but
not those that Fooocus would give.

The words lie in groups. From a group come as many entries as its heading says, unless the prompt itself speaks of what the
group is about: who asks for candlelight gets no other light.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engine.prompt.syntax import clean

CHUNK_WORDS = 70
"""What a text encoder reads at once, in words and punctuation marks: 75 tokens, less some for words of several tokens."""
LEAST_ROOM = 40
"""With less room than this in the last chunk of a long prompt, the words go on into a further one."""

_WORDS = Path(__file__).with_name("expansion_words.txt")
_HEADING = re.compile(r"\[\w+ (\d+): ([\w ]+)\]")
_PIECE = re.compile(r"[^\W_]+|[^\w\s]")
_PLAIN = frozenset({"above", "across", "and", "from", "out", "over", "the", "where", "with", "of"})


@dataclass(frozen=True, slots=True)
class _Group:
    """Entries of one kind."""

    count: int
    """How many of them a prompt gets."""
    unless: frozenset[str]
    """Words in a prompt that leave the group out."""
    entries: tuple[str, ...]


def expand(prompt: str, seed: int) -> str:
    """Add words to a prompt.

    Args:
        prompt: One line, without LoRA tags.
        seed: Of the image.

    Returns:
        The cleaned prompt and up to 15 additions, separated by commas: none of their words stands in the prompt or comes
        twice. A short prompt stays within one chunk of a text encoder. An empty prompt stays empty.
    """
    prompt = clean(prompt)
    if not prompt:
        return ""
    digest = hashlib.sha256(f"{seed}\n{prompt}".encode("utf-8", "surrogatepass")).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    pieces = _PIECE.findall(prompt.casefold())
    additions = list(_draw(set(pieces), rng))
    room = CHUNK_WORDS - len(pieces) % CHUNK_WORDS
    room += CHUNK_WORDS if room < LEAST_ROOM else 0
    while sum(1 + len(entry.split()) for entry in additions) > room:
        additions.remove(rng.choice(additions))
    return ", ".join((prompt, *additions))


def _draw(said: set[str], rng: random.Random) -> Iterator[str]:
    """Draw entries from all groups that the prompt leaves open; `said` grows by their words."""
    for group in _groups():
        if said & group.unless:
            continue
        left = group.count
        for entry in rng.sample(group.entries, len(group.entries)):
            words = set(entry.split()) - _PLAIN
            if left and not words & said:
                said |= words
                left -= 1
                yield entry


@cache
def _groups() -> tuple[_Group, ...]:
    groups = []
    for block in _WORDS.read_text(encoding="utf-8").strip().split("\n\n"):
        heading, *entries = block.split("\n")
        match = _HEADING.fullmatch(heading)
        assert match, heading
        groups.append(_Group(int(match[1]), frozenset(match[2].split()), tuple(entries)))
    return tuple(groups)
