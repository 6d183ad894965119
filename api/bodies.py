"""Bodies of requests: read whole, as JSON that everything behind can hold."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from api.answers import Refused, unreadable

MAX_DIGITS = 308
"""Longest number; any such one is in the range of a float."""
MAX_VALUES = 50_000
"""Most values in a body: each takes far more memory than the characters that it is written in."""
MAX_DEPTH = 64
"""Deepest nesting."""
TOO_DEEP = f"JSON decode error: expected at most {MAX_DEPTH} levels"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(data: bytes) -> Any:
    """Read JSON; no body at all is the same as an empty object.

    Raises:
        Refused: it is none, is too large or nests too deep, or holds what cannot be written down.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise Refused(unreadable(f"JSON decode error: expected at most {MAX_VALUES} values"))
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text or "{}", parse_constant=_no_number, parse_int=_whole, parse_float=_finite
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise Refused(unreadable(f"JSON decode error: <binary {len(data)} bytes>")) from None
    except UnicodeEncodeError:
        raise Refused(unreadable("JSON decode error: half a surrogate pair")) from None
    except RecursionError:
        raise Refused(unreadable(TOO_DEEP)) from None
    except ValueError as error:
        raise Refused(unreadable(f"JSON decode error: {str(error)[:200]}")) from None
    if _is_deep(value):
        raise Refused(unreadable(TOO_DEEP))
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for outer in level for item in _inside(outer)]
    return bool(level)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"expected a number, got {text}")


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"expected a number of at most {MAX_DIGITS} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("expected a number within the range of a float")
    return number
