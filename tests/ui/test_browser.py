"""What a person does with the page, in a real browser on a real queue: the whole way from words to History and back."""

import re

import pytest

from tests.ui.live_studio import fill, says, visit
from tests.ui.studios import EXAMPLES, MAX_WAITING

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TRAP = '${document.title="trapped"}<img src=x onerror="document.title=\'trapped\'">{{value}}`'

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def open_history(page, search: str) -> None:
    page.get_by_role("tab", name="History", exact=True).click()
    page.fill("#history_search", search)


def test_a_picture_is_watched_left_found_reused_deleted_and_brought_back(open_page, live):
    page = open_page()
    fill(page, "a red star steps=6", images=2)
    page.fill("#negative_prompt textarea", "a blue moon")
    page.click("#generate")
    live.step(2)
    says(page, "Step 2 of 6, image 1 of 2")
    frame = page.wait_for_selector(".tile img[src*='/previews/']").get_attribute("src")
    live.step()
    says(page, "Step 3 of 6, image 1 of 2")
    page.wait_for_function("old => document.querySelector('.tile img').src !== old", arg=frame)

    visit(page, live)
    says(page, "Step 3 of 6, image 1 of 2")
    assert page.input_value("#prompt textarea") == "a red star steps=6"
    assert page.input_value("#negative_prompt textarea") == "a blue moon"
    assert page.input_value("#num_images input[type=number]") == "2"

    live.step(9)
    says(page, "Done")
    page.wait_for_selector(".tile.done:nth-child(2) img[src$='/file']")
    assert page.get_attribute(".tile img", "alt") == "a red star steps=6"

    open_history(page, "RED star")
    page.wait_for_function("document.querySelectorAll('.card').length === 2")
    page.get_by_role("tab", name="Text", exact=True).click()
    fill(page, "something else")
    page.fill("#negative_prompt textarea", "")
    page.get_by_role("tab", name="History", exact=True).click()
    page.click(".card >> nth=1 >> [data-act=settings]")
    page.wait_for_selector("#prompt textarea:visible")
    page.wait_for_function("document.querySelector('#seed input, #seed textarea').value !== ''")
    assert page.input_value("#prompt textarea") == "a red star steps=6"
    assert page.input_value("#negative_prompt textarea") == "a blue moon"

    open_history(page, "red star")
    page.click(".card >> nth=0 >> [data-act=delete]")
    page.wait_for_function("document.querySelectorAll('.card').length === 1")
    page.click("#studio_toast button")
    page.wait_for_function("document.querySelectorAll('.card').length === 2")


def test_a_download_is_the_file_itself(open_page, live, tmp_path):
    live.paint("a download")
    page = open_page()
    open_history(page, "a download")
    with page.expect_download() as waiting:
        page.click(".card [data-act=download]")
    waiting.value.save_as(tmp_path / "got.png")
    image = live.newest("a download")
    assert (tmp_path / "got.png").read_bytes() == image.path.read_bytes()
    assert waiting.value.suggested_filename.endswith("-11.png")


def test_the_job_goes_on_when_the_browser_is_closed(open_page, live):
    page = open_page()
    fill(page, "left alone steps=3")
    page.click("#generate")
    live.step()
    says(page, "Step 1 of 3")
    page.context.close()
    live.step(2)
    again = open_page()
    again.wait_for_selector(".thumb img[alt='left alone steps=3']")


def test_generate_fills_a_queue_that_can_be_cancelled_piece_by_piece(open_page, live):
    page = open_page()
    fill(page, "first steps=5")
    page.click("#generate")
    live.step()
    says(page, "Step 1 of 5")
    fill(page, "second")
    page.click("#generate")
    page.wait_for_selector(".queued:has-text('second')")
    page.click(".queued button")
    page.wait_for_function("!document.querySelector('.queued')")
    assert [job.prompt for job in live.jobs.active(owner="local")] == ["first steps=5"]


def test_ctrl_enter_generates_and_escape_stops(open_page, live):
    page = open_page()
    fill(page, "by keyboard steps=9")
    page.focus("#prompt textarea")
    page.keyboard.press("Control+Enter")
    live.step()
    says(page, "Step 1 of 9")
    page.focus("#prompt textarea")
    page.keyboard.press("Escape")
    says(page, "Stopped")
    page.wait_for_selector("#stop", state="hidden")


def test_escape_closes_the_large_view_and_leaves_the_job(open_page, live):
    live.paint("already there")
    page = open_page()
    fill(page, "not to be stopped steps=9")
    page.click("#generate")
    live.step()
    says(page, "Step 1 of 9")
    page.click(".thumb >> nth=0")
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="detached")
    assert [job.state for job in live.jobs.active(owner="local")] == ["running"]


def test_skip_goes_on_with_the_next_picture(open_page, live):
    page = open_page()
    fill(page, "skipped steps=9", images=2)
    page.click("#generate")
    live.step()
    says(page, "Step 1 of 9, image 1 of 2")
    with page.expect_response("**/skip"):  # the engine must know before it goes on
        page.click("#skip")
    live.step(3)
    says(page, "image 2 of 2")


def test_the_large_view_turns_pages_and_shows_the_seed(open_page, live):
    live.paint("one of two")
    live.paint("two of two")
    page = open_page()
    open_history(page, "of two")
    page.wait_for_function("document.querySelectorAll('.card').length === 2")
    page.click(".card .face >> nth=0")
    words = page.locator("#viewer .words")
    assert words.inner_text() == "two of two"
    page.keyboard.press("ArrowRight")
    assert words.inner_text() == "one of two"
    page.click("#viewer [data-act=seed]")
    page.wait_for_function("document.querySelector('#seed input, #seed textarea').value === '11'")


@pytest.mark.parametrize(
    ("before", "selected", "key", "after"),
    [
        ("a red star", "red", "ArrowUp", "a (red:1.1) star"),
        ("a (red:1.1) star", "red", "ArrowUp", "a (red:1.2) star"),
        ("a (red:1.1) star", "red", "ArrowDown", "a red star"),
        ("a (red:1.1) star", "(red:1.1)", "ArrowDown", "a red star"),
        ("a red star", "red star", "ArrowDown", "a (red star:0.9)"),
        ("a ((red) star:1.3)", "(red) star", "ArrowUp", "a ((red) star:1.4)"),
    ],
)
def test_ctrl_up_and_down_weigh_the_selected_words(open_page, before, selected, key, after):
    page = open_page()
    fill(page, before)
    page.evaluate(
        """([text, words]) => {
            const box = document.querySelector("#prompt textarea");
            box.focus();
            box.setSelectionRange(text.indexOf(words), text.indexOf(words) + words.length);
        }""",
        [before, selected],
    )
    page.keyboard.press(f"Control+{key}")
    assert page.input_value("#prompt textarea") == after


def test_question_mark_shows_the_shortcuts_but_not_while_typing(open_page):
    page = open_page()
    page.focus("#prompt textarea")
    page.keyboard.type("what?")
    assert page.locator("#sheet").count() == 0
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    page.wait_for_selector("#sheet[open]")


def test_a_prompt_is_text_everywhere(open_page, live):
    live.paint(TRAP)
    page = open_page()
    fill(page, f"{TRAP} steps=3")
    page.click("#generate")
    live.step()
    says(page, "Step 1 of 3")
    fill(page, TRAP)
    page.click("#generate")
    page.wait_for_selector(".queued")
    live.step(4)
    says(page, "Done")
    page.click(".thumb >> nth=0")
    assert TRAP in page.inner_text("#viewer .words")
    page.keyboard.press("Escape")
    open_history(page, "trapped")
    page.wait_for_selector(".card")
    visit(page, live)
    assert page.title() != "trapped"
    assert page.locator("img[src='x']").count() == 0


def test_a_wrong_value_is_told_at_its_field(open_page, live):
    page = open_page()
    fill(page, "never painted")
    page.fill("#seed input, #seed textarea", "seven")
    page.click("#generate")
    page.wait_for_selector("#seed :text('seven')")
    page.wait_for_selector("#studio_toast:has-text('Seed: expected')")
    assert live.jobs.active(owner="local") == []
    page.click("#random_seed")
    page.wait_for_function("document.querySelector('#seed input, #seed textarea').value === ''")


def test_a_full_queue_is_a_toast_and_the_page_goes_on(open_page, live):
    page = open_page()
    for number in range(MAX_WAITING + 1):
        live.submit(f"filler {number} steps=9")
    fill(page, "one too many")
    page.click("#generate")
    page.wait_for_selector("text=queue: expected fewer than")
    live.rest()
    page.click("#generate")
    live.step(2)
    says(page, "Done")


def test_steps_may_stay_empty_after_a_look_at_the_advanced_settings(open_page, live):
    page = open_page()
    page.get_by_role("tab", name="Advanced", exact=True).click()
    page.get_by_role("button", name="Sampling").click()
    page.wait_for_selector("#num_inference_steps:visible")
    page.get_by_role("tab", name="Settings", exact=True).click()
    fill(page, "default steps")
    page.click("#generate")
    live.step(2)
    says(page, "Done")
    assert live.newest("default steps").plan.sampling.num_inference_steps == 30


def test_a_failed_job_says_why_on_the_stage(open_page, live):
    page = open_page()
    fill(page, "too large ends=fail")
    page.click("#generate")
    live.step(2)
    page.wait_for_selector("#failure:has-text('the device has 1 GB, expected 8 GB')")


def test_the_pocket_model_says_what_it_can_paint(open_page):
    page = open_page()
    assert "pocket model is painting" in page.inner_text("#pocket_note")
    assert "models/checkpoints" in page.inner_text("#real_weights")
    page.click(".example >> nth=0")
    assert page.input_value("#prompt textarea") == EXAMPLES[0]


def test_settings_fold_away_and_stay_so(open_page, live):
    page = open_page()
    assert page.is_visible("#performance")
    page.click("#settings_switch")
    assert page.is_hidden("#performance")
    visit(page, live)
    assert page.is_hidden("#performance")


def test_a_phone_shows_all_in_one_column(open_page, live):
    live.paint("for the phone")
    page = open_page(**PHONE)
    assert page.is_hidden("#performance")
    page.click("#settings_switch")
    for tab in ("Text", "History"):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_selector("#prompt textarea:visible" if tab == "Text" else ".card")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width == 390, tab
    page.get_by_role("tab", name="Text", exact=True).click()
    box = page.locator("#generate").bounding_box()
    assert box["height"] >= 44
    assert box["y"] + box["height"] <= 844
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, a, input, textarea")]
            .filter((node) => node.checkVisibility({visibilityProperty: true}) && node.closest("#stage, #controls, #actions"))
            .filter((node) => node.getBoundingClientRect().height < 44).map((node) => node.outerHTML)"""
    )
    assert small == []


def test_nothing_is_fetched_from_elsewhere(chromium, live):
    context = chromium.new_context(locale="en-US")
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    visit(page, live)
    context.close()
    away = [url for url in asked if not re.match(rf"{re.escape(live.address)}|data:|blob:", url)]
    assert away == []
