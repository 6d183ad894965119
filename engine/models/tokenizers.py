"""The CLIP tokenizers of SDXL, built from the merge list that ships with the studio.

A single-file checkpoint holds no tokenizer; this is how one is read without a network.
"""

import gzip
from functools import cache
from pathlib import Path
from typing import Any

_MERGES = Path(__file__).parent / "configs" / "clip_merges.txt.gz"
_END = "<|endoftext|>"
_START = "<|startoftext|>"


def clip_tokenizer(*, pad_token: str = _END) -> Any:
    """Build a `CLIPTokenizer` with the 49,408 tokens of OpenAI's CLIP.

    Args:
        pad_token: ``<|endoftext|>`` for SDXL's first text encoder, ``!`` (id 0) for its second.
    """
    from transformers import CLIPTokenizer

    vocabulary, merges = _vocabulary()
    build: Any = CLIPTokenizer
    return build(
        vocab=dict(vocabulary), merges=list(merges), pad_token=pad_token, model_max_length=77
    )


@cache
def _vocabulary() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    lines = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")
    merges = tuple((left, right) for left, right in (line.split() for line in lines))
    letters = list(_byte_letters())
    tokens = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *map("".join, merges),
        _START,
        _END,
    ]
    return {token: index for index, token in enumerate(tokens)}, merges


def _byte_letters() -> tuple[str, ...]:
    """One printable letter for each byte: printable bytes stand for themselves, the rest follow from code point 256."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return tuple(map(chr, [*printable, *range(256, 256 + len(rest))]))
