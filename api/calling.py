"""A call as it comes in: read from its headers, settled, and put into the queue."""

import json
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from starlette.requests import Request

from api.addresses import base_of
from api.answers import Refused, flat
from api.bodies import read_json
from api.callers import caller
from api.settings import Api
from api.translate import translate
from api.wire import Endpoint
from engine.logs import of_job
from jobs import Call, Priority, QueueFull

MIN_TIMEOUT_S = 0.1
"""Shortest time to start, as fal has it."""
MAX_TIMEOUT_S = 30 * 86_400.0
FAULT = 422
"""The status of what is part of a result, not of the call."""
MAX_KEY = 200
"""Longest key of a call in characters."""
SUBMITTERS = 8
"""Calls that are settled at the same time; each may hold its pictures in memory."""
_SUBMITTERS: RunVar[CapacityLimiter] = RunVar("submitters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call as it came in."""

    endpoint: Endpoint
    id: str
    owner: str
    body: bytes
    cdn: str
    """Address of the files as the caller reaches them."""
    priority: Priority = "normal"
    start_within_s: float | None = None
    webhook: str | None = None
    max_queue: int | None = None
    """Most jobs that may wait before it."""


async def read_call(request: Request, api: Api, endpoint: Endpoint) -> Asked:
    """Read who asks for what, and how.

    Raises:
        HTTPException: 401, nobody knows who asks.
        Refused: 400, a header or a parameter breaks its rule.
    """
    owner = caller(request, api)
    headers, query = request.headers, request.query_params
    return Asked(
        endpoint=endpoint,
        id=_call_id(headers, owner),
        owner=owner,
        cdn=base_of("cdn", request, api.public_url),
        priority="low" if headers.get("x-fal-queue-priority") == "low" else "normal",
        start_within_s=_timeout(headers),
        webhook=_webhook(query.get("fal_webhook"), api.limits.url_chars),
        max_queue=_max_queue(query.get("fal_max_queue_length")),
        body=await request.body(),
    )


async def in_turn(take: Callable[[Api, Asked], Call], api: Api, asked: Asked) -> Call:
    """Run `submit` or `place` in a thread, a few at a time.

    They may wait for pictures from far away; who only looks waits for other threads than these.
    """
    try:
        limiter = _SUBMITTERS.get()
    except LookupError:
        limiter = CapacityLimiter(SUBMITTERS)
        _SUBMITTERS.set(limiter)
    return await to_thread.run_sync(take, api, asked, limiter=limiter)


def submit(api: Api, asked: Asked) -> Call:
    """Put a call into the queue; one whose id was taken before is the call that it was.

    Raises:
        Refused: 422, naming each field at fault; 429, too many jobs wait.
        IdTaken, QueueFull, ShuttingDown, StorageFailed: the queue does not take it.
    """
    known = api.jobs.calls.get(asked.id, asked.owner)
    if known is not None:
        return known
    _require_room(api, asked)
    with of_job(asked.id):
        settled = translate(api, asked.endpoint, read_json(asked.body))
    call = _call(asked, sync_mode=getattr(settled.values, "sync_mode", False))
    api.jobs.submit(
        settled.plan,
        owner=asked.owner,
        inputs=settled.files,
        priority=asked.priority,
        start_within_s=asked.start_within_s,
        call=call,
    )
    return call


def place(api: Api, asked: Asked) -> Call:
    """Take a call of the queue: what is wrong with its input is part of its result.

    Raises:
        Refused: 429, too many jobs wait.
        IdTaken, QueueFull, ShuttingDown, StorageFailed: the queue does not take it.
    """
    try:
        return submit(api, asked)
    except Refused as refused:
        answer = refused.answer
        if answer.status != FAULT:
            raise
        call = _call(asked, error=(FAULT, json.dumps(answer.body)))
        api.jobs.calls.add(call)
        return call


def _require_room(api: Api, asked: Asked) -> None:
    """Refuse before anything is fetched what the queue would refuse."""
    api.jobs.check_room(asked.owner)
    if asked.max_queue is not None and api.jobs.waiting() >= asked.max_queue:
        raise QueueFull(asked.max_queue)


def _call(asked: Asked, *, error: tuple[int, str] | None = None, sync_mode: bool = False) -> Call:
    return Call(
        id=asked.id,
        owner=asked.owner,
        endpoint=asked.endpoint.id,
        has_job=error is None,
        error=error,
        webhook=asked.webhook,
        sync_mode=sync_mode,
        cdn=asked.cdn,
    )


def _call_id(headers: Mapping[str, str], owner: str) -> str:
    """Take the id that the client chose, or draw one."""
    chosen, key = headers.get("x-fal-request-id"), headers.get("idempotency-key")
    if chosen:
        try:
            return str(uuid.UUID(chosen))
        except ValueError:
            raise _bad("x-fal-request-id", "a UUID", chosen) from None
    if key and len(key) > MAX_KEY:
        raise _bad("idempotency-key", f"at most {MAX_KEY} characters", key)
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{owner}\0{key}") if key else uuid.uuid4())


def _timeout(headers: Mapping[str, str]) -> float | None:
    name = "x-fal-request-timeout"
    text = headers.get(name) or headers.get("x-fal-request-start-timeout")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not MIN_TIMEOUT_S < seconds < math.inf:
        raise _bad(name, f"seconds above {MIN_TIMEOUT_S}", text)
    return min(seconds, MAX_TIMEOUT_S)


def _max_queue(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 9:
        raise _bad("fal_max_queue_length", "a whole number", text)
    return int(text)


def _webhook(url: str | None, most: int) -> str | None:
    if url and (len(url) > most or not url.startswith(("http://", "https://"))):
        raise _bad("fal_webhook", f"an http or https address of at most {most} characters", url)
    return url or None


def _bad(name: str, rule: str, value: str) -> Refused:
    return Refused(flat(400, f"{name}: expected {rule}, got {value[:80]!r}", "bad_request"))
