"""Every route of the page and of our own pages against who asks: nobody, a guest, another guest, an owner."""

import gc
import json
import re

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import ui
from app import Programs
from engine import InvalidRequest, TextRequest, plan
from people.admin import ACTIONS
from people.door import OF_OWNERS, OPEN, OURS
from settings import read_settings
from tests.people.house import House, log_in
from tests.ui.studios import full_library, in_event_loop
from ui.saved_presets import remove, save

VISITORS = ("ann", "bob", "olga")
PRIVATE = ("{job}", "{image}", "/inputs/{name}")
"""What an address of somebody's own has in it."""
OUTSIDE = {
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/logout"),
    ("GET", "/people/{name}"),
    ("GET", "/shared/{ticket}"),
}
"""Our own pages that anybody may ask for."""
OF_VISITORS = {("POST", "/shared"): 404, ("POST", "/people/password"): 422}
"""Our own pages that whoever has logged in may ask for, about what is his own; what they answer to nothing."""
GRADIO_LEAST, STUDIO_LEAST = 40, 25


def listed(routes, below: str = ""):
    """List method and template of every route, those of mounted parts among them."""
    for route in routes:
        path = below + getattr(route, "path", "")
        inner = getattr(route, "original_router", route)  # FastAPI's wrapper of a router
        if not isinstance(route, Route) and hasattr(inner, "routes"):
            yield "GET", f"{path}/x"
            yield from listed(inner.routes, path)
        else:
            for method in getattr(route, "methods", None) or {"GET"}:
                yield method, path


def example(template: str) -> str:
    return re.sub(r"\{[^}]+\}", "x", template)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_gradios_own_routes_know_nobody(house: House) -> None:
    """What Gradio opens is behind the door too, whatever a later version adds."""
    import gradio

    def build():
        return gradio.routes.App.create_app(ui.build(house.studio))

    app = in_event_loop(build)
    routes = sorted(set(listed(app.routes)))
    assert len(routes) > GRADIO_LEAST
    arrived = []

    async def page(scope, receive, send):
        arrived.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    nobody = house.visit(app=page)
    visitors = [house.visit(name, page) for name in VISITORS]
    for method, template in routes:
        path = example(template)
        ours = any(path == own or path.startswith(f"{own}/") for own in OURS)
        arrived.clear()
        status = nobody.request(method, path).status_code
        if path.rstrip("/") in OPEN:
            assert status == 200, path
        elif not ours:
            assert status == (303 if path == "/" and method in ("GET", "HEAD") else 401), path
            assert arrived == [], path
            assert all(it.request(method, path).status_code == 200 for it in visitors), path
            assert arrived == [path] * 3
    assert "/gradio_api/queue/join" in {path for _, path in routes}
    gc.collect()  # here, where what Gradio left open may be


def test_every_route_of_the_page_knows_guests_and_owners(house: House) -> None:
    image = house.paint("ann").images[0]
    nobody, (ann, bob, olga) = house.visit(), map(house.visit, VISITORS)
    png = ann.get(f"/studio/images/{image.id}/file").content
    name = ann.post("/studio/inputs", content=png).json()["name"]
    hers = {"job": image.job_id, "image": image.id, "name": name, "kind": "x"}
    never = {"job": "x", "image": "x", "name": "0" * 64 + ".png", "kind": "x"}
    routes = sorted(set(listed(ui.routes(house.studio))) - {("GET", "/studio/static/{name}")})
    assert len(routes) >= STUDIO_LEAST
    for method, template in routes:
        if method == "HEAD":
            continue

        def ask(client, facts, method=method, template=template):
            path = template.replace("{image:int}", "0").format(**facts)
            return client.request(method, path, json={}).status_code

        assert ask(nobody, hers) == 401, template
        assert ask(nobody, never) == 401, template
        seen = {"ann": ask(ann, hers), "bob": ask(bob, hers), "olga": ask(olga, hers)}
        if (method, template) in OF_OWNERS:
            assert seen["ann"] == seen["bob"] == 403, (template, seen)
            assert seen["olga"] not in (401, 403), (template, seen)
        elif any(it in template for it in PRIVATE):
            unknown = {ask(client, never) for client in (ann, bob, olga)}
            assert unknown == {seen["bob"]} == {seen["olga"]}, (template, seen, unknown)
            assert seen["bob"] in (404, 422), (template, seen)
            assert seen["ann"] not in (401, 403), (template, seen)
        else:
            assert len(set(seen.values())) == 1, (template, seen)
            assert seen["ann"] not in (401, 403), (template, seen)
    assert ann.get(f"/studio/images/{image.id}/file").content == png


def test_every_route_of_our_own_pages_knows_guests_and_owners(house: House) -> None:
    routes = {(method, path) for method, path in listed(house.pages.routes) if method != "HEAD"}
    clients = [house.visit(), *map(house.visit, VISITORS)]
    closed = routes - OUTSIDE - set(OF_VISITORS)
    assert set(OF_VISITORS) < routes
    assert {("POST", f"/admin/{path}") for path in ACTIONS} < closed
    for method, template in sorted(closed):
        seen = [it.request(method, example(template), json={}).status_code for it in clients]
        assert seen[:3] == [401, 403, 403], (template, seen)
        assert seen[3] in (200, 422), (template, seen)
    for (method, template), status in OF_VISITORS.items():
        seen = [it.request(method, template, json={}).status_code for it in clients]
        assert seen == [401, status, status, status], (template, seen)
    for method, template in sorted(OUTSIDE):
        seen = {it.request(method, example(template)).status_code for it in clients}
        assert len(seen) == 1, (template, seen)


def test_no_socket_opens_without_a_login(house: House) -> None:
    async def page(scope, receive, send):
        raise AssertionError("the door let a socket in")

    for path in ("/", "/gradio_api/queue/join", "/studio/state"):
        with pytest.raises(WebSocketDisconnect), house.visit(app=page).websocket_connect(path):
            pass


def test_guests_see_neither_the_history_nor_the_queue_of_others(house: House) -> None:
    image = house.paint("ann", "only ann's").images[0]
    ann, bob, olga = map(house.visit, VISITORS)
    assert [it["id"] for it in ann.get("/studio/images").json()["images"]] == [image.id]
    for other in (bob, olga):
        assert other.get("/studio/images").json()["images"] == []
        assert other.get("/studio/state").json()["jobs"] == []
        gone = other.post("/studio/images/delete", json={"ids": [image.id]})
        assert gone.json() == {"count": 0}
    assert ann.get("/studio/state").json()["visitor"] == {"name": "ann", "role": "guest"}


def test_pictures_from_before_there_were_people_are_nobodys_but_locals(house: House) -> None:
    image = house.paint("local").images[0]
    for name in VISITORS:
        assert house.visit(name).get(f"/studio/images/{image.id}/file").status_code == 404


def test_a_path_that_nobody_knows_is_closed(house: House) -> None:
    for path in (
        "/anything",
        "/studio/later",
        "//studio/state",
        "/studio/../login/../studio/state",
    ):
        assert house.visit().get(path).status_code in (401, 404), path


def test_presets_are_their_peoples_own(house: House) -> None:
    studio = house.studio
    for owner in ("ann", "local"):
        taken = studio.library_of(owner).presets
        asked = TextRequest(prompt="x", negative_prompt=f"by {owner}")
        folder = studio.presets_of(owner)
        key, preset = save(folder, f"Look of {owner}", asked, taken=taken, replaces=False)
        studio.put_preset(owner, key, preset)
    ann, bob, _ = map(house.visit, VISITORS)

    def saved(client):
        presets = client.get("/studio/lists").json()["presets"]
        return {it["name"]: it["own"] for it in presets if it["name"].startswith("Look of")}

    assert saved(ann) == {"Look of local": False, "Look of ann": True}
    assert saved(bob) == {"Look of local": False}
    with pytest.raises(InvalidRequest, match="expected one that was saved here"):
        remove(studio.presets_of("bob"), "look-of-ann")
    ann.post("/studio/refresh")
    assert "Look of ann" in saved(ann)
    remove(studio.presets_of("ann"), "look-of-ann")
    studio.put_preset("ann", "look-of-ann", None)
    assert "Look of ann" not in saved(ann)


def test_an_owner_looks_after_people_keys_and_the_queue(house: House) -> None:
    olga, bob = house.visit("olga"), house.visit("bob")

    def tell(path: str, **given: str):
        return olga.post(f"/admin/{path}", json=given)

    tell("people/add", name="carl", password="carl's secret", role="guest")
    assert log_in(house.visit(), "carl", "carl's secret").status_code == 303
    assert tell("people/password", name="carl", password="short").status_code == 422
    key = tell("keys/add", owner="bob", label="laptop").json()["key"]
    state = olga.get("/admin/state").json()
    assert [it["owner"] for it in state["keys"]] == ["bob"]
    assert key.partition(":")[2] not in json.dumps(state)
    assert "argon2" not in json.dumps(state)
    assert {it["name"] for it in state["disk"]} == {"Data"}

    house.paint("bob")
    wanted = plan(TextRequest(prompt="private words"), house.studio.library, seed=1)
    job = house.jobs.submit(wanted, owner="nobody here")
    assert "private words" not in json.dumps(olga.get("/admin/state").json())
    assert tell("queue/cancel", id="x").json() == {"done": False}
    tell("queue/cancel", id=job)
    assert house.jobs.wait(job, timeout=30, owner="nobody here").is_over

    for path, more in (("people/remove", {}), ("people/role", {"role": "guest"})):
        last = tell(path, name="OLGA", **more)
        assert last.status_code == 422
        assert "'OLGA' is the last one" in last.json()["detail"]
    assert tell("people/remove", name="bob").status_code == 200
    assert house.keys.list() == []
    assert bob.get("/studio/state").status_code == 401


@pytest.mark.parametrize("body", [b"", b"[]", b'{"name": 1}', b"\xff", b"[" * 5000, b"x" * 20_000])
def test_what_is_no_request_of_an_owner_is_refused(house: House, body: bytes) -> None:
    answer = house.visit("olga").post("/admin/people/add", content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(("body: expected", "name: expected"))


def test_a_person_who_is_removed_takes_keys_and_jobs_along_and_pictures_where_that_is_said(
    house: House,
) -> None:
    olga = house.visit("olga")
    kept, gone = house.paint("ann"), house.paint("bob")
    house.keys.add("ann")
    wanted = plan(TextRequest(prompt="a moon steps=1000"), house.studio.library, seed=1)
    job = house.jobs.submit(wanted, owner="bob")
    olga.post("/admin/people/remove", json={"name": "ann"})
    olga.post("/admin/people/remove", json={"name": "bob", "pictures": "yes"})
    assert house.jobs.wait(job, timeout=30, owner="bob").state == "stopped"
    house.admin.see_off()
    assert (house.keys.list(), house.people.departed()) == ([], [])
    assert [it.id for it in house.jobs.history(owner="ann")] == [kept.images[0].id]
    assert house.jobs.history(owner="bob") == []
    assert house.jobs.restore([gone.images[0].id], owner="bob") == 1


def test_programs_need_a_key_while_there_are_people_or_keys(house: House, monkeypatch) -> None:
    """Without a restart: the studio looks at the files whenever they have changed."""
    monkeypatch.delenv("SPACE_ID", raising=False)
    programs = Programs(
        read_settings(["--data-dir", str(house.folder)], {}), house.jobs, full_library
    )
    client = TestClient(programs.face, base_url="http://127.0.0.1:7860")

    def ask(**headers: str) -> int:
        path = "/queue/fal-ai/fooocus/requests/00000000-0000-0000-0000-000000000000/status"
        return client.get(path, headers=headers).status_code

    assert ask() == 401
    for name in VISITORS:
        house.people.remove(name)
    assert ask() == 404
    key = house.keys.add("ann")
    assert (ask(), ask(authorization=f"Key {key}")) == (401, 404)
    house.keys.revoke(key.partition(":")[0])
    assert ask() == 404
    house.people.add("ann", "ann's secret")
    assert ask() == 401
