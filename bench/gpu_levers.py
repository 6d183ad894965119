"""Every lever of the engine against its default, and every memory tier: what each is worth on its own."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from engine.models.levers import Levers
from engine.models.memory import AUTO, Tier

ON_A_GPU = ("attention",)
"""Levers that do nothing elsewhere."""


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
        TypeError: a lever is neither on or off nor a choice.
    """
    usual = Levers.usual(device)
    hints = get_type_hints(Levers)
    for field in dataclasses.fields(Levers):
        value = getattr(usual, field.name)
        for other in states(field.name, hints[field.name]):
            if other != value:
                yield Variant(
                    lever=field.name,
                    setting=_word(other),
                    usual=_word(value),
                    arguments={"levers": dataclasses.replace(usual, **{field.name: other})},
                    is_compiled=field.name == "compile" and bool(other),
                )


def compiling(device: torch.device) -> Variant:
    """Give the engine that compiles, whatever is usual."""
    levers = dataclasses.replace(Levers.usual(device), compile=True)
    return Variant(
        lever="compile",
        setting="on",
        usual="off",
        arguments={"levers": levers},
        is_compiled=True,
    )


def tier_variants() -> Iterator[Variant]:
    """List the memory tiers, from all of a model on the device to next to nothing."""
    for tier in Tier:
        yield Variant(
            lever="memory", setting=str(tier), usual=AUTO, arguments={"memory": str(tier)}
        )


def states(name: str, hint: Any) -> tuple[Any, ...]:
    """List what a lever of that type can be set to.

    Raises:
        TypeError: nobody knows.
    """
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
