"""A studio with people, for tests: the real page's routes on a real queue, behind the real door."""

from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.testclient import TestClient

import ui
from api.keys import Keys
from api.tickets import Tickets
from app import visitor_facts, visitor_name
from engine import TextRequest, plan
from jobs import Jobs, JobView
from people import Admin, Door, Entrance, People, pages
from people.lockout import Lockout
from people.passwords import Cost
from tests.ui.studios import full_library
from ui.image_input import Uploads
from ui.lora_library import LoraLibrary

CHEAP = Cost(passes=1, kibibytes=8, lanes=1)
"""Argon2id all the same, in under a millisecond."""
WORDS = {"ann": "ann's secret", "bob": "bob's secret", "olga": "olga's secret"}
"""Two guests and an owner."""


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class House:
    """A studio, and who may come in."""

    folder: Path
    jobs: Jobs
    with_people: bool = True
    is_home: bool = True
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.people = People(self.folder, CHEAP)
        self.keys = Keys(self.folder)
        for name, password in WORDS.items() if self.with_people else ():
            self.people.add(name, password, "owner" if name == "olga" else "guest")
        self.entrance = Entrance(
            self.people,
            Tickets(b"s" * 32, self.clock),
            is_home=self.is_home,
            lockout=Lockout(self.clock),
        )
        self.admin = Admin(
            people=self.people, keys=self.keys, jobs=self.jobs, folders={"Data": self.folder}
        )
        self.pages = pages(self.entrance, self.admin)
        self.studio = ui.Studio(
            jobs=self.jobs,
            library=full_library(),
            read_library=full_library,
            presets_dir=self.folder / "presets",
            uploads=Uploads(self.folder / "uploads"),
            loras=LoraLibrary(self.folder / "models", self.folder),
            owner_of=visitor_name,
            visitor_of=visitor_facts,
        )

    def behind_the_door(self, app) -> Door:
        return Door(app, entrance=self.entrance, pages=self.pages, clock=self.clock)

    def visit(self, name: str | None = None, app=None) -> TestClient:
        """Open a browser without scripts; it logs in where there is a name."""
        page = Starlette(routes=ui.routes(self.studio)) if app is None else app
        client = TestClient(
            self.behind_the_door(page), base_url="http://127.0.0.1:7860", follow_redirects=False
        )
        if name is not None:
            answer = log_in(client, name, WORDS[name])
            assert answer.status_code == 303, answer.text
        return client

    def paint(self, owner: str, prompt: str = "a red star") -> JobView:
        """Make a picture of somebody's."""
        wanted = plan(TextRequest(prompt=prompt, num_images=1), self.studio.library, seed=3)
        job_id = self.jobs.submit(wanted, owner=owner)
        self.jobs.wait(job_id, timeout=30, owner=owner)
        return self.jobs.job(job_id, owner=owner)


def log_in(client: TestClient, name: str, password: str):
    return client.post("/login", data={"name": name, "password": password})
