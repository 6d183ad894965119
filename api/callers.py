"""Who asks: the owner of the key or of the token that comes along, or anybody where the studio is open."""

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from api.settings import Api

LOCAL = "local"
"""Owner of what is asked for without a key."""
UNKNOWN = "No user found for Key ID and Secret"


def caller(request: HTTPConnection, api: Api, *, with_token: bool = False) -> str:
    """Name the owner that a request acts for.

    Args:
        request: What is asked.
        api: Knows the keys.
        with_token: Whether a token in the address (`run_token`) does instead of a key. It may never lead to another token:
            who lost his key would go on for ever.

    Raises:
        HTTPException: 401, the studio is not open to everybody and the key is nobody's.
        StorageFailed: the keys cannot be read.
    """
    owner = api.keys.owner_of(request.headers.get("authorization"))
    if owner is None and with_token:
        owner = _owner_of_token(request, api)
    if owner is None and not api.is_open():
        raise HTTPException(401, UNKNOWN)
    return owner or LOCAL


def run_token(api: Api, owner: str, seconds: float) -> str:
    """Write a token that stands for an owner's key in an address (``fal_jwt_token``), for some time."""
    return api.files.tickets.issue("run", {"owner": owner}, seconds)


def _owner_of_token(request: HTTPConnection, api: Api) -> str | None:
    facts = api.files.tickets.read("run", request.query_params.get("fal_jwt_token"))
    return None if facts is None else str(facts["owner"])
