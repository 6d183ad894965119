"""Prompt expansion adds coherent words: the same ones for one prompt and seed, never one that is there already."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompt.expansion import expand

PROMPTS = [
    "a red fox in the snow",
    "portrait of an old woman, candlelight",
    "spaceship",
    "a bowl of (fruit:1.3) on a wooden table, oil painting",
]


def additions(prompt: str, seed: int) -> list[str]:
    expanded = expand(prompt, seed)
    assert expanded.startswith(prompt + ", ")
    return expanded.removeprefix(prompt + ", ").split(", ")


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text.casefold()))


PINNED = (
    "a lighthouse, light from above, subtle tints, leading lines, eye level view, awe inspiring, "
    "fresh air, faithful, highly defined, rich texture, clear separation, delightful, beautiful, "
    "excellent, gallery quality, portfolio piece"
)


def test_prompt_and_seed_decide_the_words_on_every_machine():
    assert expand("a lighthouse", 7) == PINNED
    assert expand(" a  lighthouse,", 7) == PINNED
    assert expand("a lighthouse", 8) != PINNED


def test_an_empty_prompt_stays_empty():
    assert expand("", 1) == ""
    assert expand(" ,. ", 1) == ""


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_dozen_words_are_added_that_are_not_there_yet(prompt):
    for seed in range(50):
        added = additions(prompt, seed)
        assert 9 <= len(added) <= 15
        assert len(set(added)) == len(added)
        told = [word for entry in added for word in words(entry) if len(word) > 4]
        assert len(set(told)) == len(told)
        assert not words(prompt) & set(told)


def test_what_the_prompt_decides_is_left_to_it():
    text = "in candlelight, black and white, sad, blurry, glossy"
    for seed in range(50):
        told = set(" ".join(additions(text, seed)).split())
        assert not {"light", "color", "colors", "palette", "joyful", "focus", "sheen"} & told


def test_seeds_give_variety():
    seen = [frozenset(additions("a cat", seed)) for seed in range(200)]
    assert len(set(seen)) == 200
    assert len(frozenset.union(*seen)) > 250


def test_a_long_prompt_gets_no_more_than_its_chunk_holds():
    prompt = " ".join(f"w{i}" for i in range(30))
    assert len(words(expand(prompt, 1))) <= 70
    longer = " ".join(f"w{i}" for i in range(60))
    assert 70 < len(words(expand(longer, 1))) <= 140


@given(st.text(max_size=200), st.integers(0, 2**63))
def test_any_prompt_can_be_expanded(prompt, seed):
    assert expand(prompt, seed) == expand(prompt, seed)


@pytest.mark.torch
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_short_prompt_stays_within_one_chunk(prompt):
    from engine.models.tokenizers import clip_tokenizer

    tokenizer = clip_tokenizer()
    for seed in range(100):
        ids = tokenizer(expand(prompt, seed), add_special_tokens=False)["input_ids"]
        assert len(ids) <= 75
