"""Arrays give each image its words, the first array fastest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompt.arrays import array_period, fill_arrays
from tests.golden_data import golden_json

GOLDEN = golden_json("prompts.json").get("arrays", [])


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_arrays_golden(case):
    assert fill_arrays(case["text"], case["index"]) == case["output"]


@pytest.mark.parametrize(
    ("text", "period"), [("none", 1), ("[[a]]", 1), ("[[a,b]] [[c,d,e]]", 6), ("[[a,b", 1)]
)
def test_the_period_counts_the_combinations(text, period):
    assert array_period(text) == period


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 100))
def test_every_combination_comes_once_a_period(lengths, start):
    text = " ".join(f"[[{','.join(map(str, range(length)))}]]" for length in lengths)
    period = array_period(text)
    assert len({fill_arrays(text, start + i) for i in range(period)}) == period
    assert fill_arrays(text, start + period) == fill_arrays(text, start)


def test_brackets_that_never_close_are_text():
    text = "a [[b,c]] " + "[[" * 100_000
    assert fill_arrays(text, 1) == "a c " + "[[" * 100_000
