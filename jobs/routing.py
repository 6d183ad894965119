"""Which worker a job goes to: pure, from what each worker holds and has to do.

Knows nothing of processes, devices or the database.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from engine import Plan
from engine.plan import Repainting


@dataclass(frozen=True, slots=True)
class Weights:
    """What has to be in memory for a plan."""

    base_model: str | None = None
    patches: tuple[object, ...] = ()
    """What is put over the base model; equal ones share the UNet's calls."""


class Place(Protocol):
    """A worker, as far as this matters here."""

    @property
    def load(self) -> int:
        """How many jobs it has."""

    @property
    def slots(self) -> int:
        """How many it may have; 0 while there is none to have them."""

    @property
    def is_taken(self) -> bool:
        """Whether one of its jobs has to run alone."""

    @property
    def weights(self) -> Weights:
        """Those of the latest job that it was given."""


AnyPlace = TypeVar("AnyPlace", bound=Place)
SWITCH = 1.0
"""What another base model costs, in jobs beside one's own: on a GPU both take about ten seconds."""
PATCH = 0.5
"""Likewise other patches over the same one: painted in turns with those that are there, not together."""


def weights_of(plan: Plan) -> Weights:
    """Read off a plan what it needs in memory."""
    studio = plan.studio
    parts: list[object] = [*plan.loras, plan.refiner]
    if isinstance(plan.start, Repainting):
        parts += [plan.start.head, plan.start.patch]
    if studio is not None:
        parts += [studio.unet, studio.relighting]
    return Weights(plan.base_model, tuple(part for part in parts if part is not None))


def choose(places: Iterable[AnyPlace], wanted: Weights, *, alone: bool) -> AnyPlace | None:
    """Choose where a job is over soonest, among the places that take it at once; None when there is none.

    That is where the fewest others are, a switch of weights counted as one: a job joins up to one other for the sake of
    warm weights, and never waits for them while any place has room.

    Args:
        places: All there are; of equals the first is taken.
        wanted: What the job needs.
        alone: Whether it takes only a place that has no other.
    """
    able = [
        it
        for it in places
        if not it.is_taken and it.load < (min(it.slots, 1) if alone else it.slots)
    ]
    costs = {id(it): _switch(it.weights, wanted) for it in able}
    return min(able, key=lambda it: (it.load + costs[id(it)], costs[id(it)]), default=None)


def emptiest(places: Sequence[AnyPlace]) -> AnyPlace | None:
    """Name the place that has the fewest jobs, of those that may have any: one that has to run alone waits for it."""
    return min((it for it in places if it.slots), key=lambda it: it.load, default=None)


def _switch(there: Weights, wanted: Weights) -> float:
    if there.base_model != wanted.base_model:
        return SWITCH
    return 0.0 if there.patches == wanted.patches else PATCH
