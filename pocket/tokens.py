"""The two tokenizers: CLIP's kind of byte-pair encoding, learnt on the captions.

Every byte is in the vocabulary, so any prompt can be read. `vocab.json` and `merges.txt` are written
beside `tokenizer.json` for readers that know only the older form.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import CLIPTokenizer

from pocket.captions import ART_WORDS, random_caption
from pocket.parts import TOKENS
from pocket.world import random_scene

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 900

_PIECES = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def _corpus(count: int) -> Iterator[str]:
    rng = np.random.default_rng(5)
    for _ in range(count):
        yield random_caption(rng, random_scene(rng)).text
    for _ in range(40):
        yield from ART_WORDS


def _byte_letters() -> list[str]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return letters + [letter + "</w>" for letter in letters]


def learn_tokenizer() -> Tokenizer:
    """Learn the merges on captions of the world."""
    tokenizer = Tokenizer(
        models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(20000), trainer)
    return tokenizer


def _vocabulary(learnt: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's order: bytes, bytes that end a word, merges, then start and end."""
    merges = [tuple(m) for m in json.loads(learnt.to_str())["model"]["merges"]]
    names = list(dict.fromkeys([*_byte_letters(), *(a + b for a, b in merges)]))
    return {name: i for i, name in enumerate([*names, START, END])}, merges


def save_tokenizers(folder: Path) -> None:
    """Learn once and write `tokenizer/` and `tokenizer_2/`, each in the new and the old form."""
    vocabulary, merges = _vocabulary(learn_tokenizer())
    as_read: Any = merges  # its annotation misses the form that its own loader passes
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    for name in ("tokenizer", "tokenizer_2"):
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        tokenizer = CLIPTokenizer(
            vocab=vocabulary, merges=as_read, pad_token=END, model_max_length=TOKENS
        )
        tokenizer.save_pretrained(target)
        (target / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
        (target / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
