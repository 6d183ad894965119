"""Where our services are, as the client that asks reaches them: by prefix under one host, or under fal's own host names."""

from collections.abc import Mapping
from typing import Literal

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

Service = Literal["run", "queue", "rest", "cdn"]
PREFIXES: Mapping[Service, str] = {"run": "", "queue": "/queue", "rest": "/rest", "cdn": "/cdn"}
"""The path that each service begins with on our port."""
FAL_HOSTS: Mapping[str, Service] = {
    "fal.run": "run",
    "falrun.com": "run",
    "queue.fal.run": "queue",
    "queue.falrun.com": "queue",
    "rest.fal.ai": "rest",
    "rest.alpha.fal.ai": "rest",
    "v3.fal.media": "cdn",
}
"""fal's names of the services; a machine may let them lead here."""
_OWN: Mapping[Service, str] = {
    "run": "https://fal.run",
    "queue": "https://queue.fal.run",
    "rest": "https://rest.fal.ai",
    "cdn": "https://v3.fal.media",
}


def base_of(service: Service, request: HTTPConnection, public_url: str | None = None) -> str:
    """Write the address of a service, without a slash at the end.

    Args:
        service: Which one.
        request: What the client asked; its host name is the one the client knows us by.
        public_url: Address of the studio, where it is known better than by the request.
    """
    if fal_service(request.headers) is not None:
        return _OWN[service]
    origin = public_url or f"{request.url.scheme}://{request.url.netloc}"
    return origin.rstrip("/") + PREFIXES[service]


def fal_service(headers: Headers) -> Service | None:
    """Say which of fal's host names was asked, by its service; None for one of ours."""
    return FAL_HOSTS.get(headers.get("host", "").partition(":")[0].lower().rstrip("."))
