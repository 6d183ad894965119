"""The picture grid in a real browser: asked for in the settings, among the results and in History, there after a reload."""

import pytest

from tests.ui.live_studio import fill, says, visit

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_job_comes_as_one_picture_too_and_brings_its_settings_back(open_page, live) -> None:
    page = open_page()
    fill(page, "a grid of moons", images=3)
    page.click("#settings_tabs [role=tab]:has-text('Advanced')")
    page.click("#advanced_settings .group:has-text('Files & metadata') > .label-wrap")
    page.check("#picture_grid input")
    page.click("#generate")
    live.step(20)
    says(page, "Done")
    page.wait_for_selector(".tile.whole img[src*='/grid?of=']")
    assert page.locator(".tile").count() == 4

    visit(page, live)
    page.wait_for_selector(".tile.whole.done")
    page.fill("#prompt textarea", "something else")
    page.get_by_role("tab", name="History", exact=True).click()
    page.fill("#history_search", "grid of moons")
    page.wait_for_function("document.querySelectorAll('.card').length === 4")
    page.click(".card:not(.whole) [data-act=delete]")
    page.wait_for_function("document.querySelectorAll('.card').length === 3")
    page.click(".card.whole .face")
    page.wait_for_selector("#viewer:has-text('Picture grid') img[src*='/grid?of=']")
    assert page.locator("#viewer [data-act=delete]").count() == 0
    with page.expect_download() as waiting:
        page.click("#viewer [data-act=download]")
    assert waiting.value.suggested_filename.endswith("-grid.png")
    page.click("#viewer [data-act=settings]")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a grid of moons'")
    page.wait_for_function("document.querySelector('#num_images input').value === '3'")
