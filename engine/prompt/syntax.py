"""How a prompt is written: weights in parentheses, words, and the chunks a text encoder reads.

Knows nothing of vocabularies or tensors: a tokenizer is any function from a word to token ids.
"""

import contextlib
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

CHUNK_TOKENS = 77
"""Tokens an SDXL text encoder reads at once, the first (BOS) and the end (EOS) among them."""

NESTED_WEIGHT = 1.1
"""What one level of parentheses multiplies a weight by."""

SHORTEST_SPLIT_WORD = 8
"""A word of this many tokens or more may be cut in two where a chunk ends; a shorter one moves on whole."""

_PARENTHESIS = re.compile(r"\\[()]|[()]")
_ESCAPED = re.compile(r"\\([()])")


class Weighted(NamedTuple):
    """A stretch of text and how strongly it counts; 1 is neutral."""

    text: str
    weight: float


class Token(NamedTuple):
    """One token id and how strongly it counts; 1 is neutral."""

    id: int
    weight: float


def clean(text: str) -> str:
    """Collapse runs of spaces and strip commas, full stops, spaces and line ends from both ends."""
    return re.sub(" {2,}", " ", text).strip(",. \r\n")


def tidy_commas(text: str) -> str:
    """Rewrite a comma-separated list as ``a, b``: items trimmed, empty ones dropped, runs of spaces collapsed."""
    items = (re.sub(" {2,}", " ", item.strip()) for item in text.split(","))
    return ", ".join(item for item in items if item)


def parse_weights(text: str) -> tuple[Weighted, ...]:
    r"""Read the weights that parentheses give to parts of a prompt.

    ``(text)`` multiplies the weight by 1.1 for each level; ``(text:1.3)`` replaces it by the number. ``\(`` and ``\)``
    are plain parentheses. A group that never closes is plain text unless the prompt ends in ``)``; a ``)`` too many
    makes the next ``(`` plain.

    Returns:
        The parts in order, without empty ones. Weights may be negative, and not finite where the prompt says so
        (``(x:nan)``).
    """
    opens, closes, partner = _parentheses(text)
    parts: list[Weighted] = []
    spans = [(0, len(text), 1.0)]  # still to read, the next one last
    while spans:
        start, end, weight = spans.pop()
        at = bisect_left(opens, start)
        group = min(opens[at], end) if at < len(opens) else end
        parts.append(_plain(text[start:group], weight))
        if group == end:
            continue
        last = partner.get(group, end)
        if last < end:
            spans += [(last + 1, end, weight), _weigh(text, group + 1, last, weight)]
        elif end - 1 in closes:
            spans.append(_weigh(text, group + 1, end - 1, weight))
        else:
            parts.append(_plain(text[group:end], weight))
    return tuple(part for part in parts if part.text)


def split_words(text: str) -> tuple[Weighted, ...]:
    """Read a prompt as words with weights; words are what stands between spaces or line ends."""
    return tuple(
        Weighted(word, part.weight)
        for part in parse_weights(text)
        for word in part.text.replace("\n", " ").split(" ")
        if word
    )


def chunk_prompt(
    text: str, tokenize: Callable[[str], Sequence[int]]
) -> tuple[tuple[Token, ...], ...]:
    """Cut a prompt into the chunks that a text encoder reads one by one.

    Args:
        text: A prompt with weights.
        tokenize: Gives the token ids of one word, without BOS and EOS.

    Returns:
        At least one chunk of at most 75 tokens, BOS and EOS not among them. An empty prompt is one empty chunk.
    """
    words = split_words(text)
    return chunk_words([Token(id_, word.weight) for id_ in tokenize(word.text)] for word in words)


def first_chunk(
    text: str, tokenize: Callable[[str], Sequence[int]]
) -> tuple[tuple[Token, ...], ...]:
    """Take the first 75 tokens of a prompt without weights, as `chunk_prompt` gives one chunk."""
    ids = [id_ for word in text.split() for id_ in tokenize(word)]
    return (tuple(Token(id_, 1.0) for id_ in ids[: CHUNK_TOKENS - 2]),)


def chunk_words(words: Iterable[Sequence[Token]]) -> tuple[tuple[Token, ...], ...]:
    """Fill chunks with words; a chunk ends early rather than cut a word of fewer than 8 tokens.

    Returns:
        At least one chunk of at most 75 tokens.
    """
    room = CHUNK_TOKENS - 2
    chunks: list[list[Token]] = [[]]
    for word in words:
        rest = list(word)
        while len(chunks[-1]) + len(rest) > room:
            if len(word) >= SHORTEST_SPLIT_WORD:
                cut = room - len(chunks[-1])
                chunks[-1] += rest[:cut]
                rest = rest[cut:]
            chunks.append([])
        chunks[-1] += rest
    return tuple(map(tuple, chunks))


def frame(chunk: Sequence[Token], *, bos: int, eos: int, pad: int) -> tuple[Token, ...]:
    """Put BOS before a chunk and EOS after it, and pad it to 77 tokens; what is added has weight 1."""
    added = CHUNK_TOKENS - 2 - len(chunk)
    return (Token(bos, 1.0), *chunk, Token(eos, 1.0), *[Token(pad, 1.0)] * added)


def _parentheses(text: str) -> tuple[list[int], set[int], dict[int, int]]:
    """Find where groups open, every unescaped ``)``, and which of them closes which group."""
    opens: list[int] = []
    closes: set[int] = set()
    partner: dict[int, int] = {}
    unclosed: list[int] = []
    surplus = 0  # closed more often than opened
    for match in _PARENTHESIS.finditer(text):
        at = match.start()
        if match[0] == ")":
            closes.add(at)
            if unclosed:
                partner[unclosed.pop()] = at
            else:
                surplus += 1
        elif match[0] == "(" and surplus:
            surplus -= 1
        elif match[0] == "(":
            opens.append(at)
            unclosed.append(at)
    return opens, closes, partner


def _weigh(text: str, start: int, end: int, weight: float) -> tuple[int, int, float]:
    """Take the number off the end of a group; without one the weight grows by a level."""
    colon = text.rfind(":", start, end)
    if colon > start:
        with contextlib.suppress(ValueError):
            return start, colon, float(text[colon + 1 : end])
    return start, end, weight * NESTED_WEIGHT


def _plain(text: str, weight: float) -> Weighted:
    return Weighted(_ESCAPED.sub(r"\1", text), weight)
