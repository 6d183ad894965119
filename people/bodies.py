"""What our own pages send: small objects of texts."""

import json
from collections.abc import Mapping

from starlette.requests import Request

from engine import InvalidRequest

MAX_BODY = 10_000
"""Longest body of a request in bytes."""


async def read_object(request: Request) -> Mapping[str, str]:
    """Read an object of texts.

    Raises:
        InvalidRequest: it is none.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise InvalidRequest("body", f"expected at most {MAX_BODY} bytes")
    try:
        given = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("body", "expected JSON") from error
    if not isinstance(given, dict) or not all(isinstance(it, str) for it in given.values()):
        raise InvalidRequest("body", "expected an object of texts")
    return given
