"""How the page's own addresses answer: JSON and bytes, a status for what the engine refuses, a limit to what is sent."""

import inspect
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine import EngineError, InvalidRequest

Endpoint = Callable[[Request], Any]

FOREVER = "private, max-age=31536000, immutable"
"""A picture never changes; only its owner's browser may keep it."""
MAX_BODY = 100_000
"""Longest request body in bytes."""


def answering(endpoint: Endpoint) -> Endpoint:
    """Turn what the queue refuses into a status: 404 for the unknown, 422 for a request that breaks a rule."""
    if inspect.iscoroutinefunction(endpoint):

        async def answer_later(request: Request) -> Response:
            try:
                return await endpoint(request)
            except EngineError as error:
                return _refusal(error)

        return answer_later

    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except EngineError as error:
            return _refusal(error)
        except FileNotFoundError:
            return as_json({"detail": "image: its file is gone"}, 404)

    return answer


def _refusal(error: EngineError) -> Response:
    unknown = error.kind in ("job_not_found", "image_not_found")
    is_wrong = error.kind in ("invalid_request", "model_incompatible")
    status = 404 if unknown else 422 if is_wrong else 503
    return as_json({"detail": str(error)}, status)


async def read_body(request: Request, field: str, most: int) -> bytes:
    """Read a body that is no longer than one of ours can be.

    Raises:
        InvalidRequest: it is longer than `most` bytes; `field` is what it holds.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise InvalidRequest(field, f"expected at most {most} bytes")
    return bytes(body)


def as_json(content: Any, status: int = 200) -> Response:
    """Answer with JSON that nobody keeps."""
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


def as_bytes(data: bytes, media_type: str, cache: str) -> Response:
    """Answer with a file; `cache` says who may keep it, as ``Cache-Control`` does."""
    return Response(data, media_type=media_type, headers=file_headers(cache))


def file_headers(cache: str) -> dict[str, str]:
    """Write the headers of a file that somebody brought or made: it is what its type says, and nothing in it runs."""
    return {
        "Cache-Control": cache,
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
