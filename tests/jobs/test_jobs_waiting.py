"""Owners take turns, one owner's jobs keep their order, and what is promised is what happens."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from jobs.waiting import Waiting

OWNERS = st.lists(st.sampled_from("abc"), max_size=30)


def waiting(owners):
    found = Waiting()
    for number, owner in enumerate(owners):
        found.add(f"{owner}{number}", number=number, owner=owner)
    return found


def take_all(queue):
    taken = []
    while (job_id := queue.first()) is not None:
        queue.take(job_id)
        taken.append(job_id)
    return taken


@given(OWNERS, st.integers(0, 30))
def test_jobs_start_in_the_order_that_was_told(owners, some):
    queue = waiting(owners)
    for _ in range(min(some, len(owners))):
        queue.take(queue.first())
    told = queue.order()
    assert len(queue) == len(told)
    assert take_all(queue) == told
    assert len(queue) == 0


@given(OWNERS)
def test_nobody_waits_longer_than_one_turn_of_each_owner(owners):
    order = take_all(waiting(owners))
    for owner in set(owners):
        places = [place for place, job_id in enumerate(order) if job_id[0] == owner]
        assert places[0] < len(set(owners))
        assert all(after - before <= len(set(owners)) for before, after in pairwise(places))
        own = [order[place] for place in places]
        assert own == sorted(own, key=lambda job_id: int(job_id[1:]))


def test_jobs_that_must_run_alone_come_first_and_removed_ones_not_at_all():
    queue = waiting("aab")
    queue.add("late", number=-1, owner="b", alone=True)
    assert queue.remove("a0")
    assert not queue.remove("a0")
    assert take_all(queue) == ["late", "a1", "b2"]


def test_a_job_that_comes_back_takes_its_old_place():
    queue = waiting("aaa")
    queue.take("a0")
    queue.add("a0", number=0, owner="a")
    assert queue.order() == ["a0", "a1", "a2"]
