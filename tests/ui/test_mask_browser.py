"""Mask from the picture in a real browser: networks of the real layout find it, the sketcher shows it, a job gets it."""

import gc
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.library import ROOT
from engine.partners import DETECTOR, SAM
from tests.ui.live_studio import LiveStudio, fill
from tests.ui.studios import in_event_loop

pytestmark = [
    pytest.mark.browser,
    pytest.mark.torch,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SIZE = (120, 80)


@pytest.fixture(scope="module")
def running(chromium_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStudio]:
    """A studio that paints with the pocket model and finds with networks of random weights."""
    from engine.stages import find_mask
    from tests.tiny_segmenters import write_detector, write_sam

    folder = tmp_path_factory.mktemp("studio")
    models_dir: Path = folder / "models"
    write_detector(models_dir / "segmenters" / DETECTOR.file)
    write_sam(models_dir / "segmenters" / SAM["vit_b"].file)
    (models_dir / "pocket").symlink_to(ROOT / "models" / "pocket")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(find_mask, "SHORT_SIDE", 96)
        patch.setattr("ui.mask_from.ONNX_LIBRARY", "no_such_library")
        studio = in_event_loop(lambda: LiveStudio(folder, models_dir))
        yield studio
        studio.close()
        gc.collect()


def photo() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def drawn(page) -> np.ndarray:
    """What the sketcher shows of the mask."""
    rows = page.evaluate(
        """() => {
            const canvas = document.querySelector(".sketch_sheet canvas");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let bits = "";
            for (let at = 3; at < data.length; at += 4) bits += data[at] ? 1 : 0;
            return bits;
        }"""
    )
    return (np.frombuffer(rows.encode(), np.uint8) == ord("1")).reshape(SIZE[::-1])


def certainty(page, value: str) -> None:
    page.fill("#mask_box_threshold input[type=number]", value)
    page.keyboard.press("Tab")


def test_a_press_puts_a_mask_on_the_picture_and_generate_sends_it(open_page, live) -> None:
    page = open_page()
    page.click("#inpaint_button")
    page.click("#inpaint_settings button:has-text('Mask from the picture')")
    page.click("#find_mask")
    page.wait_for_selector("#sketch .validation-error:has-text('Choose a picture first')")

    with page.expect_file_chooser() as waiting:
        page.click("#sketch [data-act=choose]")
    waiting.value.set_files({"name": "p.png", "mimeType": "image/png", "buffer": photo()})
    page.click("#find_mask")
    page.wait_for_selector("#mask_prompt .validation-error:has-text('expected words')")

    page.fill("#mask_prompt input", "red star")
    page.keyboard.press("Enter")
    page.click("#inpaint_settings button:has-text('More on finding')")
    certainty(page, "1")
    page.click("#find_mask")
    page.wait_for_selector("#mask_news:has-text(\"Look for: expected 'red star' in the picture\")")
    assert not drawn(page).any()

    certainty(page, "0")
    page.click("#find_mask")
    page.wait_for_selector("#mask_news:has-text('The mask is on the picture')")
    page.wait_for_selector(".sketch_status:has-text('% painted')")
    mask = drawn(page)
    assert live.jobs.history(owner="local") == []

    fill(page, "a red star")
    page.click("#generate")
    asked = live.asked("a red star").inpaint
    sent = live.studio.uploads.find(asked.mask, "local").path
    with Image.open(sent) as image:
        assert (np.asarray(image) == mask).all()
    page.click("#sketch [data-act=undo]")
    page.wait_for_selector(".sketch_status:has-text('nothing painted')")


def test_a_model_that_cannot_run_here_says_what_it_takes(open_page) -> None:
    page = open_page()
    page.click("#inpaint_button")
    page.click("#inpaint_settings button:has-text('Mask from the picture')")
    page.wait_for_selector("#mask_prompt", state="visible")
    page.click("#mask_model input")
    page.click("[role=option]:has-text('u2net_cloth_seg')")
    page.wait_for_selector("#mask_needed:has-text('u2net_cloth_seg needs a library: pip install')")
    page.wait_for_selector("#find_mask:disabled")
    page.wait_for_selector("#mask_cloth", state="visible")
    page.wait_for_selector("#mask_prompt", state="hidden")
