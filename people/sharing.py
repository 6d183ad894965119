"""One picture for whoever has its address, until a time: a signed address that names picture and owner."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from api.tickets import Tickets
from engine import EngineError, InvalidRequest
from jobs import Jobs
from people.bodies import read_object
from people.entrance import Visitor
from people.headers import SAFE, VISITOR
from people.roster import People

DAY_S = 24 * 3600.0
LONGEST_DAYS = 30
GONE = {"detail": "picture: it is not shared here, or no more"}
STATUS = {"invalid_request": 422, "image_not_found": 404}
PICTURE = {
    **SAFE,
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}
"""Headers of a shared picture: nothing in it runs, and nobody keeps it."""


class Sharing:
    """Writes and opens the addresses of shared pictures."""

    def __init__(self, tickets: Tickets, jobs: Jobs, people: People) -> None:
        self._tickets = tickets
        self._jobs = jobs
        self._people = people

    @property
    def routes(self) -> list[Route]:
        """List the routes: visitors make an address of a picture of theirs, anybody may open it."""
        return [
            Route("/shared", self.share, methods=["POST"]),
            Route("/shared/{ticket}", self.show, methods=["GET"]),
        ]

    async def share(self, request: Request) -> Response:
        """Write an address for a picture of the visitor's own, good for some days."""
        visitor: Visitor | None = request.scope[VISITOR]
        if visitor is None:
            return JSONResponse({"detail": "login: expected one"}, 401, headers=SAFE)
        try:
            given = await read_object(request)
            days, image = _days(given.get("days", "7")), given.get("image", "")
            await run_in_threadpool(self._jobs.image, image, owner=visitor.name)
        except EngineError as error:
            return JSONResponse({"detail": str(error)}, STATUS.get(error.kind, 503), headers=SAFE)
        facts = {"image": image, "owner": visitor.name}
        ticket = self._tickets.issue("share", facts, days * DAY_S)
        return JSONResponse({"path": f"shared/{ticket}"}, headers=SAFE)

    def show(self, request: Request) -> Response:
        """Hand out a picture that is shared, as long as it, its owner and the time are there."""
        facts = self._tickets.read("share", request.path_params["ticket"])
        if facts is None or not self._is_here(facts["owner"]):
            return JSONResponse(GONE, 404, headers=SAFE)
        try:
            image = self._jobs.image(facts["image"], owner=facts["owner"])
        except EngineError:
            return JSONResponse(GONE, 404, headers=SAFE)
        if not image.path.is_file():
            return JSONResponse(GONE, 404, headers=SAFE)
        return FileResponse(image.path, media_type=image.content_type, headers=PICTURE)

    def _is_here(self, owner: str) -> bool:
        """Whether an owner may still share: a person of the studio, or anybody where there are no people."""
        return not self._people.list() or self._people.find(owner) is not None


def _days(text: str) -> int:
    """Read for how many days.

    Raises:
        InvalidRequest: they are none, or too many.
    """
    days = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 1 <= days <= LONGEST_DAYS:
        raise InvalidRequest("days", f"expected 1 to {LONGEST_DAYS}, got {text[:20]!r}")
    return days
