"""The direct way: one request that is answered when the pictures are there. Who goes away takes the job along."""

import logging
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from api.answers import gone
from api.calling import Asked, in_turn, read_call, submit
from api.results import answer_of
from api.settings import Api
from api.watching import wait_over
from api.wire import ENDPOINTS, Endpoint
from jobs import ShuttingDown

log = logging.getLogger(__name__)


def run_routes(api: Api) -> list[BaseRoute]:
    """List the routes of the direct way: the ids of the endpoints."""
    return [
        Route(f"/{endpoint.id}", _running(api, endpoint), methods=["POST"])
        for endpoint in ENDPOINTS.values()
    ]


def _running(api: Api, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        asked = await read_call(request, api, endpoint)
        request.state.fal_request_id = asked.id
        return await _run(api, asked, request)

    return run


async def _run(api: Api, asked: Asked, request: Request) -> Response:
    known = await run_in_threadpool(api.jobs.calls.get, asked.id, asked.owner)
    call = await in_turn(submit, api, asked)
    if call.has_job:
        await wait_over(api, call, request)
    answer = await run_in_threadpool(answer_of, api, call, asked.cdn)
    if answer is None and api.jobs.is_closed:
        raise ShuttingDown
    if answer is None:
        log.info("its client went away", extra={"job": call.id})
        if known is None:
            await run_in_threadpool(api.jobs.cancel, call.id, owner=call.owner)
        answer = gone()
    return answer.response(**{"x-fal-request-id": call.id})
