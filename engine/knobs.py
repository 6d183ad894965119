"""How a field of a request is described, beside its type and its range."""

from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class Knob:
    """What the page shows for a field."""

    label: str
    """Name on the page."""
    help: str
    """One sentence under it."""
    step: float | None = None
    """Smallest change of a slider."""
    wire_default: Any = None
    """fal's default, where it is another than the page's."""
    wire_bounds: tuple[float, float] | None = None
    """fal's range, where it is another than the page's."""


class RequestPart(BaseModel):
    """Part of a request: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


def knob(model: type[BaseModel], name: str) -> Knob:
    """Find the `Knob` of one field."""
    return next(item for item in model.model_fields[name].metadata if isinstance(item, Knob))


def choices(model: type[BaseModel], name: str) -> tuple[str, ...]:
    """List the values of a field that is a choice, in display order."""
    return get_args(model.model_fields[name].annotation)


def bounds(model: type[BaseModel], name: str) -> tuple[float, float]:
    """Read the page's range of a numeric field."""
    facts = model.model_fields[name].metadata
    low = next(fact.ge for fact in facts if hasattr(fact, "ge"))
    high = next(fact.le for fact in facts if hasattr(fact, "le"))
    return low, high
