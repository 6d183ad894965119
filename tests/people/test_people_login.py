"""Names and passwords: who gets in, who waits, and when a login ends."""

import io
import json
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import app
from api.keys import Keys
from engine import InvalidRequest
from guard import Guard
from jobs import Jobs, StorageFailed
from people import People
from people.command import people_command
from people.door import LOOK_S
from people.entrance import LOGIN_S
from people.lockout import ADDRESS, FORGET_S, NAME, PLACE, Lockout
from people.passwords import Cost
from people.roster import Departure
from settings import read_settings
from tests.people.house import CHEAP, WORDS, Clock, House, log_in
from tests.ui.studios import full_library, open_jobs

WRONG = "not the password"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """One queue for all of these tests: none of them paints."""
    jobs = open_jobs(tmp_path_factory.mktemp("queue"))
    yield jobs
    jobs.close()


def test_the_right_password_opens_the_page_and_logout_closes_it(house: House) -> None:
    client = house.visit()
    assert client.get("/").status_code == 303
    assert client.get("/").headers["location"] == "/login"
    answer = log_in(client, "ANN", WORDS["ann"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    assert client.get("/studio/state").json()["visitor"]["name"] == "ann"
    assert client.post("/logout").headers["location"] == "/login"
    assert client.get("/studio/state").status_code == 401


def test_a_login_by_https_is_sent_by_https_alone(house: House) -> None:
    headers = {"origin": "https://studio.example"}
    answer = house.visit().post(
        "/login", data={"name": "ann", "password": WORDS["ann"]}, headers=headers
    )
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_a_foreign_page_cannot_log_anybody_in_or_out(house: House, origin: str) -> None:
    ann = house.visit("ann")
    guarded = TestClient(Guard(ann.app), base_url=ann.base_url, cookies=dict(ann.cookies))
    for path in ("/login", "/logout", "/admin/people/add", "/studio/images/delete"):
        assert guarded.post(path, headers={"origin": origin}).status_code == 403, path


def test_a_thousand_wrong_passwords_open_nothing_and_the_right_one_does_after_the_wait(
    house: House,
) -> None:
    client = house.visit()
    evaluated = 0
    for number in range(1000):
        answer = log_in(client, "ann", f"guess {number}")
        assert answer.status_code in (401, 429)
        assert "set-cookie" not in answer.headers
        evaluated += answer.status_code == 401
        house.clock.now += 0.5
    assert evaluated <= PLACE.free + 10
    refused = log_in(client, "ann", WORDS["ann"])
    assert refused.status_code == 429
    house.clock.now += float(refused.headers["retry-after"])
    assert log_in(client, "ann", WORDS["ann"]).status_code == 303


def test_every_mistake_reads_the_same_whoever_it_is_about(house: House) -> None:
    answers = [log_in(house.visit(), name, WRONG) for name in ("ann", "nobody-of-that-name")]
    assert answers[0].text == answers[1].text
    assert "Name or password is wrong." in answers[0].text


@pytest.mark.parametrize(
    "body",
    [b"", b"name=ann", b"password=x", b"\xff\xfe=%ff", b"name=" + b"a" * 9000, b"&" * 3000],
)
def test_a_form_that_is_none_lets_nobody_in(house: House, body: bytes) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = house.visit().post("/login", content=body, headers=headers)
    assert answer.status_code == 401


def test_guessing_slows_down_by_place_address_and_name() -> None:
    clock = Clock()
    lockout = Lockout(clock)

    def tries(name: str, address: str) -> int:
        """Count the tries that are let through until one has to wait."""
        count = 0
        while lockout.begin(name, address) == 0:
            count += 1
        return count

    assert tries("ann", "1.1.1.1") == PLACE.free
    assert tries("bob", "1.1.1.1") == PLACE.free
    assert lockout.begin("ann", "2.2.2.2") == 0  # from elsewhere
    places = [f"3.3.3.{number}" for number in range(30)]
    assert sum(lockout.begin("ann", place) == 0 for place in places) == NAME.free - PLACE.free - 1
    others = [f"person {number}" for number in range(30)]
    let = sum(lockout.begin(name, "1.1.1.1") == 0 for name in others)
    assert let == ADDRESS.free - 2 * PLACE.free
    clock.now += FORGET_S + 1
    assert lockout.begin("ann", "1.1.1.1") == 0


def test_waits_double_up_to_a_longest_and_a_right_password_ends_them() -> None:
    clock = Clock()
    lockout = Lockout(clock)
    late = []
    for _ in range(12):
        while (wait := lockout.begin("ann", "1.1.1.1")) == 0:
            pass
        late.append(wait)
        clock.now += wait
    assert late[:4] == [1, 2, 4, 8]
    assert late[-1] == PLACE.longest_s
    assert lockout.begin("ann", "1.1.1.1") == 0
    lockout.forgive("ann", "1.1.1.1")
    assert lockout.begin("ann", "1.1.1.1") == 0


def test_tries_that_come_at_once_gain_nothing() -> None:
    from concurrent.futures import ThreadPoolExecutor

    lockout = Lockout(Clock())
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: lockout.begin("ann", "1.1.1.1"), range(200)))
    assert waits.count(0) == PLACE.free


def test_a_login_ends_with_its_time_its_password_and_its_person(house: House) -> None:
    ann, bob, olga = map(house.visit, WORDS)
    assert ann.get("/studio/state").status_code == 200
    house.people.set_password("ann", "another secret")
    assert ann.get("/studio/state").status_code == 401
    house.people.remove("bob")
    assert bob.get("/studio/state").status_code == 401
    house.clock.now += LOGIN_S + 1
    assert olga.get("/studio/state").status_code == 401


def test_a_person_changes_the_password_and_only_this_browser_stays(house: House) -> None:
    here, elsewhere, bob = house.visit("ann"), house.visit("ann"), house.visit("bob")

    def change(old: str, new: str):
        return here.post("/people/password", json={"old": old, "new": new})

    wrong = change("not it", "another secret")
    assert (wrong.status_code, wrong.json()) == (403, {"detail": "The old password is wrong."})
    assert change(WORDS["ann"], "short").status_code == 422
    done = change(WORDS["ann"], "another secret")
    assert done.status_code == 200
    assert "HttpOnly" in done.headers["set-cookie"]
    asked = [it.get("/studio/state").status_code for it in (here, elsewhere, bob)]
    assert asked == [200, 401, 200]
    assert log_in(house.visit(), "ann", WORDS["ann"]).status_code == 401
    assert log_in(house.visit(), "ann", "another secret").status_code == 303


def test_who_guesses_the_old_password_has_to_wait(house: House) -> None:
    ann = house.visit("ann")
    guesses = [ann.post("/people/password", json={"old": "x", "new": "y" * 8}) for _ in range(6)]
    assert [it.status_code for it in guesses] == [403] * 5 + [429]
    assert log_in(house.visit(), "ann", WORDS["ann"]).status_code == 429
    assert house.people.check("ann", WORDS["ann"])


@pytest.mark.parametrize("change", [lambda it: it[:-2] + "xx", lambda it: "", lambda it: "x.y"])
def test_a_login_that_we_did_not_write_is_none(house: House, change) -> None:
    client = house.visit("ann")
    login = client.cookies["pochade_login"]
    client.cookies.clear()
    client.cookies.set("pochade_login", change(login))
    assert client.get("/studio/state").status_code == 401


def test_an_owner_who_becomes_a_guest_is_one_at_once(house: House) -> None:
    olga = house.visit("olga")
    assert olga.get("/admin/state").status_code == 200
    house.people.set_role("olga", "guest")
    assert olga.get("/admin/state").status_code == 403


def test_an_open_stream_ends_when_its_person_is_removed(house: House) -> None:
    sent = []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(6):
            if number == 3:
                house.people.remove("ann")
                house.clock.now += LOOK_S
            sent.append(number)
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    answer = house.visit("ann", page).get("/studio/jobs/x/events")
    assert answer.text == "012"
    assert len(sent) == 6


def test_a_file_of_people_that_cannot_be_read_lets_nobody_in(house: House) -> None:
    ann = house.visit("ann")
    (house.folder / "people.json").write_text("{", encoding="utf-8")
    assert ann.get("/studio/state").status_code == 503
    assert log_in(ann, "ann", WORDS["ann"]).status_code == 503


def test_without_people_the_page_is_open_at_home_alone(tmp_path: Path, jobs) -> None:
    home = House(tmp_path / "home", jobs, with_people=False)
    assert home.visit().get("/studio/state").json()["visitor"] is None
    assert home.visit().get("/admin/state").status_code == 403
    home.people.add("ann", WORDS["ann"])
    assert home.visit().get("/studio/state").status_code == 401
    away = House(tmp_path / "away", jobs, with_people=False, is_home=False)
    assert away.visit().get("/studio/state").status_code == 401
    assert "python app.py people add NAME" in away.visit().get("/login").text


def test_names_and_passwords_have_rules(tmp_path: Path) -> None:
    people = People(tmp_path, CHEAP)
    people.add("Ann", "long enough")
    for name in ("", "a b", "<b>", "a" * 101, "ann", "é", "a\n"):
        with pytest.raises(InvalidRequest, match="^name: expected"):
            people.add(name, "long enough")
    for password in ("short", "x" * 201):
        with pytest.raises(InvalidRequest, match="^password: expected 8 to 200 characters"):
            people.add("bob", password)
    with pytest.raises(InvalidRequest, match="^role: expected owner or guest"):
        people.add("bob", "long enough", "king")
    for act in (people.remove, lambda name: people.set_password(name, "long enough")):
        with pytest.raises(InvalidRequest, match="^name: expected one of a person here"):
            act("bob")
    assert [it.name for it in people.list()] == ["Ann"]


def test_the_file_holds_hashes_that_only_its_owner_can_read(tmp_path: Path) -> None:
    People(tmp_path).add("ann", "long enough")
    (item,) = json.loads((tmp_path / "people.json").read_text())["people"]
    assert re.match(r"\$argon2id\$v=19\$m=65536,t=3,p=4\$", item["hash"])
    assert stat.S_IMODE((tmp_path / "people.json").stat().st_mode) == 0o600
    assert Cost() == Cost(passes=3, kibibytes=65536, lanes=4)


def test_a_broken_file_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "people.json").write_text('{"people": [3]}')
    with pytest.raises(StorageFailed, match="people.json: expected a file of people"):
        People(tmp_path).list()


def test_the_command_adds_lists_changes_and_removes(tmp_path: Path, monkeypatch, capsys) -> None:
    def run(*words: str, password: str = "") -> int:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
        return people_command(words, tmp_path, CHEAP)

    people = People(tmp_path, CHEAP)
    assert run("list") == 0
    assert "people add NAME --owner" in capsys.readouterr().out
    assert run("add", "olga", "--owner", password="first secret") == 0
    assert run("add", "ann", password="other secret") == 0
    assert capsys.readouterr().out == "olga can log in now.\nann can log in now.\n"
    assert run("list") == 0
    assert re.findall(r"^(\S+)  (\S+)", capsys.readouterr().out, re.M) == [
        ("olga", "owner"),
        ("ann", "guest"),
    ]
    assert run("password", "ann", password="third secret") == 0
    assert people.check("ann", "third secret")
    assert people.check("ann", "other secret") is None
    keys = Keys(tmp_path)
    for owner in ("ann", "olga"):
        keys.add(owner)
    assert run("remove", "ann", "--pictures") == 0
    said = "ann is removed, with 1 key; jobs are stopped now, or when the studio starts"
    assert capsys.readouterr().out == f"{said}, pictures go into the bin\n"
    assert [key.owner for key in keys.list()] == ["olga"]
    assert people.departed() == [Departure(name="ann", with_pictures=True)]
    assert run("remove", "ann") == 1
    assert capsys.readouterr().err == "name: expected one of a person here, got 'ann'\n"
    assert [it.name for it in people.list()] == ["olga"]


def test_the_command_reads_the_data_folder_from_the_flag(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a long secret\n"))
    assert app.people(["--data-dir", str(tmp_path), "add", "ann"]) == 0
    assert [it.name for it in People(tmp_path).list()] == ["ann"]
    with pytest.raises(SystemExit):
        app.people(["--data-dir", str(tmp_path), "add", "bob", "a long secret"])


@pytest.mark.parametrize("flags", [["--host", "0.0.0.0"], ["--share"]])
def test_nobody_else_is_let_in_before_there_are_people(tmp_path, flags, monkeypatch) -> None:
    monkeypatch.setenv("SPACE_ID", "")  # none
    settings = read_settings([*flags, "--data-dir", str(tmp_path)], {})
    with pytest.raises(InvalidRequest, match="python app.py people add NAME --owner"):
        app.require_entry(settings)
    assert not app.open_entrance(settings, People(tmp_path)).visitor("")
    People(tmp_path, CHEAP).add("ann", "long enough")
    app.require_entry(settings)


def test_programs_need_a_key_once_there_are_people(house: House, monkeypatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    folders = ["--data-dir", str(house.folder), "--output-dir", str(house.folder / "out")]
    settings = read_settings(folders, {})
    client = TestClient(app.Programs(settings, house.jobs, full_library).face)
    login = house.visit("ann").cookies["pochade_login"]
    for headers in ({}, {"cookie": f"pochade_login={login}"}):
        assert client.post("/fal-ai/fooocus", json={}, headers=headers).status_code == 401
    key = {"authorization": f"Key {house.keys.add('ann')}"}
    assert client.post("/fal-ai/fooocus", json={"num_images": 0}, headers=key).status_code == 422
