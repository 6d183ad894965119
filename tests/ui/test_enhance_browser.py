"""Enhance in a real browser: what its panel holds is what the job asks for, and reuse brings it back."""

import pytest

from tests.ui.live_studio import fill

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_region_that_is_filled_goes_with_the_job(open_page, live) -> None:
    page = open_page()
    page.click("#enhance_button")
    fill(page, "a portrait")
    page.click("#generate")
    page.wait_for_selector("text=say what to look for, or how to upscale or vary")
    page.fill("#enhance_0_look_for input", "face")
    page.keyboard.press("Enter")
    page.fill("#enhance_0_prompt textarea", "a kind smile")
    page.keyboard.press("Tab")
    page.click("#generate")
    asked = live.asked("a portrait").enhance
    assert [(it.look_for, it.prompt) for it in asked.regions] == [("face", "a kind smile")]
    assert asked.image is None
