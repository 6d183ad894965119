"""The queue: submit, look, stream, fetch, cancel. Before a request id may stand the app or any endpoint of it."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from api.addresses import PREFIXES, base_of
from api.answers import Answer, cancelled, flat
from api.callers import caller
from api.calling import in_turn, place, read_call
from api.results import answer_of, of_failed, unknown
from api.settings import Api
from api.watching import standings
from api.wire import ENDPOINTS, Endpoint
from jobs import Call, LogLine, Standing

Look = Callable[[Request], Awaitable[Response]]
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PING = ": ping\n\n"
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
REFUSED = Standing(state="failed")
"""How far a call is that became no job."""


def queue_routes(api: Api) -> list[BaseRoute]:
    """List the routes below ``/queue``."""
    desk = _Desk(api)
    found: list[BaseRoute] = []
    for endpoint in ENDPOINTS.values():
        base = f"/queue/{endpoint.id}"
        request = f"{base}/requests/{{request_id}}"
        found += [
            Route(base, desk.submitting(endpoint), methods=["POST"]),
            Route(request, desk.result, methods=["GET"]),
            Route(f"{request}/status", desk.status, methods=["GET"]),
            Route(f"{request}/status/stream", desk.stream, methods=["GET"]),
            Route(f"{request}/cancel", desk.cancel, methods=["PUT"]),
        ]
    return found


class _Desk:
    """What each route answers."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def submitting(self, endpoint: Endpoint) -> Look:
        async def submit(request: Request) -> Response:
            asked = await read_call(request, self._api, endpoint)
            request.state.fal_request_id = asked.id
            call = await in_turn(place, self._api, asked)
            standing = await run_in_threadpool(self._standing, call)
            body = {
                "status": "IN_QUEUE",
                "request_id": call.id,
                "queue_position": standing.position or 0,
                **self._links(request, call),
            }
            return Answer(200, body).response(**{"x-fal-request-id": call.id})

        return submit

    async def status(self, request: Request) -> Response:
        call = await self._call(request)
        if call is None:
            return _named(unknown(), request)
        body, standing = await run_in_threadpool(self._status, request, call)
        return _named(Answer(200 if standing.is_over else 202, body), request)

    async def stream(self, request: Request) -> Response:
        call = await self._call(request)
        if call is None:
            return _named(unknown(), request)
        return StreamingResponse(
            self._events(request, call),
            media_type="text/event-stream",
            headers={**STREAM_HEADERS, "x-fal-request-id": call.id},
        )

    async def result(self, request: Request) -> Response:
        call = await self._call(request)
        if call is None:
            return _named(unknown(), request)
        cdn = base_of("cdn", request, self._api.public_url)
        answer = await run_in_threadpool(answer_of, self._api, call, cdn)
        return _named(answer or flat(400, "Request is still in progress"), request)

    async def cancel(self, request: Request) -> Response:
        call = await self._call(request)
        if call is None:
            return _named(Answer(404, {"status": "NOT_FOUND"}), request)
        is_cancelled = call.has_job and await run_in_threadpool(
            self._api.jobs.cancel, call.id, owner=call.owner
        )
        if is_cancelled:
            return _named(Answer(202, {"status": "CANCELLATION_REQUESTED"}), request)
        return _named(Answer(400, {"status": "ALREADY_COMPLETED"}), request)

    async def _events(self, request: Request, call: Call) -> AsyncIterator[str]:
        """Tell each change of the status as an event; logs are those since the last one."""
        told, last = 0, None
        if not call.has_job:
            body, _ = self._status(request, call)
            yield _event(body)
            return
        async for standing in standings(self._api, call):
            if standing is None:
                yield PING
                continue
            body, _ = await run_in_threadpool(self._status, request, call, standing)
            if body.get("logs"):
                lines = body["logs"]
                body["logs"], told = lines[told:], len(lines)
            if body != last:
                last = {**body, "logs": []} if "logs" in body else body
                yield _event(body)

    async def _call(self, request: Request) -> Call | None:
        owner = caller(request, self._api, with_token=True)
        call_id = request.path_params["request_id"]
        if not ID.fullmatch(call_id):
            return None
        call = await run_in_threadpool(self._api.jobs.calls.get, call_id, owner)
        is_here = call is not None and _is_below(request.url.path, ENDPOINTS[call.endpoint].app)
        return call if is_here else None

    def _standing(self, call: Call) -> Standing:
        if not call.has_job:
            return REFUSED
        return self._api.jobs.standing(call.id, owner=call.owner)

    def _status(
        self, request: Request, call: Call, standing: Standing | None = None
    ) -> tuple[dict[str, Any], Standing]:
        standing = standing or self._standing(call)
        body: dict[str, Any] = {
            "status": _state(standing),
            "request_id": call.id,
            **self._links(request, call),
        }
        if standing.state == "waiting":
            return {**body, "queue_position": standing.position or 0}, standing
        body["logs"] = self._logs(call) if _wants_logs(request) else None
        if standing.is_over:
            body["metrics"] = {"inference_time": round(standing.seconds, 3)}
            body |= _failure(call, standing)
        return body, standing

    def _logs(self, call: Call) -> list[dict[str, str]]:
        lines: Sequence[LogLine] = ()
        if call.has_job:
            lines = self._api.jobs.log(call.id, owner=call.owner)
        return [_line(line) for line in lines]

    def _links(self, request: Request, call: Call) -> dict[str, str]:
        queue = base_of("queue", request, self._api.public_url)
        address = f"{queue}/{ENDPOINTS[call.endpoint].app}/requests/{call.id}"
        return {
            "response_url": address,
            "status_url": f"{address}/status",
            "cancel_url": f"{address}/cancel",
        }


def _is_below(path: str, app: str) -> bool:
    return path.startswith(f"{PREFIXES['queue']}/{app}/")


def _state(standing: Standing) -> str:
    if standing.is_over:
        return "COMPLETED"
    return "IN_QUEUE" if standing.state == "waiting" else "IN_PROGRESS"


def _failure(call: Call, standing: Standing) -> dict[str, str]:
    """Say in a status that there are no pictures."""
    if call.error is not None:
        return {"error": f"Invalid status code: {call.error[0]}"}
    if standing.state == "finished":
        return {}
    answer = of_failed(standing.error) if standing.error else cancelled()
    kind = answer.body.get("error_type")
    error = {"error": f"Invalid status code: {answer.status}"}
    return error | ({"error_type": kind} if kind else {})


def _line(line: LogLine) -> dict[str, str]:
    return {
        "message": line.message,
        "level": line.level,
        "source": "USER",
        "timestamp": datetime.fromtimestamp(line.at, UTC).isoformat(timespec="microseconds"),
    }


def _wants_logs(request: Request) -> bool:
    return request.query_params.get("logs", "").lower() in ("1", "true", "1.0")


def _named(answer: Answer, request: Request) -> Response:
    """Send an answer under the id that was asked for, where it can be one."""
    call_id = request.path_params["request_id"]
    return answer.response(**{"x-fal-request-id": call_id} if ID.fullmatch(call_id) else {})


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
