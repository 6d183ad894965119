"""Describe in a real browser: a drawing of the pocket's world becomes the prompt, in the pocket model's own words."""

import gc
import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from engine.library import ROOT
from tests.ui.live_studio import LiveStudio
from tests.ui.studios import in_event_loop

pytestmark = [
    pytest.mark.browser,
    pytest.mark.torch,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def running(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStudio]:
    """A studio with the pocket model alone."""
    folder = tmp_path_factory.mktemp("studio")
    (folder / "models").mkdir()
    (folder / "models" / "pocket").symlink_to(ROOT / "models" / "pocket")
    studio = in_event_loop(lambda: LiveStudio(folder, folder / "models"))
    yield studio
    studio.close()
    gc.collect()


def drawing() -> bytes:
    from pocket.draw import draw
    from pocket.world import Scene

    scene = Scene(shape="star", colour="red", background="blue")
    (pixels,) = draw([scene], np.random.default_rng(4), width=128, height=128)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((512, 512)).save(file, "PNG")
    return file.getvalue()


def test_a_press_puts_the_picture_into_the_prompt(open_page, live) -> None:
    page = open_page()
    page.click("#describe_button")
    page.click("#describe")
    page.wait_for_selector("#describe_news:has-text('Picture: choose a picture first')")
    with page.expect_file_chooser() as waiting:
        page.click("#describe_picture .well button")
    waiting.value.set_files({"name": "p.png", "mimeType": "image/png", "buffer": drawing()})
    page.wait_for_selector("#describe_picture img")
    page.click("#describe")
    page.wait_for_selector("#describe_news:has-text('The prompt says what is in the picture')")
    words = page.input_value("#prompt textarea")
    assert "red star in the centre on a blue background" in words
    assert live.jobs.history(owner="local") == []
    page.fill("#prompt textarea", "other words")
    page.reload()
    page.wait_for_selector("#describe_news:has-text('red star in the centre')")
    page.click("#describe_news button:has-text('Put it into the prompt')")
    page.wait_for_function(
        "words => document.querySelector('#prompt textarea').value === words", arg=words
    )
    page.click("label:has-text('Photograph')")
    page.wait_for_selector("#describe_needed:has-text('blip-image-captioning-large')")
