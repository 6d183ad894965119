"""The page's own addresses below ``/studio``: job events, previews, pictures, history, what there is to choose from.

Gradio drops its events when a browser goes away, so watching and looking go past it. Every address answers for the
visitor's own jobs and pictures only; those of others are as unknown as those that never were.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from engine import Event, InvalidRequest, draw_control
from jobs import ImageView, JobView, WorkerStatus
from ui.answers import FOREVER, MAX_BODY, answering, as_bytes, as_json, file_headers, read_body
from ui.before import before_file
from ui.downloads import Wanted, download_facts, read_files
from ui.dropped import Dropped, read_pasted, read_picture
from ui.image_input import MAX_BYTES, Upload, Uploads, media_type_of
from ui.lists import lists, style_groups
from ui.lora_library import LoraPages
from ui.picture_grid import grid_facts, grid_file, grid_picture, grid_version, has_grid, wants_grid
from ui.saved_presets import own_presets
from ui.sheet_panel import read_sheet, sheet_file
from ui.studio import Studio
from ui.theme import STATIC
from ui.thumbnails import Thumbnails, as_thumbnail, shrink
from ui.updates import image_count, image_facts, job_facts, update

PAGE = 60
"""Pictures that History asks for at a time."""
HEARTBEAT_S = 15.0
"""An event stream says something at least so often, so that proxies keep it and a gone browser is noticed."""
MAX_PICTURE = 64 * 2**20
"""Largest file in bytes whose settings are read."""
MAX_TEXT = 2**20
"""Longest text in bytes whose settings are read."""
CANNY = (64, 128)
"""Thresholds of *PyraCanny* where the page names none."""
MAX_IDS = 1000
"""Pictures that one request may delete or restore."""
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def routes(studio: Studio) -> list[BaseRoute]:
    """List the routes that the page needs; the caller hands them to ``demo.launch``."""
    pages, loras = _Pages(studio), LoraPages(studio)
    asked = {
        **loras.asked,
        "state": pages.state,
        "jobs/{job}": pages.job,
        "jobs/{job}/events": pages.events,
        "jobs/{job}/previews/{image:int}": pages.preview,
        "jobs/{job}/grid": pages.grid,
        "jobs/{job}/grid/thumbnail": pages.grid_thumbnail,
        "images": pages.history,
        "images/{image}/thumbnail": pages.thumbnail,
        "images/{image}/file": pages.file,
        "images/{image}/before": pages.before,
        "images/{image}/extras/{kind}": pages.extra,
        "inputs/{name}": pages.input,
        "inputs/{name}/drawing": pages.drawing,
        "lists": pages.lists,
        "downloads": pages.downloads,
        "styles": pages.styles,
        "static/{name}": pages.static,
    }
    told = {
        **loras.told,
        "jobs/{job}/skip": pages.skip,
        "jobs/{job}/cancel": pages.cancel,
        "images/delete": pages.delete,
        "images/restore": pages.restore,
        "refresh": pages.refresh,
        "downloads": pages.download,
        "downloads/cancel": pages.cancel_download,
        "read": pages.read,
        "inputs": pages.take_input,
        "sheet": pages.sheet,
    }
    return [
        *(
            Route(f"/studio/{path}", answering(page), methods=["GET"])
            for path, page in asked.items()
        ),
        *(
            Route(f"/studio/{path}", answering(page), methods=["POST"])
            for path, page in told.items()
        ),
    ]


class _Pages:
    """What each address answers. Plain functions run in threads, since the queue may wait for the disk."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._jobs = studio.jobs
        self._thumbnails = Thumbnails()
        # Read once: a name from outside is only looked up here.
        self._files = {
            path.name: (path.read_bytes(), MEDIA_TYPES[path.suffix])
            for path in STATIC.iterdir()
            if path.suffix in MEDIA_TYPES
        }

    def state(self, request: Request) -> Response:
        active = self._jobs.active(owner=self._owner(request))
        facts = _studio_facts(self._studio)
        visitor = self._studio.visitor_of(request)
        place = None if self._studio.place_of is None else self._studio.place_of(request)
        jobs = [job_facts(job) for job in active]
        return as_json({"studio": facts, "visitor": visitor, "place": place, "jobs": jobs})

    def job(self, request: Request) -> Response:
        return as_json(job_facts(self._job(request)))

    async def events(self, request: Request) -> Response:
        found = await run_in_threadpool(self._job, request)
        story = self._jobs.events(found.id, owner=found.owner, after=_last_seen(request))
        return StreamingResponse(
            _stream(story, image_count(found)),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def preview(self, request: Request) -> Response:
        job, image = request.path_params["job"], request.path_params["image"]
        data = self._jobs.preview(job, image, owner=self._owner(request))
        if data is None:
            return as_json({"detail": "preview: there is none now"}, 404)
        return as_bytes(data, "image/jpeg", "no-store")

    def skip(self, request: Request) -> Response:
        job, owner = request.path_params["job"], self._owner(request)
        return as_json({"done": self._jobs.skip(job, owner=owner)})

    def cancel(self, request: Request) -> Response:
        job, owner = request.path_params["job"], self._owner(request)
        return as_json({"done": self._jobs.cancel(job, owner=owner)})

    def history(self, request: Request) -> Response:
        owner = self._owner(request)
        found = self._jobs.history(
            owner=owner,
            search=request.query_params.get("search", ""),
            before=request.query_params.get("before"),
            limit=PAGE,
        )
        grids = self._grids_above(owner, found)
        shown = [it for image in found for it in (*grids.get(image.id, ()), image_facts(image))]
        return as_json({"images": shown, "more": len(found) == PAGE})

    def thumbnail(self, request: Request) -> Response:
        image = self._image(request)
        data = self._thumbnails.of(image.id, partial(shrink, image.path))
        return as_bytes(data, "image/webp", FOREVER)

    def file(self, request: Request) -> Response:
        image = self._image(request)
        if not image.path.is_file():
            raise FileNotFoundError(image.path)
        is_download = "download" in request.query_params
        return FileResponse(
            image.path,
            media_type=image.content_type,
            filename=f"pochade-{image.created_at:%Y%m%d-%H%M%S}-{image.seed}{image.path.suffix}",
            content_disposition_type="attachment" if is_download else "inline",
            headers=file_headers(FOREVER),
        )

    def before(self, request: Request) -> Response:
        """Hand out what a picture was made from."""
        image = self._image(request)
        path = before_file(self._jobs, image, self._owner(request))
        media_type = None if path is None else media_type_of(path)
        if path is None or media_type is None:
            return as_json({"detail": "before: there is none"}, 404)
        headers = file_headers("private, max-age=60")
        return FileResponse(path, media_type=media_type, headers=headers)

    def extra(self, request: Request) -> Response:
        """Hand out a file that came with a picture, such as its latents."""
        image = self._image(request)
        path = image.extras.get(request.path_params["kind"])
        if path is None or not path.is_file():
            raise FileNotFoundError(path)
        headers = file_headers(FOREVER)
        return FileResponse(
            path, filename=path.name, media_type="application/octet-stream", headers=headers
        )

    def grid(self, request: Request) -> Response:
        """Hand out a job's pictures as one."""
        job = self._grid_job(request)
        answer = as_bytes(grid_file(job), "image/png", FOREVER)
        if "download" in request.query_params:
            name = f"pochade-{job.created_at:%Y%m%d-%H%M%S}-grid.png"
            answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer

    def grid_thumbnail(self, request: Request) -> Response:
        job = self._grid_job(request)
        name = f"{job.id} {grid_version(job)}"
        data = self._thumbnails.of(name, lambda: as_thumbnail(grid_picture(job)))
        return as_bytes(data, "image/webp", FOREVER)

    async def sheet(self, request: Request) -> Response:
        """Put the pictures of several jobs together, with labels."""
        labels, jobs = read_sheet(await read_body(request, "sheet", MAX_BODY))
        owner = self._owner(request)
        data = await run_in_threadpool(sheet_file, self._jobs, labels, jobs, owner)
        return as_bytes(data, "image/png", "no-store")

    async def delete(self, request: Request) -> Response:
        ids, owner = await _ids(request), self._owner(request)
        return as_json({"count": await run_in_threadpool(self._jobs.delete, ids, owner=owner)})

    async def restore(self, request: Request) -> Response:
        ids, owner = await _ids(request), self._owner(request)
        return as_json({"count": await run_in_threadpool(self._jobs.restore, ids, owner=owner)})

    def lists(self, request: Request) -> Response:
        revision = self._studio.revision  # first, or a change meanwhile would go unseen
        owner = self._owner(request)
        own = own_presets(self._studio.presets_of(owner))
        known = lists(self._studio.library_of(owner), own)
        return as_json({**known, "revision": revision})

    def styles(self, request: Request) -> Response:
        return as_json({"groups": style_groups(self._studio.library)})

    def refresh(self, request: Request) -> Response:
        self._studio.refresh()
        return self.lists(request)

    def downloads(self, request: Request) -> Response:
        """Tell which weights are on their way, and which failed to come."""
        return as_json({"downloads": [download_facts(it) for it in self._studio.fetches.known()]})

    async def download(self, request: Request) -> Response:
        """Fetch weights now; those that are on their way are not fetched twice."""
        wanted = self._files_of(await read_body(request, "files", MAX_BODY))
        await run_in_threadpool(self._studio.fetches.start, wanted)
        return self.downloads(request)

    async def cancel_download(self, request: Request) -> Response:
        """Fetch weights no longer; what has arrived of them is kept for the next time."""
        for item in self._files_of(await read_body(request, "files", MAX_BODY)):
            self._studio.fetches.cancel(item)
        return self.downloads(request)

    async def read(self, request: Request) -> Response:
        """Read the settings in a picture's file, or in a text where the content type says so."""
        is_text = request.headers.get("content-type", "").startswith("text/plain")
        data = await read_body(request, "picture", MAX_TEXT if is_text else MAX_PICTURE)
        found = await run_in_threadpool(_read, data, self._studio, is_text=is_text)
        if found is None:
            return as_json({"kind": None, "fields": {}, "notes": []})
        fields = {**found.fields, **_safe_seed(found.fields)}
        return as_json({"kind": found.kind, "fields": fields, "notes": found.notes})

    def input(self, request: Request) -> Response:
        """Hand back a picture that this visitor sent."""
        try:
            found = self._uploads().find(request.path_params["name"], self._owner(request))
        except InvalidRequest as error:
            return as_json({"detail": str(error)}, 404)
        headers = file_headers(FOREVER)
        return FileResponse(found.path, media_type=found.media_type, headers=headers)

    def drawing(self, request: Request) -> Response:
        """Draw what a ControlNet is shown of a picture that this visitor sent."""
        found = self._uploads().find(request.path_params["name"], self._owner(request))
        asked = request.query_params
        low, high = _threshold(asked, "low", CANNY[0]), _threshold(asked, "high", CANNY[1])
        folder = self._studio.catalog.annotators
        data = draw_control(found.path, asked.get("type", ""), low, high, annotators=folder)
        return as_bytes(data, "image/png", FOREVER)

    async def take_input(self, request: Request) -> Response:
        """Take in a picture to work on, as the bytes of its file."""
        uploads, owner = self._uploads(), self._owner(request)
        data = await read_body(request, "picture", MAX_BYTES)
        return as_json(_input_facts(await run_in_threadpool(uploads.save, data, owner)))

    def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            return as_json({"detail": "static: no file of that name"}, 404)
        data, media_type = self._files[name]
        return as_bytes(data, media_type, "no-cache")

    def _files_of(self, body: bytes) -> list[Wanted]:
        return read_files(body, self._studio.catalog, self._studio.fetches.known())

    def _uploads(self) -> Uploads:
        if self._studio.uploads is None:
            raise InvalidRequest("picture", "this studio takes none")
        return self._studio.uploads

    def _owner(self, request: Request) -> str:
        return self._studio.owner_of(request)

    def _job(self, request: Request) -> JobView:
        return self._jobs.job(request.path_params["job"], owner=self._owner(request))

    def _grid_job(self, request: Request) -> JobView:
        job = self._job(request)
        if not has_grid(job):
            raise FileNotFoundError(f"grid of {job.id}")
        return job

    def _grids_above(
        self, owner: str, images: Sequence[ImageView]
    ) -> Mapping[str, list[dict[str, Any]]]:
        """Write the grids that stand in History above pictures, each above the newest one of its job."""
        wanted = dict.fromkeys(image.job_id for image in images if wants_grid(image.plan))
        found: dict[str, list[dict[str, Any]]] = {}
        for job_id in wanted:
            job = self._jobs.job(job_id, owner=owner)
            if (facts := grid_facts(job)) is not None:
                newest = max(job.images, key=lambda image: (image.created_at, image.index))
                found[newest.id] = [facts]
        return found

    def _image(self, request: Request) -> ImageView:
        return self._jobs.image(request.path_params["image"], owner=self._owner(request))


async def _ids(request: Request) -> list[str]:
    """Read ``{"ids": [...]}``."""
    try:
        ids = json.loads(await read_body(request, "ids", MAX_BODY))["ids"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidRequest("ids", "expected a list of picture ids") from error
    if not isinstance(ids, list) or len(ids) > MAX_IDS or not all(isinstance(i, str) for i in ids):
        raise InvalidRequest("ids", f"expected a list of at most {MAX_IDS} picture ids")
    return ids


def _read(data: bytes, studio: Studio, *, is_text: bool) -> Dropped | None:
    if not is_text:
        return read_picture(data, studio.library)
    return read_pasted(data.decode("utf-8", errors="replace"), studio.library)


def _threshold(asked: Mapping[str, str], name: str, usual: int) -> int:
    """Read a threshold of *PyraCanny*."""
    given = asked.get(name, str(usual))
    value = int(given) if given.isascii() and given.isdigit() and len(given) < 4 else 0
    if not 1 <= value <= 255:
        raise InvalidRequest(name, f"expected 1 to 255, got {given[:20]!r}")
    return value


def _safe_seed(fields: Mapping[str, Any]) -> dict[str, str]:
    """Write a seed as text, since it may exceed a browser's whole numbers."""
    seed = fields.get("seed")
    return {} if seed is None else {"seed": str(seed)}


def _last_seen(request: Request) -> int:
    """Find where a browser that connects again left off."""
    last = request.headers.get("last-event-id", "")
    return int(last) if last.isascii() and last.isdigit() and len(last) < 20 else 0


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
        "device": _devices(studio.jobs.workers(), status.device),
        "model": status.base_model or base.name,
        "pocket": base.is_pocket,
        "summary": base.summary,
        "examples": list(base.examples),
        "library": studio.revision,
        "downloads": len(studio.fetches.known()),
    }


def _devices(workers: Sequence[WorkerStatus], best: str) -> str:
    """Say on what is painted: the device, or of several workers how many of them are there."""
    ready = sum(worker.state == "ready" for worker in workers)
    if len(workers) < 2 or not ready:
        return best
    return f"{ready} workers" if ready == len(workers) else f"{ready} of {len(workers)} workers"


def _input_facts(upload: Upload) -> dict[str, Any]:
    return {"name": upload.name, "width": upload.width, "height": upload.height}
