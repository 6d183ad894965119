"""Prompts are read as Fooocus reads them: weights, escapes, words, chunks. No torch here."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompt.syntax import (
    CHUNK_TOKENS,
    Token,
    chunk_prompt,
    chunk_words,
    clean,
    frame,
    parse_weights,
    split_words,
    tidy_commas,
)
from tests.golden_data import golden_json

GOLDEN = golden_json("prompts.json")

prompts = st.text(st.sampled_from("ab ,:.1()\\\n"), max_size=40)


def word(length: int, first: int = 0) -> list[Token]:
    return [Token(first + i, 1.0) for i in range(length)]


@pytest.mark.parametrize("case", GOLDEN.get("clean", []))
def test_clean_golden(case):
    assert clean(str(case["input"])) == case["output"]


@pytest.mark.parametrize("case", GOLDEN.get("tidy_commas", []))
def test_tidy_commas_golden(case):
    assert tidy_commas(case["input"]) == case["output"]


@pytest.mark.parametrize("case", GOLDEN.get("weights", []))
def test_weights_golden(case):
    # Compared as text: weights that are not finite are written so in the golden file.
    expected = [(text, str(weight)) for text, weight in case["output"]]
    assert [(text, str(weight)) for text, weight in parse_weights(case["input"])] == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a (b", [("a ", 1.0), ("(b", 1.0)]),
        ("(a (b)", [("a ", 1.1), ("(b", 1.1)]),
        ("a) (b) (c)", [("a) (b) (c)", 1.0)]),  # each plain group leaves one ")" too many again
        ("(a\\):2)", [("a)", 2.0)]),
    ],
)
def test_odd_parentheses(text, parts):
    assert list(parse_weights(text)) == parts


def test_deep_nesting_is_read_in_linear_time():
    (part,) = parse_weights("(" * 20_000 + "a:2" + ")" * 20_000)
    assert part.text == "a"
    assert part.weight == 2.0


@given(prompts)
def test_no_letter_is_lost_but_the_numbers(text):
    letters = [letter for letter in text if letter in "ab"]
    read = "".join(part.text for part in parse_weights(text))
    assert [letter for letter in read if letter in "ab"] == letters


@given(prompts.filter(lambda text: not {"(", ")", "\\"} & set(text)))
def test_text_without_parentheses_has_weight_1(text):
    assert [tuple(part) for part in parse_weights(text)] == ([(text, 1.0)] if text else [])


@given(prompts)
def test_cleaning_twice_is_cleaning_once(text):
    assert clean(clean(text)) == clean(text)
    assert tidy_commas(tidy_commas(text)) == tidy_commas(text)


def test_words_are_split_at_spaces_and_line_ends():
    assert [tuple(w) for w in split_words("two\nlines  (of text:1.5)")] == [
        ("two", 1.0),
        ("lines", 1.0),
        ("of", 1.5),
        ("text", 1.5),
    ]


@pytest.mark.parametrize(
    ("lengths", "chunks"),
    [
        ([], [0]),
        ([75], [75]),
        ([76], [75, 1]),
        ([70, 7], [70, 7]),  # a short word moves on whole
        ([70, 8], [75, 3]),  # a long one is cut
        ([75, 8], [75, 8]),
        ([160], [75, 75, 10]),
    ],
)
def test_chunks_end_where_a_short_word_does_not_fit(lengths, chunks):
    assert [len(chunk) for chunk in chunk_words(map(word, lengths))] == chunks


@given(st.lists(st.integers(0, 90), max_size=12))
def test_chunks_keep_all_tokens_in_order(lengths):
    words = [word(length, first=100 * i) for i, length in enumerate(lengths)]
    chunks = chunk_words(words)
    assert all(len(chunk) <= CHUNK_TOKENS - 2 for chunk in chunks)
    assert [token for chunk in chunks for token in chunk] == [t for w in words for t in w]


def test_a_framed_chunk_is_77_tokens_long():
    ids = [token.id for token in frame([Token(7, 1.2)], bos=1, eos=2, pad=0)]
    assert ids == [1, 7, 2] + [0] * 74
    assert len(frame(word(75), bos=1, eos=2, pad=0)) == 77


def test_a_word_keeps_its_weight_through_the_tokenizer():
    ((first, second, third),) = chunk_prompt("(ab:1.5) c", lambda w: [ord(letter) for letter in w])
    assert first == Token(ord("a"), 1.5)
    assert second == Token(ord("b"), 1.5)
    assert third == Token(ord("c"), 1.0)
    assert math.isnan(parse_weights("(x:nan)")[0].weight)
