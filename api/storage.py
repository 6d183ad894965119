"""fal's storage as its clients use it: tokens, uploads at once, by a signed address or in parts, and files to fetch.

A client gets a ticket for what it may send, and the ticket is all that the upload itself needs, since some clients send
nothing else along. Bodies go to the disk as they come.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from api.addresses import base_of
from api.callers import caller, run_token
from api.files import StoredFile
from api.labels import Label, safe_name, safe_type, seconds_of
from api.parts import Parts
from api.room import NoRoom
from api.settings import Api
from engine import InvalidRequest

TOKEN_S = 3600.0
"""How long a token is good."""
PATIENCE_S: Mapping[str, float] = {"put": 3600.0, "parts": 86_400.0}
"""How long a promised address waits for its file, which comes at once or in parts."""
MAX_JSON = 2 << 20
"""Longest body in bytes that says something about a file."""
INLINE = frozenset({"image/png", "image/jpeg", "image/webp"})
"""What a browser may show; everything else it saves."""
FILE_HEADERS: Mapping[str, str] = {
    "Cache-Control": "private, max-age=3600",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "etag, content-length, content-range",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def storage_routes(api: Api) -> APIRouter:
    """List the routes below ``/rest`` and ``/cdn``."""
    desk = _Desk(api)
    file = "/cdn/files/{token}/{name}"
    routes: list[tuple[str, str, Endpoint]] = [
        ("POST", "/rest/storage/auth/token", desk.token),
        ("POST", "/rest/storage/upload/initiate", desk.initiate),
        ("POST", "/rest/storage/upload/initiate-multipart", desk.initiate_parts),
        ("POST", "/rest/tokens", desk.run_token),
        ("POST", "/cdn/files/upload", desk.upload),
        ("POST", "/cdn/files/upload/multipart", desk.begin_parts),
        ("PUT", file, desk.put),
        ("PUT", file + "/multipart/{ticket}/{number}", desk.put_part),
        ("POST", file + "/multipart/{ticket}/complete", desk.complete),
        ("GET", file, desk.fetch),
    ]
    router = APIRouter(redirect_slashes=False)
    for method, path, endpoint in routes:
        router.add_route(path, _answering(endpoint), methods=[method], include_in_schema=False)
    return router


class _Desk:
    """What each route answers."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._files = api.files
        self._tickets = api.files.tickets
        self._parts = Parts(api.files)

    async def token(self, request: Request) -> Response:
        owner = caller(request, self._api)
        until = datetime.now(UTC) + timedelta(seconds=TOKEN_S)
        return JSONResponse(
            {
                "token": self._tickets.issue("cdn", {"owner": owner}, TOKEN_S),
                "token_type": "Bearer",
                "base_url": self._base(request),
                "expires_at": until.isoformat(),
            }
        )

    async def run_token(self, request: Request) -> Response:
        owner = caller(request, self._api)
        seconds = (await _json(request)).get("token_expiration")
        if not isinstance(seconds, int | float) or not 0 < seconds <= TOKEN_S:
            seconds = 120.0
        return JSONResponse(run_token(self._api, owner, seconds))

    async def initiate(self, request: Request) -> Response:
        address, ticket = await self._promise(request, "put")
        return JSONResponse({"upload_url": f"{address}?signature={ticket}", "file_url": address})

    async def initiate_parts(self, request: Request) -> Response:
        address, ticket = await self._promise(request, "parts")
        url = f"{address}/multipart/{ticket}"
        return JSONResponse({"upload_url": url, "file_url": address})

    async def upload(self, request: Request) -> Response:
        label = Label(
            owner=self._uploader(request),
            content_type=request.headers.get("content-type", ""),
            file_name=request.headers.get("x-fal-file-name"),
            seconds=_lifetime(request),
        )
        return self._done(request, await self._files.receive(request.stream(), label))

    async def begin_parts(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        name = request.headers.get("x-fal-file-name")
        facts = self._facts(request, self._uploader(request), name, kind)
        address, ticket = self._promised(request, "parts", facts)
        return JSONResponse({"access_url": address, "uploadId": ticket})

    async def put(self, request: Request) -> Response:
        label = self._label(request, request.query_params.get("signature"), "put")
        stored = await self._files.receive(request.stream(), label)
        return JSONResponse({}, headers={"ETag": f'"{stored.etag}"'})

    async def put_part(self, request: Request) -> Response:
        label = self._label(request, request.path_params["ticket"], "parts")
        number = _number(request.path_params["number"])
        token = request.path_params["token"]
        etag = f'"{await self._parts.receive(token, label.owner, number, request.stream())}"'
        return JSONResponse({"partNumber": number, "etag": etag}, headers={"ETag": etag})

    async def complete(self, request: Request) -> Response:
        label = self._label(request, request.path_params["ticket"], "parts")
        listed = _listed(await _json(request))
        token = request.path_params["token"]
        stored = await asyncio.to_thread(self._parts.join, token, listed, label)
        return self._done(request, stored)

    async def fetch(self, request: Request) -> Response:
        stored = self._files.find_token(request.path_params["token"])
        if stored is None or stored.name != request.path_params["name"]:
            raise HTTPException(404, "file: there is none, or its time is over")
        if not await asyncio.to_thread(stored.path.is_file):
            raise HTTPException(404, "file: it was removed")
        return _file_answer(stored, request)

    def _base(self, request: Request) -> str:
        return base_of("cdn", request, self._api.public_url)

    def _done(self, request: Request, stored: StoredFile) -> Response:
        address = self._files.address(stored, self._base(request))
        return JSONResponse({"access_url": address})

    def _uploader(self, request: Request) -> str:
        """Name the owner of what is sent with a token for uploads, or else with a key."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        facts = self._tickets.read("cdn", text.strip()) if scheme.lower() == "bearer" else None
        return caller(request, self._api) if facts is None else str(facts["owner"])

    async def _promise(self, request: Request, use: str) -> tuple[str, str]:
        """Promise an address to what a client is about to send; returns it and the ticket to send it with."""
        owner, said = caller(request, self._api), await _json(request)
        name, kind = said.get("file_name"), said.get("content_type")
        if not isinstance(name, str | None) or not isinstance(kind, str | None):
            raise InvalidRequest("file_name", "expected a text, as content_type")
        return self._promised(request, use, self._facts(request, owner, name, kind or ""))

    def _promised(self, request: Request, use: str, facts: Mapping[str, Any]) -> tuple[str, str]:
        address = f"{self._base(request)}/files/{facts['token']}/{facts['file_name']}"
        return address, self._tickets.issue(use, facts, PATIENCE_S[use])

    def _facts(
        self, request: Request, owner: str, name: str | None, kind: str
    ) -> Mapping[str, Any]:
        """Write the label of a file that is about to come."""
        return {
            "owner": owner,
            "token": self._files.new_token(),
            "file_name": safe_name(name, kind),
            "content_type": safe_type(kind),
            "seconds": _lifetime(request),
        }

    def _label(self, request: Request, ticket: str | None, use: str) -> Label:
        """Read what a ticket permits to send to this address."""
        facts = self._tickets.read(use, ticket)
        asked = (request.path_params["token"], request.path_params["name"])
        if facts is None or (facts["token"], facts["file_name"]) != asked:
            raise HTTPException(403, "signature: expected that of this address, still valid")
        return Label(**facts)


def _answering(endpoint: Endpoint) -> Endpoint:
    """Turn what the store refuses into a status."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except NoRoom as error:
            raise HTTPException(413, str(error)) from error
        except InvalidRequest as error:
            raise HTTPException(400, str(error)) from error
        except OSError as error:
            raise HTTPException(503, "files: they cannot be written now") from error

    return answer


def _file_answer(stored: StoredFile, request: Request) -> Response:
    etag = f'"{stored.etag}"'
    headers = {**FILE_HEADERS, "ETag": etag}
    known = request.headers.get("if-none-match", "")
    if etag in {item.strip().removeprefix("W/") for item in known.split(",")}:
        return Response(status_code=304, headers=headers)
    return FileResponse(
        stored.path,
        media_type=stored.content_type,
        filename=stored.name,
        content_disposition_type="inline" if stored.content_type in INLINE else "attachment",
        headers=headers,
    )


async def _json(request: Request) -> Mapping[str, Any]:
    """Read a short body; an empty one says nothing."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON:
            raise HTTPException(413, f"body: expected at most {MAX_JSON} bytes")
    try:
        content = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("body", "expected JSON") from error
    if not isinstance(content, dict):
        raise InvalidRequest("body", "expected an object")
    return content


def _listed(said: Mapping[str, Any]) -> dict[int, str]:
    """Read the parts that a client has sent, by number."""
    try:
        return {
            int(part["partNumber"]): str(part["etag"]).strip('"') for part in said.get("parts", [])
        }
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InvalidRequest("parts", "expected a list of partNumber and etag") from error


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidRequest("partNumber", f"expected a number, got {text[:20]!r}")
    return int(text)


def _lifetime(request: Request) -> float | None:
    headers = request.headers
    return seconds_of(
        headers.get("x-fal-object-lifecycle") or headers.get("x-fal-object-lifecycle-preference")
    )
