"""A job goes where it is over soonest: to warm weights, unless somebody idle is as quick."""

from dataclasses import dataclass, replace

import pytest

from engine.plan import Lora
from jobs.routing import Weights, choose, emptiest, weights_of
from tests.jobs.scripted_engine import toy_plan

RED, BLUE = Weights("red"), Weights("blue")
RED_PATCHED = Weights("red", ("a LoRA",))


@dataclass
class Place:
    """A worker as the router sees it."""

    name: str
    load: int = 0
    slots: int = 4
    is_taken: bool = False
    weights: Weights = RED


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([Place("cold", weights=BLUE), Place("warm")], "warm"),
        ([Place("first"), Place("second")], "first"),
        ([Place("warm", load=1), Place("idle and cold", weights=BLUE)], "warm"),
        ([Place("warm", load=2), Place("idle and cold", weights=BLUE)], "idle and cold"),
        ([Place("warm", load=1), Place("idle, other patches", weights=RED_PATCHED)], "idle, other patches"),
        ([Place("other base", weights=BLUE), Place("other patches", weights=RED_PATCHED)], "other patches"),
        ([Place("warm and full", load=1, slots=1), Place("cold", load=3, weights=BLUE)], "cold"),
        ([Place("warm", load=3), Place("warm too", load=2)], "warm too"),
        ([Place("not there", slots=0), Place("busy", load=3)], "busy"),
        ([Place("taken", load=1, is_taken=True), Place("busy", load=3)], "busy"),
        ([Place("taken", load=1, is_taken=True), Place("full", load=4)], None),
        ([], None),
    ],
)  # fmt: skip
def test_a_job_goes_where_it_is_over_soonest(places, expected):
    chosen = choose(places, RED, alone=False)
    assert (chosen and chosen.name) == expected


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([Place("warm", load=1), Place("cold", weights=BLUE)], "cold"),
        ([Place("warm", load=1), Place("cold", load=2)], None),
        ([Place("not there", slots=0)], None),
    ],
)
def test_a_job_that_runs_alone_takes_only_an_idle_worker(places, expected):
    chosen = choose(places, RED, alone=True)
    assert (chosen and chosen.name) == expected


def test_the_one_with_the_fewest_jobs_is_kept_for_it():
    places = [Place("three", load=3), Place("two", load=2), Place("not there", slots=0)]
    assert emptiest(places) is places[1]
    assert emptiest(places[2:]) is None


def test_weights_are_the_base_model_and_what_is_put_over_it():
    plain = toy_plan("a cat")
    patched = replace(plain, loras=(Lora(name="fur", scale=0.5),))
    stronger = replace(plain, loras=(Lora(name="fur", scale=0.7),))
    assert weights_of(plain) == weights_of(toy_plan("a dog")) == Weights("toy")
    assert weights_of(patched) == weights_of(replace(patched, prompt="another"))
    assert len({weights_of(plan) for plan in (plain, patched, stronger)}) == 3
