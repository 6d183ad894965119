"""The LoRA studio in a real browser with the model that ships: painted, and painted again from the picture's settings."""

import gc
from collections.abc import Iterator

import pytest
from PIL import Image

from engine.library import ROOT
from tests.ui.live_studio import LiveStudio, fill
from tests.ui.studios import in_event_loop

pytestmark = [
    pytest.mark.browser,
    pytest.mark.torch,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SEED = "#lora_seed :is(input, textarea)"


@pytest.fixture(scope="module")
def running(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStudio]:
    folder = tmp_path_factory.mktemp("studio")
    (folder / "models").mkdir()
    (folder / "models" / "pocket").symlink_to(ROOT / "models" / "pocket")
    studio = in_event_loop(lambda: LiveStudio(folder, folder / "models"))
    yield studio
    studio.close()
    gc.collect()  # here, where what Gradio left open may be


def test_a_picture_is_painted_and_painted_again_from_its_settings(open_page, live):
    page = open_page()
    fill(page, "a red star")
    page.get_by_role("tab", name="LoRA", exact=True).click()
    page.fill("#lora_num_inference_steps input[type=number]", "3")
    page.fill(SEED, "5")
    page.click("#lora_pictures-button")
    page.wait_for_selector("#lora_ip_adapters", state="visible")
    page.wait_for_selector("#lora_relighting", state="hidden")  # made for SD 1.5
    page.click("#lora_common-button")
    page.click("#lora_generate")
    page.wait_for_selector(".tile.done img[src$='/file']")
    first = live.newest("red star")
    assert first.plan.studio is not None
    page.fill(SEED, "6")
    page.click(".tile.done")
    page.click("#viewer [data-act=settings]")
    page.wait_for_function("at => document.querySelector(at).value === '5'", arg=SEED)
    page.click("#lora_generate")
    page.wait_for_function("document.querySelectorAll('.thumb').length === 2")
    second = live.newest("red star")
    assert second.id != first.id
    assert second.plan.studio == first.plan.studio
    with Image.open(first.path) as one, Image.open(second.path) as other:
        assert one.tobytes() == other.tobytes()
