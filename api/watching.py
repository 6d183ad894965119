"""Waiting for a job on the event loop, for as long as somebody is there to hear of it."""

import asyncio
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.settings import Api
from jobs import Call, Standing

PING_S = 15.0
"""A stream says something at least so often, so that proxies keep it and a gone client is noticed."""
PACE_S = 0.05
"""Shortest time between two looks."""


async def standings(api: Api, call: Call) -> AsyncIterator[Standing | None]:
    """Tell how far a call's job is: now, at each change, and None when nothing changed for a while.

    Ends with the job, or without its end when the server shuts down.

    Raises:
        JobNotFound: the job is gone.
    """
    with api.jobs.watching(call.id) as news:
        while True:
            news.clear()
            standing = await run_in_threadpool(api.jobs.standing, call.id, owner=call.owner)
            yield standing
            if standing.is_over or api.jobs.is_closed:
                return
            while not await _is_set(news):
                yield None
            await asyncio.sleep(PACE_S)


async def wait_over(api: Api, call: Call, request: Request) -> Standing | None:
    """Wait for the end of a call's job; None when its client goes away first, or the server shuts down.

    Raises:
        JobNotFound: the job is gone.
    """
    end = asyncio.ensure_future(_end(api, call))
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({end, gone}, return_when=asyncio.FIRST_COMPLETED)
        return end.result() if end.done() else None
    finally:
        end.cancel()
        gone.cancel()


async def _end(api: Api, call: Call) -> Standing | None:
    async for standing in standings(api, call):
        if standing is not None and standing.is_over:
            return standing
    return None


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _is_set(news: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(news.wait(), PING_S)
    except TimeoutError:
        return False
    return True
