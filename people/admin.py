"""What owners see and change: people, keys, everybody's queue, and the disk. JSON for a page of our own."""

import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from api.keys import Keys
from engine import EngineError, InvalidRequest
from jobs import Jobs
from people.bodies import read_object
from people.entrance import Visitor
from people.headers import SAFE, VISITOR
from people.roster import People

STATUS = {"invalid_request": 422, "job_not_found": 404}
AT_ONCE = 500
"""Pictures that go into the bin at a time."""
Given = Mapping[str, str]
Endpoint = Callable[[Request], Awaitable[Response]]
Action = Callable[["Admin", Given], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Admin:
    """What owners look after."""

    people: People
    keys: Keys
    jobs: Jobs
    folders: Mapping[str, Path]
    """Folders whose disk is shown, by what they hold."""

    def state(self) -> Mapping[str, Any]:
        """Write all that the page shows; no secret is in it, and no prompt: those are their people's own."""
        return {
            "people": [
                {"name": it.name, "role": it.role, "made": it.made_at} for it in self.people.list()
            ],
            "keys": [
                {"id": it.id, "owner": it.owner, "label": it.label, "made": it.made_at}
                for it in self.keys.list()
            ],
            "jobs": [
                {
                    "id": job.id,
                    "owner": job.owner,
                    "state": job.state,
                    "position": job.position,
                    "images": len(job.plan.images) if job.plan else 0,
                    "made": job.created_at.timestamp(),
                }
                for job in self.jobs.active(owner=None)
            ],
            "workers": [
                {"name": it.name, "state": it.state, "device": it.device, "jobs": it.jobs}
                for it in self.jobs.workers()
            ],
            "disk": [_disk(name, folder) for name, folder in self.folders.items()],
        }

    def add_person(self, given: Given) -> Mapping[str, Any]:
        """Let a person in. The first has to be an owner: from then on a Space knows its author's account no more."""
        role = given.get("role", "guest")
        if role != "owner" and not self.people.list():
            raise InvalidRequest(
                "role", "expected an owner first, got a guest, who may let nobody in"
            )
        self.people.add(given.get("name", ""), given.get("password", ""), role)
        return {}

    def remove_person(self, given: Given) -> Mapping[str, Any]:
        """Let a person in no more, and stop what he has under way; his keys go too, his pictures where that is said."""
        name, with_pictures = given.get("name", ""), given.get("pictures", "") == "yes"
        self._keep_an_owner(name)
        remove(self.people, self.keys, name, with_pictures=with_pictures)
        self.see_off()
        return {}

    def see_off(self) -> None:
        """Stop the jobs of those who were removed, here or by the command, and put their pictures into the bin if they go too.

        Jobs that run take a moment to end: called again and again it goes on where it was.

        Raises:
            StorageFailed: people or queue cannot be read or written; the next call goes on.
            ShuttingDown: the server is about to end; its next life goes on.
        """
        for gone in self.people.departed():
            for job in self.jobs.active(owner=gone.name):
                self.jobs.cancel(job.id, owner=gone.name)
            if self.jobs.active(owner=gone.name):
                continue
            while gone.with_pictures and (
                images := self.jobs.history(owner=gone.name, limit=AT_ONCE)
            ):
                self.jobs.delete([image.id for image in images], owner=gone.name)
            self.people.settle(gone)

    def set_password(self, given: Given) -> Mapping[str, Any]:
        """Give a person another password."""
        self.people.set_password(given.get("name", ""), given.get("password", ""))
        return {}

    def set_role(self, given: Given) -> Mapping[str, Any]:
        """Make a person an owner or a guest."""
        name, role = given.get("name", ""), given.get("role", "")
        if role != "owner":
            self._keep_an_owner(name)
        self.people.set_role(name, role)
        return {}

    def add_key(self, given: Given) -> Mapping[str, Any]:
        """Make a key, which is shown now and never again."""
        return {"key": self.keys.add(given.get("owner", ""), given.get("label", ""))}

    def revoke_key(self, given: Given) -> Mapping[str, Any]:
        """Make a key worthless."""
        return {"done": self.keys.revoke(given.get("id", ""))}

    def cancel(self, given: Given) -> Mapping[str, Any]:
        """Stop a job, whoever's it is."""
        wanted = given.get("id", "")
        owners = [job.owner for job in self.jobs.active(owner=None) if job.id == wanted]
        return {"done": bool(owners) and self.jobs.cancel(wanted, owner=owners[0])}

    def _keep_an_owner(self, name: str) -> None:
        """Refuse to leave the studio to nobody.

        Raises:
            InvalidRequest: it is the last owner.
        """
        if self.people.is_last_owner(name):
            problem = f"expected another owner to be left, {name!r} is the last one"
            raise InvalidRequest("name", problem)


def remove(people: People, keys: Keys, name: str, *, with_pictures: bool) -> int:
    """Let a person in no more, and make the keys of that name worthless; returns how many there were.

    Raises:
        InvalidRequest: there is none of that name.
        StorageFailed: a file cannot be read or written.
    """
    gone = people.remove(name, with_pictures=with_pictures).name
    theirs = [key.id for key in keys.list() if key.owner == gone]
    return sum(keys.revoke(key) for key in theirs)


ACTIONS: Mapping[str, Action] = {
    "people/add": Admin.add_person,
    "people/remove": Admin.remove_person,
    "people/password": Admin.set_password,
    "people/role": Admin.set_role,
    "keys/add": Admin.add_key,
    "keys/revoke": Admin.revoke_key,
    "queue/cancel": Admin.cancel,
}
"""What can be done, by the path below ``/admin``."""


def admin_routes(admin: Admin, page: str) -> list[Route]:
    """List the routes of the page, each for owners alone."""

    async def show(request: Request) -> Response:
        return HTMLResponse(page, headers=SAFE)

    async def state(request: Request) -> Response:
        return _json(await run_in_threadpool(admin.state))

    def act(action: Action) -> Endpoint:
        async def answer(request: Request) -> Response:
            given = await read_object(request)
            return _json(await run_in_threadpool(action, admin, given))

        return answer

    return [
        Route("/admin", _for_owners(show), methods=["GET"]),
        Route("/admin/state", _for_owners(state), methods=["GET"]),
        *(
            Route(f"/admin/{path}", _for_owners(act(action)), methods=["POST"])
            for path, action in ACTIONS.items()
        ),
    ]


def _for_owners(endpoint: Endpoint) -> Endpoint:
    """Let owners alone in, and say what goes wrong."""

    async def answer(request: Request) -> Response:
        visitor: Visitor | None = request.scope[VISITOR]
        if visitor is None and "text/html" in request.headers.get("accept", ""):
            place = f"{request.scope.get('root_path', '')}/login"
            return RedirectResponse(place, 303, headers=SAFE)
        if visitor is None:
            return _json({"detail": "login: expected one; open the page and log in"}, 401)
        if visitor.role != "owner":
            return _json({"detail": "role: expected an owner of this studio, got a guest"}, 403)
        if not visitor.has_login:
            problem = "login: expected people first (python app.py people add NAME --owner)"
            return _json({"detail": problem}, 403)
        try:
            return await endpoint(request)
        except EngineError as error:
            return _json({"detail": str(error)}, STATUS.get(error.kind, 503))

    return answer


def _disk(name: str, folder: Path) -> Mapping[str, Any]:
    """Say how much room a folder's disk has, in bytes."""
    there = next(it for it in (folder, *folder.absolute().parents) if it.exists())
    usage = shutil.disk_usage(there)
    return {"name": name, "path": str(folder), "free": usage.free, "total": usage.total}


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    return JSONResponse(content, status, headers=SAFE)
