"""Values out of texts that anybody may have written: numbers, rows of numbers, lists of names.

Everything is measured before it is parsed, and nothing is evaluated. What cannot be read is a `ValueError` that says what
was expected.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from engine.errors import InvalidRequest

MAX_TEXT = 1 << 20
"""Longest text, in characters, that is looked at."""
_MAX_LIST = 20_000
"""Longest list of names, in characters; 277 styles fit."""
_MAX_DEPTH = 16
"""Deepest nesting of brackets in JSON; Fooocus' records have two."""
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_QUOTED = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")


def json_object(text: str) -> Mapping[str, Any] | None:
    """Parse a JSON object; None when the text is anything else, too long or too deep."""
    text = text.strip()
    if not text.startswith("{") or len(text) > MAX_TEXT or _depth(text) > _MAX_DEPTH:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def require_length(text: str) -> None:
    """Refuse a text that is longer than any record.

    Raises:
        InvalidRequest: it is.
    """
    if len(text) > MAX_TEXT:
        raise InvalidRequest("metadata", f"expected at most {MAX_TEXT} characters, got {len(text)}")


def as_text(value: object) -> str:
    """Take a text as it is, but for what no text may hold: NUL and halves of surrogate pairs.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {_shown(value)}")
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def as_number(value: object) -> float:
    """Read a finite number, given as such or as text.

    Raises:
        ValueError: it is none.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected a number, got {_shown(value)}")
    return number


def as_whole(value: object) -> int:
    """Read a whole number, given as such or as text, exactly also above 2^53.

    Raises:
        ValueError: it is none.
    """
    text = str(value).strip()
    if isinstance(value, (int, str)) and text.removeprefix("-").isdecimal() and len(text) <= 20:
        return int(text)
    number = as_number(value)
    if not number.is_integer() or abs(number) > 2**53:
        raise ValueError(f"expected a whole number, got {_shown(value)}")
    return int(number)


def as_numbers(value: object, count: int) -> tuple[float, ...]:
    """Read `count` numbers: a list, or a text such as ``(1.5, 0.8, 0.3)``, with quotes around the numbers or without.

    Raises:
        ValueError: it is no such row.
    """
    if isinstance(value, str) and len(value) <= 200:
        parts: list[object] = [
            part.strip().strip("'\"") for part in value.strip().strip("()[]").split(",")
        ]
    else:
        parts = list(value) if isinstance(value, (list, tuple)) else []
    if len(parts) != count:
        raise ValueError(f"expected {count} numbers, got {_shown(value)}")
    return tuple(as_number(part) for part in parts)


def as_names(value: object) -> tuple[str, ...]:
    """Read names: a list, or a text such as ``['Fooocus V2', "Painter's Studio"]``.

    Raises:
        ValueError: it is no list of texts.
    """
    found = _names(value) if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"expected a list of names, got {_shown(value)}")
    return tuple(found)


def _names(text: str) -> object:
    inside = text.strip()
    if len(inside) > _MAX_LIST or (inside[:1], inside[-1:]) not in {("[", "]"), ("(", ")")}:
        return None
    if _QUOTED.sub("", inside[1:-1]).strip(" ,\n"):
        return None
    return [name[1:-1] for name in _QUOTED.findall(inside[1:-1])]


def _depth(text: str) -> int:
    """Count how deep brackets are nested outside of JSON strings."""
    depth = deepest = 0
    for char in _JSON_STRING.sub("", text):
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, str) else repr(value[:80])
    return text if len(text) <= 82 else f"{text[:80]}…"
