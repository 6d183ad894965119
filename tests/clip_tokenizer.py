"""The CLIP tokenizer, built from the vocabulary in open_clip_torch (MIT), which is read without being imported."""

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

VOCABULARY_SIZE = 49408


@cache
def clip_tokenizer(pad_token: str) -> Any:
    """Build a transformers `CLIPTokenizer`; None where open_clip_torch is not installed.

    Args:
        pad_token: ``<|endoftext|>`` for CLIP-L, ``!`` for CLIP-G.
    """
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        return None
    from transformers import CLIPTokenizer

    path = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    letters = _byte_letters()
    merges = lines[1 : VOCABULARY_SIZE - 2 * len(letters) - 2 + 1]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += [merge.replace(" ", "") for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(
        vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges], pad_token=pad_token
    )


def _byte_letters() -> list[str]:
    """The 256 letters that stand for bytes in byte-level BPE: printable ones first, then the rest shifted."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
