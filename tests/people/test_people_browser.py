"""Two people at one studio, in a real browser: each logs in, sees what is his own, and leaves nothing behind."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware import Middleware

import ui
from guard import Guard
from people import Door
from tests.browser import open_chromium
from tests.people.house import WORDS, House
from tests.ui.studios import in_event_loop, open_jobs

WAIT_MS = 30_000
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SECRET = "somebody's secret"
TRAP = "<img src=x onerror=\"document.title='trapped'\">"

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class LiveHouse:
    """A house whose page is open for browsers."""

    def __init__(self, folder: Path) -> None:
        self.gate = threading.Semaphore(0)
        self.jobs = open_jobs(folder, gate=self.gate)
        self.house = House(folder / "data", self.jobs)
        self.demo = ui.build(self.house.studio)
        door = Middleware(Door, entrance=self.house.entrance, pages=self.house.pages)
        _, self.address, _ = self.demo.launch(
            **ui.launch_options(),
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            app_kwargs={
                "routes": ui.routes(self.house.studio),
                "middleware": [Middleware(Guard), door],
            },
        )

    def close(self) -> None:
        self.gate.release(100)
        self.demo.close()
        self.jobs.close()


@pytest.fixture(scope="module")
def live(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveHouse]:
    live = in_event_loop(lambda: LiveHouse(tmp_path_factory.mktemp("house")))
    yield live
    live.close()
    gc.collect()  # here, where what Gradio left open may be


@pytest.fixture(scope="module")
def chromium(live: LiveHouse, chromium_path: str) -> Iterator[Any]:
    with open_chromium(chromium_path) as browser:
        yield browser


@pytest.fixture
def open_page(chromium, live: LiveHouse) -> Iterator[Any]:
    """Open the studio in a browser of its own; the test fails when a script does."""
    contexts, faults = [], []

    def open_(**look):
        context = chromium.new_context(locale="en-US", **look)
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(live.address)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []


def log_in(page, name: str) -> None:
    page.fill("#name", name)
    page.fill("#password", WORDS.get(name, SECRET))
    page.click("button[type=submit]")
    page.wait_for_selector("#status[data-state=ready]", state="attached")
    page.wait_for_selector(f"#visitor:has-text('{name}')")


def search(page, words: str) -> None:
    page.get_by_role("tab", name="History", exact=True).click()
    page.fill("#history_search", words)


def test_two_people_paint_beside_each_other_and_one_leaves(open_page, live: LiveHouse) -> None:
    ann, bob = open_page(), open_page(**PHONE)
    for page, name in ((ann, "ann"), (bob, "bob")):
        assert page.url.endswith("/login")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.fill("#name", name)
        page.fill("#password", "not the password")
        page.press("#password", "Enter")
        page.wait_for_selector("#words:has-text('wrong')")
        log_in(page, name)
    ann.fill("#prompt textarea", f"{TRAP} ann's star steps=2")
    ann.click("#generate")
    live.gate.release(20)
    ann.wait_for_selector(".tile.done img[src$='/file']")
    search(ann, "ann's star")
    ann.wait_for_selector(".card")
    picture = ann.get_attribute(".tile.done img", "src")
    assert ann.request.get(picture).status == 200

    assert bob.request.get(picture).status == 404
    assert bob.locator(".thumb").count() == 0
    search(bob, "star")
    bob.wait_for_selector("#history:has-text('No picture has')")
    assert bob.locator(".card").count() == 0
    assert bob.evaluate("document.documentElement.scrollWidth <= innerWidth")

    ann.click(".card .face, .card img")
    ann.click("#viewer [data-act=share]")
    address = ann.input_value("#viewer input[aria-label='Address of the picture']")
    stranger = open_page()
    assert stranger.request.get(address).headers["content-type"] == "image/png"
    ann.press("#viewer", "Escape")

    ann.click("#visitor summary")
    ann.click("#log_out")
    ann.wait_for_selector("#login")
    assert ann.request.get(picture).status == 401
    assert ann.evaluate("localStorage.length") == 0
    log_in(ann, "bob")
    assert ann.input_value("#prompt textarea") == ""
    assert ann.locator(".thumb, .tile.done").count() == 0
    assert "trapped" not in (ann.title(), bob.title())


def test_who_is_removed_comes_to_the_login_and_an_owner_sees_all_but_the_pictures(
    open_page, live: LiveHouse
) -> None:
    live.house.people.add("eve", SECRET)
    eve, olga = open_page(), open_page(**PHONE)
    log_in(eve, "eve")
    log_in(olga, "olga")
    assert eve.locator("#visitor a").count() == 0
    eve.fill("#prompt textarea", "eve's moon steps=50")
    eve.click("#generate")
    eve.wait_for_selector("#queue .queued, .tile")
    olga.click("#visitor summary")
    olga.click("#visitor a")
    olga.wait_for_selector("#people li >> text=eve")
    olga.wait_for_selector("#jobs li >> text=eve")
    assert "moon" not in olga.inner_text("#admin")
    assert olga.evaluate("document.documentElement.scrollWidth <= innerWidth")

    olga.fill("#add_key [name=owner]", "eve")
    olga.fill("#add_key [name=label]", TRAP)
    olga.click("#add_key button")
    olga.wait_for_selector("#keys li >> text=<img")
    assert olga.locator("#keys img").count() == 0

    olga.click("#people li:has-text('ann') >> text=Set password")
    olga.fill("#people input[type=password]", "another secret")
    olga.click("#people li:has-text('ann') >> text=Save")
    olga.wait_for_selector("#told:has-text('ann has a new password.')")
    assert live.house.people.check("ann", "another secret")

    olga.click("#people li:has-text('eve') >> text=Remove")
    olga.wait_for_selector("#people .removal:has-text('Pictures stay under that name')")
    olga.check("#people .removal input")
    olga.click("#people .removal button[type=submit]")
    olga.wait_for_selector("#people li:has-text('eve')", state="detached")
    olga.wait_for_selector("#jobs li:has-text('Nothing')")
    assert live.house.keys.list() == []
    eve.wait_for_selector("#login")
    assert "trapped" not in (eve.title(), olga.title())


def test_a_guest_changes_the_password_and_is_told_who_adds_loras(
    open_page, live: LiveHouse
) -> None:
    live.house.people.add("gus", SECRET)
    gus = open_page(**PHONE)
    log_in(gus, "gus")
    gus.click("#visitor summary")
    gus.click("#change_password")
    gus.fill("#old_password", "not the password")
    gus.fill("#new_password", "a newer secret")
    gus.click("#password_sheet button[type=submit]")
    gus.wait_for_selector("#password_sheet [role=alert]:has-text('The old password is wrong.')")
    gus.fill("#old_password", SECRET)
    gus.click("#password_sheet button[type=submit]")
    gus.wait_for_selector("#password_sheet", state="detached")
    assert live.house.people.check("gus", "a newer secret")
    gus.reload()
    gus.wait_for_selector("#visitor:has-text('gus')")
    gus.click("#settings_switch")
    gus.click("#settings_tabs [role=tab]:has-text('Models')")
    gus.wait_for_selector("#loras .lora_refusal:has-text('An owner of this studio can add LoRAs.')")
    assert not gus.is_visible("#loras .lora_bring")
