"""On a Space everybody comes in and nobody sees a stranger's things: by account once signed in, else by browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.tickets import Tickets
from app import place_facts
from jobs import Jobs
from people import Accounts, SpaceEntrance, pages
from people.accounts import BROWSER_COOKIE, CALLBACK
from settings import read_settings
from space import find_space
from tests.people.house import House
from tests.people.test_people_doors import example, listed
from tests.space.fake_provider import CLIENT, SECRET, Provider, fake_provider
from tests.ui.studios import open_jobs

HOME = "https://x-y.hf.space"
ANSWERS = {
    ("GET", "/login"): 200,
    ("POST", "/login"): 401,
    ("GET", "/login/huggingface"): 303,
    ("GET", "/login/callback"): 400,
    ("GET", "/people/{name}"): 404,
    ("POST", "/people/password"): 422,
    ("POST", "/shared"): 404,
    ("GET", "/shared/{ticket}"): 404,
    ("POST", "/logout"): 303,
}
"""What our own pages but the owners' answer to nothing, whoever asks; the last one ends who it is."""


class SpaceHouse(House):
    """A studio on a Space, with an account provider."""

    def settle(self, environment: dict[str, str]) -> None:
        space = find_space(environment)
        assert space is not None
        assert space.sign_in is not None
        tickets = Tickets(b"s" * 32, self.clock)
        self.entrance = SpaceEntrance(self.people, tickets, space.author)
        self.accounts = Accounts(space, space.sign_in, tickets)
        self.pages = pages(self.entrance, self.admin, self.accounts.routes)
        self.studio.place_of = place_facts(read_settings([], environment))

    def come(self) -> TestClient:
        """Open the page in a new browser."""
        client = self.visit()
        client.base_url = HOME
        client.get("/", headers={"accept": "text/html"})
        return client

    def whose(self, client: TestClient) -> str:
        return self.entrance.visitor(client.headers.get("cookie") or cookies(client)).name


def cookies(client: TestClient) -> str:
    return "; ".join(f"{name}={value}" for name, value in client.cookies.items())


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with fake_provider() as found:
        yield found


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = open_jobs(tmp_path)
    yield jobs
    jobs.close()


@pytest.fixture
def house(tmp_path: Path, jobs: Jobs, provider: Provider, monkeypatch) -> SpaceHouse:
    environment = {
        "SPACE_ID": "olga/studio",
        "SPACE_HOST": "x-y.hf.space, studio.example",
        "OAUTH_CLIENT_ID": CLIENT,
        "OAUTH_CLIENT_SECRET": SECRET,
        "OPENID_PROVIDER_URL": provider.address,
        "HOME": str(tmp_path),
    }
    for name, value in environment.items():
        if name != "HOME":
            monkeypatch.setenv(name, value)
    found = SpaceHouse(tmp_path / "data", jobs, with_people=False)
    found.settle(environment)
    return found


def sign_in(client: TestClient, provider: Provider, account: str) -> None:
    provider.account = account
    begun = client.get("/login/huggingface")
    assert begun.status_code == 303
    back = provider.visit(begun.headers["location"])
    assert back.startswith(f"{HOME}{CALLBACK}?")
    done = client.get(back.removeprefix(HOME))
    assert (done.status_code, done.headers["location"]) == (303, "/"), done.text


def test_browsers_have_a_history_each(house) -> None:
    ann, bob = house.come(), house.come()
    assert house.whose(ann) != house.whose(bob)
    [image] = house.paint(house.whose(ann), "a red star").images
    assert [it["id"] for it in ann.get("/studio/images").json()["images"]] == [image.id]
    assert bob.get("/studio/images").json()["images"] == []
    assert bob.get(f"/studio/images/{image.id}/file").status_code == 404
    assert bob.post("/studio/images/delete", json={"ids": [image.id]}).json() == {"count": 0}
    assert ann.get(f"/studio/images/{image.id}/file").status_code == 200


def test_the_cookie_may_be_kept_in_the_frame_and_cannot_be_made_up(house) -> None:
    client = house.visit()
    opened = client.get("/", headers={"accept": "text/html"})
    assert opened.headers["cache-control"] == "no-store"
    kept = opened.headers["set-cookie"]
    assert kept.startswith(f"{BROWSER_COOKIE}=")
    for part in ("HttpOnly", "Secure", "SameSite=None", "Partitioned", "Path=/"):
        assert f"; {part}" in kept
    assert "set-cookie" not in client.get("/studio/state").headers
    known = {"cookie": kept.partition(";")[0]}
    assert "set-cookie" not in client.get("/", headers=known).headers
    me = house.entrance.visitor(known["cookie"]).name
    assert me == house.entrance.visitor(known["cookie"]).name
    assert house.entrance.visitor(f"{BROWSER_COOKIE}=guess").name != me
    assert len(me) > 25


def test_a_browser_that_keeps_no_cookies_is_told(house) -> None:
    client = house.visit()
    assert client.get("/studio/state").json()["place"]["known"] is False
    assert house.come().get("/studio/state").json()["place"]["known"] is True


def test_who_signs_in_has_the_same_history_in_every_browser(house, provider) -> None:
    here, there = house.come(), house.come()
    assert here.get("/studio/state").json()["visitor"] == {"name": "", "role": "guest"}
    for client in (here, there):
        sign_in(client, provider, "ann")
    assert house.whose(here) == house.whose(there) == "hf:ann"
    [image] = house.paint("hf:ann").images
    assert there.get(f"/studio/images/{image.id}/file").status_code == 200
    assert here.get("/studio/state").json()["visitor"] == {
        "name": "ann",
        "role": "guest",
        "account": "huggingface",
    }
    away = here.post("/logout")
    assert (away.status_code, away.headers["location"]) == (303, "/")
    assert here.get("/studio/images").json()["images"] == []
    assert there.get("/studio/images").json()["images"] != []


def test_only_the_author_is_an_owner(house, provider) -> None:
    browser, ann, olga = house.come(), house.come(), house.come()
    sign_in(ann, provider, "ann")
    sign_in(olga, provider, "olga")
    for client, status in ((browser, 403), (ann, 403), (olga, 200)):
        assert client.get("/admin/state").status_code == status
    for client in (browser, ann):
        assert client.post("/studio/loras", content=b"x").status_code == 403


def test_the_author_is_not_locked_out_by_a_first_guest(house, provider) -> None:
    olga = house.come()
    sign_in(olga, provider, "olga")
    ann = {"name": "ann", "password": "long enough", "role": "guest"}
    refused = olga.post("/admin/people/add", json=ann)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("role: expected an owner first")
    assert olga.post("/admin/people/add", json={**ann, "role": "owner"}).status_code == 200
    assert olga.get("/admin/state").status_code == 401


def test_every_route_of_our_own_knows_the_four_kinds_of_visitors(house, provider) -> None:
    """A stranger without cookies, a browser, an account, the author: nobody is sent to a login with a password."""
    routes = {(method, path) for method, path in listed(house.pages.routes) if method != "HEAD"}
    clients = [house.visit(), *(house.come() for _ in range(3))]
    for client, account in zip(clients[2:], ("ann", "olga"), strict=True):
        sign_in(client, provider, account)
    admin = {(method, path) for method, path in routes if path.startswith("/admin")}
    assert admin | set(ANSWERS) == routes
    for method, template in sorted(admin):
        seen = [it.request(method, example(template), json={}).status_code for it in clients]
        assert seen[:3] == [403, 403, 403], (template, seen)
        assert seen[3] in (200, 422), (template, seen)
    for (method, template), status in ANSWERS.items():
        seen = [it.request(method, example(template), json={}).status_code for it in clients]
        assert seen == [status] * 4, (method, template, seen)


@pytest.mark.parametrize("change", ["state=other", "code=other", "error_description=no"])
def test_an_answer_that_was_not_asked_for_signs_nobody_in(house, provider, change) -> None:
    client = house.come()
    back = provider.visit(client.get("/login/huggingface").headers["location"])
    name = change.partition("=")[0]
    parts = [it for it in back.partition("?")[2].split("&") if not it.startswith(f"{name}=")]
    if name == "error_description":
        parts = [it for it in parts if not it.startswith("code=")]
    answer = client.get(f"{CALLBACK}?{'&'.join([*parts, change])}")
    assert answer.status_code == 400
    assert answer.text.count("Signing in did not work") == 1
    assert house.whose(client).startswith("browser:")


def test_signing_in_begins_where_it_ends(house) -> None:
    client = house.come()
    client.base_url = "https://studio.example"
    assert client.get("/login/huggingface").headers["location"] == f"{HOME}/login/huggingface"


def test_an_answer_in_another_browser_signs_nobody_in(house, provider) -> None:
    mallory, ann = house.come(), house.come()
    back = provider.visit(mallory.get("/login/huggingface").headers["location"])
    assert ann.get(back.removeprefix(HOME)).status_code == 400
    assert house.whose(ann).startswith("browser:")


def test_a_provider_that_is_gone_is_a_sentence(house) -> None:
    house.settle(
        {
            "SPACE_ID": "x/y",
            "SPACE_HOST": "x-y.hf.space",
            "OAUTH_CLIENT_ID": CLIENT,
            "OAUTH_CLIENT_SECRET": SECRET,
            "OPENID_PROVIDER_URL": "http://127.0.0.1:9",
        }
    )
    client = house.come()
    assert "the provider cannot be reached" in client.get("/login/huggingface").text


def test_once_there_are_people_only_they_come_in(house) -> None:
    house.people.add("ann", "long enough")
    assert house.visit().get("/studio/state").status_code == 401


def test_the_page_is_told_what_it_runs_on(house) -> None:
    place = house.come().get("/studio/state").json()["place"]
    assert place["duplicate"] == "https://huggingface.co/spaces/olga/studio?duplicate=true"
    assert (place["kept"], place["sign_in"], place["address"]) == (False, True, HOME)
