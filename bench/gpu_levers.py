"""Every lever of the engine against its default, and every memory tier: what each is worth on its own."""

import dataclasses
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from engine.engine import create
from engine.models.levers import Levers


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An engine that differs from the usual one in one thing."""

    lever: str
    setting: str
    """What it is set to here."""
    usual: str
    """What it is otherwise."""
    arguments: dict[str, Any]
    """Given to `create`."""
    is_compiled: bool = False
    """Whether painting has to wait for a compiler."""


def lever_variants(device: torch.device) -> Iterator[Variant]:
    """List every lever of `Levers` in each state but its usual one.

    Raises:
        TypeError: a lever is neither on or off nor a choice, so that its states are unknown.
    """
    usual = Levers.usual(device)
    hints = get_type_hints(Levers)
    for field in dataclasses.fields(Levers):
        value = getattr(usual, field.name)
        for other in _states(field.name, hints[field.name]):
            if other != value:
                yield Variant(
                    lever=field.name,
                    setting=_word(other),
                    usual=_word(value),
                    arguments={"levers": dataclasses.replace(usual, **{field.name: other})},
                    is_compiled=field.name == "compile" and bool(other),
                )


def tier_variants() -> Iterator[Variant]:
    """List the memory tiers that the engine knows, where it knows any."""
    parameter = inspect.signature(create).parameters.get("memory")
    if parameter is None:
        return
    hint = get_type_hints(create)["memory"]
    choices = [value for part in (hint, *get_args(hint)) for value in _literals(part)]
    for tier in dict.fromkeys(choices):
        if tier != parameter.default:
            yield Variant(
                lever="memory",
                setting=str(tier),
                usual=str(parameter.default),
                arguments={"memory": tier},
            )


def _states(name: str, hint: Any) -> tuple[Any, ...]:
    """List what a lever can be set to."""
    if hint is bool:
        return (True, False)
    if found := _literals(hint):
        return found
    raise TypeError(f"lever {name}: expected bool or a Literal, got {hint}")


def _literals(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
