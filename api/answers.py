"""What we answer when there is no picture, in exactly the forms that fal has: the only place that knows them.

Faults of the input are a list that names each field (422), everything else is one sentence with a type.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from api.images import InputRefused
from engine import EngineError, InvalidRequest

NO_BILL = {"x-fal-billable-units": "0"}
MAX_SHOWN = 1000
"""How much of an input an answer repeats, in characters."""
MAX_PROBLEMS = 50
"""Most faults that one answer names."""
RETRY_AFTER_S = 5
"""When it makes sense to ask again, where the studio has no room now."""
AT_FAULT = frozenset({"invalid_request", "model_not_found", "model_incompatible"})
"""Kinds of errors that a field of the request is at fault for."""
KINDS: Mapping[str, tuple[int, str | None]] = {
    "job_not_found": (404, None),
    "image_not_found": (404, None),
    "id_taken": (400, "bad_request"),
    "no_room": (413, "file_too_large"),
    "queue_full": (429, "concurrent_requests_limit"),
    "start_timeout": (504, "request_timeout"),
    "out_of_memory": (500, "internal_error"),
    "worker_died": (500, "internal_error"),
    "shutting_down": (503, "runner_scheduling_failure"),
    "storage_failed": (503, "runner_server_error"),
}
"""Status and fal's type of every other kind; a kind that is not here is a defect of ours."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body, to be sent now or kept."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, **headers: str) -> Response:
        """Make it a response, in characters that need no decoding."""
        return Response(
            json.dumps(self.body),
            self.status,
            {**self.headers, **headers},
            media_type="application/json",
        )


class Refused(Exception):
    """There is an answer already, and it is no."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def flat(status: int, detail: str, error_type: str | None = None, **headers: str) -> Answer:
    """Write an error that is not about a field of the input."""
    body = {"detail": detail} | ({"error_type": error_type} if error_type else {})
    told = {"x-fal-error-type": error_type} if error_type else {}
    return Answer(status, body, {**NO_BILL, **told, **headers})


def problem(loc: Sequence[str | int], message: str, kind: str = "value_error", **more: Any) -> Any:
    """Write what is wrong with one field; `loc` leads to it from the input."""
    return {"loc": ["body", *loc], "msg": message, "type": kind, **more}


def unprocessable(problems: Iterable[Any]) -> Answer:
    """Write what is wrong with the input."""
    return Answer(422, {"detail": list(problems)[:MAX_PROBLEMS]}, NO_BILL)


def unreadable(message: str) -> Answer:
    """Write that the body is no JSON."""
    return unprocessable([problem([], message, "json_invalid")])


def of_validation(error: ValidationError) -> Answer:
    """Write what the models of the wire found wrong."""
    return unprocessable(
        problem(
            item["loc"], item["msg"], item["type"], input=shown(item["input"]), **_context(item)
        )
        for item in error.errors(include_url=False)[:MAX_PROBLEMS]
    )


def of_error(
    error: EngineError, body: object = None, wire_name: Callable[[str], str] = str
) -> Answer:
    """Write what the engine or the queue refused.

    Args:
        error: Why.
        body: The input, where there was one.
        wire_name: From a dotted field of the engine's request to the caller's own.
    """
    if isinstance(error, InputRefused):
        loc, message = _place(error.field, error.problem, wire_name)
        context = {"ctx": error.ctx} if error.ctx else {}
        value = shown(_value(body, loc))
        return unprocessable([problem(loc, message, error.type, input=value, **context)])
    if isinstance(error, InvalidRequest):
        return of_failure(error.kind, error.problem, error.field, body, wire_name)
    return of_failure(error.kind, str(error), None, body, wire_name)


def of_failure(
    kind: str,
    message: str,
    named: str | None = None,
    body: object = None,
    wire_name: Callable[[str], str] = str,
) -> Answer:
    """Write why there is no picture.

    Args:
        kind: As `EngineError.kind`, or ``internal``.
        message: One sentence.
        named: Dotted path of the field that is at fault.
        body: The input, where it is at hand.
        wire_name: As `of_error` takes it.
    """
    if kind in AT_FAULT:
        loc, message = _place(named, message, wire_name)
        return unprocessable([problem(loc, message, input=shown(_value(body, loc)))])
    status, error_type = KINDS.get(kind, (500, "internal_error"))
    headers = {"x-fal-retryable": "true" if status in (429, 503) else "false"}
    if kind in ("queue_full", "shutting_down"):
        headers["retry-after"] = str(RETRY_AFTER_S)
    if kind == "start_timeout":
        message = "Request timed out"
        headers["x-fal-request-timeout-type"] = "user"
    return flat(status, message, error_type, **headers)


def cancelled() -> Answer:
    """Write that its client does not want it any more."""
    return flat(499, "Request cancelled by the client.", "client_cancelled")


def gone() -> Answer:
    """Write what nobody reads: its client went away."""
    return flat(499, "The client went away.", "client_disconnected")


def shown(value: object) -> Any:
    """Repeat a part of the input in JSON types; of a long one, the beginning of what it is written as."""
    if isinstance(value, str):
        return value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…"
    text = json.dumps(value, default=repr)
    return json.loads(text) if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _context(item: Any) -> dict[str, Any]:
    """Take over what pydantic says of the rule, in JSON types."""
    facts = item.get("ctx")
    return {"ctx": {key: shown(value) for key, value in facts.items()}} if facts else {}


def _place(
    named: str | None, message: str, wire_name: Callable[[str], str]
) -> tuple[list[str | int], str]:
    """Find the field that is at fault; sentences of the catalog begin with its name."""
    if named is None:
        named, colon, rest = message.partition(": ")
        if not colon or not named.replace("_", "").replace(".", "").isalnum():
            return [], message
        message = rest
    named = wire_name(named)
    parts: list[str | int] = [int(part) if part.isdecimal() else part for part in named.split(".")]
    is_advanced = parts[0] in ("base_model", "vae")
    return (["advanced", *parts] if is_advanced else parts), message


def _value(body: object, loc: Sequence[str | int]) -> object:
    for part in loc:
        if isinstance(body, dict):
            body = body.get(str(part))
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            body = body[part]
        else:
            return None
    return body
