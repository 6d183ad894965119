"""The tokenizers read any text and give the words of the world back."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
MODEL = Path(__file__).parents[2] / "models" / "pocket"


@pytest.fixture(scope="module", params=["tokenizer", "tokenizer_2"])
def folder(request):
    return MODEL / request.param


@pytest.fixture(scope="module")
def tokenizer(folder):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "text", ["a large red star on a blue background", "zürich 日本", "masterpiece , best quality"]
)
def test_a_text_comes_back(tokenizer, text):
    tokens = tokenizer(text).input_ids
    assert tokens[0] == tokenizer.bos_token_id
    assert tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens, skip_special_tokens=True).strip() == text


def test_words_of_the_world_are_one_token_each(tokenizer):
    assert len(tokenizer("a large red star on a blue background").input_ids) == 8 + 2


def test_the_older_form_lies_beside_and_agrees(folder, tokenizer):
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    assert vocabulary == tokenizer.get_vocab()
    assert (folder / "merges.txt").read_text("utf-8").startswith("#version")
