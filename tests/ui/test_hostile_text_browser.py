"""Whatever somebody calls things, and whatever lies in files: it is text in a real browser, and nothing of it runs."""

import base64
import contextlib
import gc
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Error

from tests.browser import open_chromium
from tests.people.house import WORDS
from tests.ui.hostile_studio import HostileStudio
from tests.ui.hostile_text import ALL, IMG, PAYLOADS, RUN, SIGN, WATCH, WORD, pictures, png
from tests.ui.studios import in_event_loop

WAIT_MS = 30_000
PAGES = ("image/svg+xml", "text/html", "application/xhtml+xml", "text/xml", "text/javascript")
"""Types of what a browser would run as a page of ours."""
INLINE = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp")
DROP = """([name, type, data]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const given = new DataTransfer();
    given.items.add(new File([bytes], name, { type }));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true }));
}"""
PASTE = """(text) => {
    const given = new DataTransfer();
    given.setData("text/plain", text);
    const box = document.querySelector("#prompt textarea");
    box.dispatchEvent(new ClipboardEvent("paste", { clipboardData: given, bubbles: true }));
}"""

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def live(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileStudio]:
    live = in_event_loop(lambda: HostileStudio(tmp_path_factory.mktemp("hostile") / IMG))
    yield live
    live.close()
    gc.collect()  # here, where what Gradio left open may be


@pytest.fixture(scope="module")
def chromium(live: HostileStudio, chromium_path: str) -> Iterator[Any]:
    with open_chromium(chromium_path) as browser:
        yield browser


class Watched:
    """A browser that tells of everything that ran, or became an element, though it was text."""

    def __init__(self, chromium: Any) -> None:
        self.context = chromium.new_context(locale="en-US", viewport={"width": 1400, "height": 900})
        self.context.set_default_timeout(WAIT_MS)
        self.ran: list[str] = []
        self.context.expose_binding("__pwned", lambda source, what: self.ran.append(str(what)))
        self.context.add_init_script(WATCH)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.ran.append(f"error {error}"))
        self.page.on("dialog", self._refuse)

    def _refuse(self, dialog: Any) -> None:
        self.ran.append(f"dialog {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def watched(chromium: Any) -> Iterator[Watched]:
    it = Watched(chromium)
    yield it
    it.context.close()


@pytest.fixture
def page(watched: Watched, live: HostileStudio) -> Iterator[Any]:
    """The studio as ann sees it; the test fails when anything ran by its end."""
    enter(watched.page, live, "ann")
    yield watched.page
    rest(live)
    assert watched.ran == []


def enter(page: Any, live: HostileStudio, name: str) -> None:
    page.goto(f"{live.address}login")
    page.fill("#name", name)
    page.fill("#password", WORDS[name])
    page.press("#password", "Enter")
    page.wait_for_selector("#prompt textarea")
    page.wait_for_selector("#status[data-state=ready]")


def rest(live: HostileStudio) -> None:
    """End all jobs, and take back the steps that were not made."""
    for job in live.jobs.active(owner=None):
        live.jobs.cancel(job.id, owner=job.owner)
    while live.jobs.active(owner=None):
        live.gate.acquire(timeout=0.01)
    while live.gate.acquire(blocking=False):
        pass


def shows(page: Any, selector: str, words: str = SIGN) -> None:
    """Wait until a part shows a payload as it was written."""
    page.wait_for_function(
        "([selector, words]) => [...document.querySelectorAll(selector)]"
        ".some((it) => `${it.value ?? ''} ${it.textContent}`.includes(words))",
        arg=[selector, words],
    )


def fill(page: Any, prompt: str) -> None:
    page.fill("#prompt textarea", prompt)
    page.fill("#num_images input[type=number]", "1")
    page.keyboard.press("Tab")


def paint(page: Any, live: HostileStudio, prompt: str) -> None:
    fill(page, f"{prompt} steps=1")
    page.click("#generate")
    live.gate.release()
    page.wait_for_selector(".tile.done img[src$='/file']")


def to_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_the_detector_tells_of_what_runs(watched: Watched) -> None:
    watched.page.set_content(f"<p>{IMG}</p>")
    watched.page.wait_for_function("document.querySelector('img')?.complete")
    watched.page.wait_for_timeout(0)
    assert {"ran", "element IMG"} <= set(watched.ran)


def test_the_detector_tells_of_every_kind(watched: Watched) -> None:
    for name in ("script", "svg", "double quote", "textarea", "anchor", "frame", "toggle", "base"):
        watched.ran.clear()
        watched.page.set_content(f"<p>{PAYLOADS[name]}")
        watched.page.wait_for_function("true")
        assert watched.ran, name


def test_words_are_text_from_the_prompt_to_history(page: Any, live: HostileStudio) -> None:
    shows(page, "#status")
    shows(page, "#progress_text")  # why the worker has no base model
    page.fill("#negative_prompt textarea", ALL)
    fill(page, f"{ALL} fetches={WORD} steps=3")
    page.click("#generate")
    live.gate.release()
    shows(page, "#progress_text", WORD)
    fill(page, ALL)
    page.click("#generate")
    shows(page, ".queued")
    live.gate.release(5)
    shows(page, "#progress_text", "Done")
    page.click(".thumb >> nth=0")
    shows(page, "#viewer .words")
    shows(page, "#viewer dd")
    page.click("#viewer [data-act=share]")
    shared = page.input_value("#viewer input[aria-label='Address of the picture']")
    page.keyboard.press("Escape")
    to_tab(page, "History")
    page.fill("#history_search", "pwned")
    shows(page, ".card .caption")
    page.click(".card >> nth=0 >> [data-act=settings]")
    shows(page, "#negative_prompt textarea")
    fill(page, f"{ALL} ends=fail steps=1")
    page.click("#generate")
    live.gate.release()
    shows(page, "#failure")
    fill(page, ALL)
    page.fill("#seed input, #seed textarea", IMG)
    page.click("#generate")
    shows(page, ".validation-error")
    shows(page, "#studio_toast")
    page.click("#random_seed")
    page.wait_for_function("document.querySelector('#seed input, #seed textarea').value === ''")
    fill(page, f"__evil__ <lora:{IMG}:1> [[{IMG}, {WORD}]] (embedding:{WORD}:1.1) steps=1")
    page.click("#generate")
    live.gate.release()
    page.wait_for_selector(".tile.done img[src$='/file']")
    page.goto(shared)
    assert page.evaluate("document.images[0].naturalWidth") > 0


def test_names_of_files_are_text_in_every_list(page: Any, live: HostileStudio) -> None:
    open_lists(page, "#common_settings")
    page.click("#model_settings-button")
    page.route(re.compile("/studio/(lists|refresh)$"), add_gone)
    page.click("#refresh_files")
    shows(page, "#studio_toast", "can be chosen")
    open_lists(page, "#model_settings")
    choose(page, "#lora_rows .combo_box >> nth=0")
    shows(page, "#lora_rows .lora_title")
    shows(page, "#lora_rows .lora_word")
    page.click("#lora_rows .lora_word >> nth=0")
    page.click("#lora_rows .lora_notes >> nth=0")
    for part in ("h2", ".sheet_about", "#lora_sheet_words", "#lora_sheet_notes", ".lora_word"):
        shows(page, f"#lora_sheet {part}")
    page.click("#lora_sheet summary:has-text('What its file says')")
    shows(page, "#lora_sheet dd")
    page.keyboard.press("Escape")
    page.click("#style_settings-button")
    page.wait_for_selector(".style")
    page.fill("#style_search", "pwned")
    page.hover(".style:visible >> nth=0")
    shows(page, "#style_words")
    page.click(".style:visible >> nth=0")
    shows(page, "#picked_styles")
    page.click("#common_settings-button")
    choose(page, "#presets .combo_box")  # the one that is gone
    shows(page, ".toast-body")
    choose(page, "#presets .combo_box", at=1)
    shows(page, "#preset_summary")
    shows(page, "#prompt textarea")
    page.click("#generate")
    page.wait_for_selector(".tile, .toast-body, .validation-error")
    to_tab(page, "LoRA")
    for button in page.locator("#lora_settings [role=tab]").all():
        button.click()
        open_lists(page, "#lora_settings")
    page.fill("#prompt textarea", ALL)
    page.click("#sheet_panel .label-wrap")
    page.fill("#sheet_across_values textarea, #sheet_across_values input", IMG)
    page.click("#paint_sheet")
    shows(page, ".validation-error")


def test_records_and_pictures_are_taken_as_text(page: Any, live: HostileStudio) -> None:
    for name, media_type, data in pictures():
        page.evaluate("document.querySelector('#studio_toast')?.remove()")
        page.evaluate(DROP, [name, media_type, base64.b64encode(data).decode()])
        page.wait_for_selector("#studio_toast")
    page.evaluate(PASTE, f"{ALL}\nSteps: 4, Sampler: {IMG}, Seed: 1, Size: 512x512, Model: {IMG}")
    shows(page, "#paste_bar", "written by A1111")
    page.click("#use_settings")
    shows(page, "#prompt textarea")
    file = {"name": f"{IMG}.png", "mimeType": "image/png", "buffer": png({"parameters": ALL})}
    page.click("#upscale_or_vary_button")
    shaped = png(size=(72, 56))  # as what is painted
    bring(page, "#change_picture .well button", {**file, "buffer": shaped})
    page.wait_for_selector("#change_picture img[src*='/inputs/']")
    paint(page, live, ALL)
    page.click(".tile.done")
    page.click("#viewer [data-act=compare]")
    page.wait_for_selector(".compare .before")
    page.keyboard.press("Escape")
    page.evaluate("document.querySelector('#studio_toast')?.remove()")
    bring(page, "#change_picture .well button", {**file, "buffer": f"<svg onload={RUN}>".encode()})
    page.wait_for_selector("#studio_toast")
    page.click("#model_settings-button")
    page.click("#model_settings .combo_box >> nth=0")
    page.click("[role=option]:visible:has-text('pocket') >> nth=0")
    page.click("#describe_button")
    bring(page, "#describe_picture .well button", file)
    page.wait_for_selector("#describe_picture img[src*='/inputs/']")
    page.fill("#prompt textarea", "")
    page.click("#describe")
    live.gate.release(2)
    shows(page, "#prompt textarea")
    page.click("#enhance_button")
    for name in ("look_for", "prompt", "negative_prompt"):
        page.fill(f"#enhance_0_{name} textarea, #enhance_0_{name} input", IMG)
    page.click("#common_settings-button")
    paint(page, live, IMG)


def test_names_labels_and_paths_are_text_for_owners(watched: Watched, live: HostileStudio) -> None:
    page = watched.page
    page.goto(f"{live.address}login")
    page.fill("#name", IMG)
    page.fill("#password", ALL[:150])
    page.press("#password", "Enter")
    page.wait_for_selector("#words:not(:empty)")
    enter(page, live, "olga")
    fill(page, ALL)
    page.click("#generate")
    page.wait_for_selector(".tile")
    page.goto(f"{live.address}admin")
    page.wait_for_selector("#jobs li:has-text('olga')")
    shows(page, "#disk li")  # its path
    for name, field in (("add_person", "name"), ("add_key", "owner")):
        page.fill(f"#{name} [name={field}]", IMG)
        if name == "add_person":
            page.fill(f"#{name} [name=password]", "long enough")
        page.click(f"#{name} button")
        shows(page, "#told")
        page.evaluate("document.getElementById('told').textContent = ''")
    page.fill("#add_key [name=owner]", "olga")
    page.fill("#add_key [name=label]", IMG)
    page.click("#add_key button")
    shows(page, "#keys li")
    rest(live)
    assert watched.ran == []


def test_files_of_visitors_are_never_pages(watched: Watched, live: HostileStudio) -> None:
    page, request, address = watched.page, watched.context.request, live.address
    enter(page, live, "ann")
    key = live.house.keys.add("ann")
    text = f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"{RUN}\"><script>{RUN}</script></svg>"
    sent = []
    for media_type in (*PAGES, "image/png"):
        headers = {"authorization": f"Key {key}", "content-type": media_type}
        headers["x-fal-file-name"] = quote(f"{IMG}.html")
        answer = request.post(f"{address}cdn/files/upload", headers=headers, data=text.encode())
        sent.append(urlsplit(answer.json()["access_url"]).path.removeprefix("/"))
        file = {"name": f"{IMG}.svg", "mimeType": media_type, "buffer": text.encode()}
        answer = request.post(f"{address}gradio_api/upload", multipart={"files": file})
        sent += [f"gradio_api/file={path}" for path in answer.json()]
        refused = request.post(f"{address}studio/inputs", data=text.encode())
        assert refused.status == 422
    for path in sent:
        answer = request.get(address + path)
        is_picture = answer.headers["content-type"] in INLINE
        assert answer.status in (200, 403), path
        is_kept = "attachment" in answer.headers.get("content-disposition", "")
        assert is_picture or is_kept or answer.status == 403, path
        look(page, address + path)
    image = live.paint("ann")
    named = request.post(f"{address}studio/inputs", data=png() + text.encode()).json()["name"]
    for path in (
        f"images/{image.id}/file",
        f"images/{image.id}/file?download=1",
        f"images/{image.id}/thumbnail",
        f"inputs/{named}",
    ):
        answer = request.get(f"{address}studio/{path}")
        assert answer.headers["content-type"] in INLINE, path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "sandbox" in answer.headers["content-security-policy"], path
        look(page, f"{address}studio/{path}")
    assert watched.ran == []


def test_addresses_that_quote_what_they_were_asked_are_no_pages(
    watched: Watched, live: HostileStudio
) -> None:
    page, address = watched.page, live.address
    enter(page, live, "ann")
    for words in (PAYLOADS["script"] + WORD, PAYLOADS["double quote"]):
        asked = quote(words, safe="")
        for path in (
            f"studio/jobs/{asked}",
            f"studio/loras/one?name={asked}",
            f"studio/images?before={asked}&search={asked}",
            f"studio/static/{asked}",
            f"queue/fal-ai/fooocus/requests/{asked}/status",
            f"api/openapi/queue/openapi.json?endpoint_id={asked}",
            f"cdn/files/{asked}/{asked}",
            f"shared/{asked}",
            f"people/{asked}",
            f"gradio_api/file={asked}",
            f"gradio_api/info?all_endpoints={asked}",
            f"nothing/{asked}",
            f"?__theme={asked}&view={asked}&deep_link={asked}&lang={asked}#{asked}",
        ):
            look(page, address + path)
    look(page, f"{address}docs")
    assert watched.ran == []


def look(page: Any, url: str) -> None:
    """Open an address as a page; one that is a download is left."""
    with contextlib.suppress(Error):
        page.goto(url)


def add_gone(route: Any) -> None:
    """List a preset that is there no more."""
    answer = route.fetch()
    lists = answer.json()
    gone = {"id": f"gone {IMG}", "name": f"pwned {IMG}", "summary": "", "own": True, "missing": []}
    lists["presets"].insert(0, gone)
    route.fulfill(response=answer, json=lists)


def open_lists(page: Any, column: str) -> None:
    """Open every list of a column that is in sight."""
    for box in page.locator(f"{column} .combo_box:visible").all():
        box.click()
        page.wait_for_selector("[role=listbox]:visible li >> nth=0")
        page.keyboard.press("Escape")


def choose(page: Any, box: str, at: int = 0) -> None:
    """Choose a thing of a list that has a payload for a name."""
    page.click(box)
    shows(page, "[role=option]")
    page.click(f"[role=option]:visible:has-text('pwned') >> nth={at}")


def bring(page: Any, button: str, file: dict[str, Any]) -> None:
    with page.expect_file_chooser() as waiting:
        page.click(button)
    waiting.value.set_files(file)
