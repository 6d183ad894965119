"""Bodies of requests: read whole, as JSON that everything behind can hold."""

import json
from typing import Any, NoReturn

from starlette.requests import Request

from api.answers import Refused, problem, unprocessable, unreadable

MAX_KEPT = 65_536
"""Longest text in characters that is kept of a body."""
MAX_DIGITS = 400
"""Longest number."""


async def read_bytes(request: Request) -> bytes:
    """Read a body whole; how long it may be, `api.limits` says."""
    return await request.body()


def read_json(data: bytes) -> Any:
    """Read JSON.

    Raises:
        Refused: it is none, nests too deep, or holds what cannot be written down.
    """
    if not data:
        raise Refused(unprocessable([problem([], "Field required", "missing", input=None)]))
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_number, parse_int=_whole)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise Refused(unreadable(f"JSON decode error: <binary {len(data)} bytes>")) from None
    except UnicodeEncodeError:
        raise Refused(unreadable("JSON decode error: half a surrogate pair")) from None
    except RecursionError:
        raise Refused(unreadable("JSON decode error: nested too deep")) from None
    except ValueError as error:
        raise Refused(unreadable(f"JSON decode error: {str(error)[:200]}")) from None
    return value


def kept(value: object) -> str:
    """Write down what was asked, without the files in it."""
    return json.dumps(_without_files(value))[:MAX_KEPT]


def _without_files(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_files(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_files(item) for item in value]
    if isinstance(value, str) and value.startswith("data:"):
        return value[: value.find(",") + 1][:100] + "…"
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"expected a number, got {text}")


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"expected a number of at most {MAX_DIGITS} digits")
    return int(text)
