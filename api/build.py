"""The fal face put together: its routes, its limits, and fal's form for everything that goes wrong."""

import contextlib
import logging
import uuid

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.addresses import PREFIXES
from api.answers import Refused, flat, gone, of_error
from api.limits import BodyLimit, RateLimit, Scope, client_address, is_look
from api.metrics import Measured
from api.pages import DOCUMENTS, page_routes
from api.proxy import Proxy
from api.queue import queue_routes
from api.run import run_routes
from api.settings import Api
from api.storage import storage_routes
from api.webhooks import jwks_routes
from api.wire.endpoints import APPS
from engine import EngineError
from jobs import StorageFailed

log = logging.getLogger(__name__)

DEFAULT_404 = "Not Found"


def build(api: Api) -> FastAPI:
    """Put the fal face together."""
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            Refused: _refused,
            EngineError: _failed,
            HTTPException: _http,
            ClientDisconnect: _gone,
            Exception: _defect,
        },
    )
    app.router.redirect_slashes = False
    app.router.routes.extend([*run_routes(api), *queue_routes(api), *page_routes(api)])
    routers = [storage_routes(api)]
    if api.signing_key is not None:
        routers.append(jwks_routes(api.signing_key))
    routes = [*app.router.routes, *(route for router in routers for route in router.routes)]
    for router in routers:
        app.include_router(router)
    app.add_middleware(
        RateLimit,
        per_s=api.limits.requests_per_s,
        burst=api.limits.burst,
        asker=lambda scope: _asker(api, scope),
        is_free=lambda scope: is_look(scope) and scope["path"] not in DOCUMENTS,
    )
    app.add_middleware(BodyLimit, most=lambda scope: _longest_body(api, scope))
    app.add_middleware(Measured, metrics=api.metrics, routes=routes)
    app.add_middleware(Proxy)
    api.metrics.watch(api.jobs, api.files)
    return app


def _longest_body(api: Api, scope: Scope) -> int | None:
    """Say how long a body may be; the routes of files count themselves."""
    counts_itself = scope["path"].startswith((PREFIXES["rest"], PREFIXES["cdn"]))
    return None if counts_itself else api.limits.body_bytes


def _asker(api: Api, scope: Scope) -> str:
    """Name who asks: the owner of a key, else the address."""
    owner = None
    with contextlib.suppress(StorageFailed):  # the route behind says so
        owner = api.keys.owner_of(Headers(scope=scope).get("authorization"))
    return client_address(scope) if owner is None else f"owner {owner}"


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.answer.response(**_named(request))


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    return of_error(error).response(**_named(request))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == 404 and detail == DEFAULT_404:
        detail = _missing(request.scope["path"])
    answer = flat(error.status_code, detail, **dict(error.headers or {}))
    return answer.response(**_named(request))


async def _gone(request: Request, _: Exception) -> Response:
    return gone().response(**_named(request))


async def _defect(request: Request, error: Exception) -> Response:
    job = {"job": getattr(request.state, "fal_request_id", None)}
    log.error("%s %s: a defect", request.method, request.url.path, exc_info=error, extra=job)
    return flat(500, "Internal Server Error", "internal_error").response(**_named(request))


def _missing(path: str) -> str:
    """Say what is not there as fal does: an application, or a path of one."""
    inner = path.removeprefix(PREFIXES["queue"]).strip("/")
    name = "/".join(inner.split("/")[:2])
    if name in APPS:
        return f"Path /{inner.removeprefix(name).strip('/')[:200]} not found"
    if path.startswith(("/fal-ai/", PREFIXES["queue"])):
        return f"Application {name.rpartition('/')[2][:100]!r} not found"
    return f"Path {path[:200]} not found"


def _named(request: Request) -> dict[str, str]:
    """Name the call that an answer belongs to; one that never became a call gets a name of its own."""
    known = getattr(request.state, "fal_request_id", None)
    return {"x-fal-request-id": known or str(uuid.uuid4())}
