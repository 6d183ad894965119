"""A tiny GPT-2 with random weights and a vocabulary of ten words."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

WORDS = ["<end>", "<unknown>", ",", "a", "fox", "(", "soft", "light", "<lora:x:1>", "calm"]


def write_model(folder: Path, *, end: int | None = None, context: int = 128) -> str:
    """Write a tiny GPT-2 of random weights that knows the words above."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unknown>"))
    words.pre_tokenizer = Sequence([WhitespaceSplit(), Split(",", "isolated")])
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unknown>", eos_token="<end>"
    ).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_embd=8,
        n_layer=1,
        n_head=2,
        n_positions=context,
        bos_token_id=0,
        eos_token_id=end,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)
