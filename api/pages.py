"""What the fal face says of itself: its OpenAPI documents, a page that shows them without any script, and how it is."""

from collections import Counter
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from api.addresses import base_of
from api.answers import flat
from api.callers import caller
from api.metrics import TYPE
from api.openapi import endpoint_document, whole_document
from api.settings import Api
from api.wire import ENDPOINTS
from engine import EngineError

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; font-size: .875rem }
th, td { border-bottom: 1px solid #8884; padding: .25rem .5rem; text-align: left; vertical-align: top }
td:first-child, td:nth-child(3) { overflow-wrap: anywhere }
code, pre { font: .875em/1.5 ui-monospace, monospace }
pre { background: #8882; padding: .75rem; overflow-x: auto }
summary { cursor: pointer; font-size: 1.25rem; margin: .75rem 0 }
"""
DOCUMENTS = frozenset({"/openapi.json", "/api/openapi/queue/openapi.json", "/docs"})
"""What takes time to write down: to look at it counts as a request."""
MAX_CHOICES = 12
"""Choices that are listed; of more, their number is said."""


def page_routes(api: Api) -> list[BaseRoute]:
    """List the routes."""

    def whole(request: Request) -> Response:
        server = base_of("run", request, api.public_url)
        return JSONResponse(whole_document(api.library(), server))

    def of_endpoint(request: Request) -> Response:
        name = request.query_params.get("endpoint_id", "")
        if name not in ENDPOINTS:
            return flat(404, f"Application {name[:100]!r} not found").response()
        server = base_of("queue", request, api.public_url)
        return JSONResponse(endpoint_document(ENDPOINTS[name], api.library(), server))

    def docs(request: Request) -> Response:
        server = base_of("run", request, api.public_url)
        document = whole_document(api.library(), server)
        return HTMLResponse(docs_page(document), headers={"content-security-policy": POLICY})

    async def live(request: Request) -> Response:  # waits for no thread: they may all be busy
        return JSONResponse({"status": "live"})

    def ready(request: Request) -> Response:
        status = api.jobs.status()
        if status.state != "ready" or not status.has_painted:
            state = "untried" if status.state == "ready" else status.state
            return JSONResponse({"status": state}, status_code=503)
        try:
            api.jobs.check_storage()
        except EngineError as error:
            return JSONResponse({"status": "unwritable", "detail": str(error)}, status_code=503)
        states = Counter(worker.state for worker in api.jobs.workers())
        return JSONResponse({"status": "ready", "workers": states})

    def metrics(request: Request) -> Response:
        caller(request, api)
        return Response(api.metrics.text(), media_type=TYPE)

    pages = {
        "/openapi.json": whole,
        "/api/openapi/queue/openapi.json": of_endpoint,
        "/docs": docs,
        "/health": live,
        "/health/live": live,
        "/health/ready": ready,
        "/metrics": metrics,
    }
    return [Route(path, page, methods=["GET"]) for path, page in pages.items()]


def docs_page(document: dict[str, Any]) -> str:
    """Write the page of a whole document."""
    server = document["servers"][0]["url"]
    schemas = document["components"]["schemas"]
    parts = [_endpoint(name, document["paths"][f"/{name}"], schemas, server) for name in ENDPOINTS]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Pochade: API</title>"
        "<meta name=viewport content='width=device-width'>"
        f"<style>{STYLE}</style><h1>Pochade: API</h1>"
        f"<p>fal's endpoints at <code>{escape(server)}</code>. "
        f"<a href='{escape(server)}/openapi.json'>OpenAPI document</a></p>{''.join(parts)}</html>"
    )


def _endpoint(name: str, path: Any, schemas: Any, server: str) -> str:
    body = path["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = schemas[body["$ref"].rpartition("/")[2]]
    needed = schema.get("required", ())
    rows = [
        _row(field, facts, is_needed=field in needed)
        for field, facts in schema["properties"].items()
    ]
    example = "{" + ", ".join(f'"{field}": "..."' for field in needed) + "}"
    return (
        f"<details><summary><code>{escape(name)}</code></summary><p>{escape(schema['description'])}</p>"
        f"<pre>curl {escape(server)}/{escape(name)} -H 'Content-Type: application/json' -d '{escape(example)}'</pre>"
        "<table><thead><tr><th>field<th>type<th>default<th>range<th>meaning<tbody>"
        f"{''.join(rows)}</table></details>"
    )


def _row(field: str, facts: Any, *, is_needed: bool) -> str:
    default = (
        "<b>needed</b>" if is_needed else f"<code>{escape(str(facts.get('default', '')))}</code>"
    )
    return (
        f"<tr><td><code>{escape(field)}</code><td>{escape(_type(facts))}<td>{default}"
        f"<td>{escape(_range(facts))}<td>{escape(facts.get('description', ''))}"
    )


def _type(facts: Any) -> str:
    if "$ref" in facts:
        return str(facts["$ref"]).rpartition("/")[2].rpartition("__")[2]
    for key in ("allOf", "anyOf"):
        if key in facts:
            return " or ".join(map(_type, facts[key]))
    if facts.get("type") == "array":
        return f"list of {_type(facts['items'])}"
    return str(facts.get("type", "anything"))


def _range(facts: Any) -> str:
    choices = facts.get("enum") or facts.get("items", {}).get("enum", ())
    if len(choices) > MAX_CHOICES:
        return f"one of {len(choices)} names"
    signs = {"minimum": ">" if facts.get("exclusiveMinimum") else "≥", "maximum": "≤"}
    limits = [f"{sign} {facts[key]:g}" for key, sign in signs.items() if key in facts]
    return ", ".join([*map(str, choices), *limits])
