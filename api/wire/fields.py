"""What the models of the wire are made of: a base that reads as fal does, and fields taken from the engine's requests."""

from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from engine.knobs import knob
from engine.requests import TextRequest

NULLABLE: JsonDict = {"nullable": True}
"""Marks the fields for which fal's document says that they may be null; ours may be null wherever they are optional."""
Wholes = Annotated[float, AfterValidator(partial(round, ndigits=0))]
Thousandths = Annotated[float, AfterValidator(partial(round, ndigits=3))]
TenThousandths = Annotated[float, AfterValidator(partial(round, ndigits=4))]
"""Numbers that fal takes in steps; ours are rounded to them instead of refused."""


class WireModel(BaseModel):
    """A JSON object as fal reads it: unknown keys are ignored, and null is the same as not given."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}


def wire(name: str, model: type[BaseModel] = TextRequest, **changes: Any) -> Any:
    """Take a field over from an engine's request: its meaning, and the default and range that bind the wire.

    Args:
        name: Of the field.
        model: Whose field it is.
        changes: What is another on the wire, as arguments of pydantic's ``Field``.
    """
    field, shown = model.model_fields[name], knob(model, name)
    facts: dict[str, Any] = {"description": shown.help}
    low, high = shown.wire_bounds or (_limit(field, "ge"), _limit(field, "le"))
    facts |= {key: limit for key, limit in (("ge", low), ("le", high)) if limit is not None}
    if not field.is_required():
        facts["default"] = field.default if shown.wire_default is None else shown.wire_default
    return Field(**facts | changes)


def _limit(field: FieldInfo, name: str) -> float | None:
    return next((getattr(fact, name) for fact in field.metadata if hasattr(fact, name)), None)
