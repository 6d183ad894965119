"""The page's own addresses below ``/studio``: job events, previews, pictures, history.

Gradio drops its events when a browser goes away, so watching and looking go past it. Every address answers for the
visitor's own jobs and pictures only; those of others are as unknown as those that never were.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from engine import EngineError, Event, InvalidRequest
from ui.studio import Studio
from ui.theme import STATIC
from ui.thumbnails import Thumbnails
from ui.updates import image_count, image_facts, job_facts, update

Endpoint = Callable[[Request], Any]

PAGE = 60
"""Pictures that History asks for at a time."""
HEARTBEAT_S = 15.0
"""An event stream says something at least so often, so that proxies keep it and a gone browser is noticed."""
FOREVER = "private, max-age=31536000, immutable"
"""A picture never changes; only its owner's browser may keep it."""
MAX_IDS = 1000
"""Pictures that one request may delete or restore."""
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def routes(studio: Studio) -> list[BaseRoute]:
    """List the routes that the page needs; the caller hands them to ``demo.launch``."""
    jobs, owner_of = studio.jobs, studio.owner_of
    thumbnails = Thumbnails()
    files = {
        path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES
    }

    def state(request: Request) -> Response:
        active = jobs.active(owner=owner_of(request))
        return _json({"studio": _studio_facts(studio), "jobs": [job_facts(job) for job in active]})

    def job(request: Request) -> Response:
        return _json(job_facts(jobs.job(request.path_params["job"], owner=owner_of(request))))

    async def events(request: Request) -> Response:
        owner, job_id = owner_of(request), request.path_params["job"]
        found = await run_in_threadpool(jobs.job, job_id, owner=owner)
        story = jobs.events(job_id, owner=owner, after=_last_seen(request))
        return StreamingResponse(
            _stream(story, image_count(found)),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def preview(request: Request) -> Response:
        places = request.path_params
        data = jobs.preview(places["job"], places["image"], owner=owner_of(request))
        if data is None:
            return Response(status_code=404, headers={"Cache-Control": "no-store"})
        return _picture(data, "image/jpeg", "no-store")

    def skip(request: Request) -> Response:
        return _json({"done": jobs.skip(request.path_params["job"], owner=owner_of(request))})

    def cancel(request: Request) -> Response:
        return _json({"done": jobs.cancel(request.path_params["job"], owner=owner_of(request))})

    def history(request: Request) -> Response:
        asked = request.query_params
        found = jobs.history(
            owner=owner_of(request),
            search=asked.get("search", ""),
            before=asked.get("before") or None,
            limit=PAGE,
        )
        return _json({"images": [image_facts(image) for image in found], "more": len(found) == PAGE})

    def thumbnail(request: Request) -> Response:
        image = jobs.image(request.path_params["image"], owner=owner_of(request))
        return _picture(thumbnails.of(image.id, image.path), "image/webp", FOREVER)

    def file(request: Request) -> Response:
        image = jobs.image(request.path_params["image"], owner=owner_of(request))
        return FileResponse(
            image.path,
            media_type=image.content_type,
            filename=f"pochade-{image.created_at:%Y%m%d-%H%M%S}-{image.seed}{image.path.suffix}",
            content_disposition_type="attachment" if "download" in request.query_params else "inline",
            headers={"Cache-Control": FOREVER, "X-Content-Type-Options": "nosniff"},
        )

    async def delete(request: Request) -> Response:
        ids = await _ids(request)
        return _json({"count": await run_in_threadpool(jobs.delete, ids, owner=owner_of(request))})

    async def restore(request: Request) -> Response:
        ids = await _ids(request)
        return _json({"count": await run_in_threadpool(jobs.restore, ids, owner=owner_of(request))})

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            return Response(status_code=404)
        suffix = name[name.rindex(".") :]
        return Response(
            files[name],
            media_type=MEDIA_TYPES[suffix],
            headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"},
        )

    return [
        Route("/studio/static/{name}", static),
        *(
            Route(f"/studio/{path}", _answering(endpoint), methods=[method])
            for method, path, endpoint in (
                ("GET", "state", state),
                ("GET", "jobs/{job}", job),
                ("GET", "jobs/{job}/events", events),
                ("GET", "jobs/{job}/previews/{image:int}", preview),
                ("POST", "jobs/{job}/skip", skip),
                ("POST", "jobs/{job}/cancel", cancel),
                ("GET", "images", history),
                ("POST", "images/delete", delete),
                ("POST", "images/restore", restore),
                ("GET", "images/{image}/thumbnail", thumbnail),
                ("GET", "images/{image}/file", file),
            )
        ),
    ]


def _answering(endpoint: Endpoint) -> Endpoint:
    """Turn what the queue refuses into a status: 404 for the unknown, 422 for a request that breaks a rule."""
    if asyncio.iscoroutinefunction(endpoint):

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
            return _json({"detail": "image: its file is gone"}, 404)

    return answer


def _refusal(error: EngineError) -> Response:
    unknown = error.kind in ("job_not_found", "image_not_found")
    status = 404 if unknown else 422 if error.kind == "invalid_request" else 503
    return _json({"detail": str(error)}, status)


async def _ids(request: Request) -> list[str]:
    """Read ``{"ids": [...]}``."""
    try:
        ids = (await request.json())["ids"]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequest("ids", "expected a list of picture ids") from error
    if not isinstance(ids, list) or len(ids) > MAX_IDS or not all(isinstance(i, str) for i in ids):
        raise InvalidRequest("ids", f"expected a list of at most {MAX_IDS} picture ids")
    return ids


def _last_seen(request: Request) -> int:
    """Find where a browser that connects again left off."""
    last = request.headers.get("last-event-id", "")
    return int(last) if last.isascii() and last.isdigit() else 0


async def _stream(story: AsyncIterator[tuple[int, Event]], images: int) -> AsyncIterator[str]:
    """Write events as server-sent events, with a sign of life in quiet times."""
    waiting: asyncio.Future[tuple[int, Event]] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(story))
            ready, _ = await asyncio.wait([waiting], timeout=HEARTBEAT_S)
            if not ready:
                yield ": alive\n\n"
                continue
            number, event = waiting.result()
            waiting = None
            yield f"id: {number}\ndata: {json.dumps(update(event, images))}\n\n"
    except StopAsyncIteration:
        return
    finally:
        if waiting is not None:
            waiting.cancel()


def _studio_facts(studio: Studio) -> dict[str, Any]:
    status, base = studio.jobs.status(), studio.catalog.default()
    return {
        "state": status.state,
        "message": status.message,
        "device": status.device,
        "model": status.base_model or base.name,
        "pocket": base.is_pocket,
        "summary": base.summary,
        "examples": list(base.examples),
    }


def _json(content: Any, status: int = 200) -> Response:
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


def _picture(data: bytes, media_type: str, cache: str) -> Response:
    headers = {"Cache-Control": cache, "X-Content-Type-Options": "nosniff"}
    return Response(data, media_type=media_type, headers=headers)
