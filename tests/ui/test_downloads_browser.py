"""Missing weights in a real browser: a sentence, a button, a bar, and all of it gone when the file is there."""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from engine import Library
from engine.catalog import Offer, Source
from engine.library import few_step_offers
from engine.partners import COMMON, DETECTOR, SAM, partner_offers
from engine.places import read_catalog
from tests.file_server import FileServer, file_server
from tests.ui.studios import full_library

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DATA = bytes(1 << 20)
OUTLINES = COMMON["PyraCanny"].file
LIGHTNING = "sdxl_lightning_4step_lora.safetensors"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    own = tmp_path / "models" / "checkpoints" / "own.safetensors"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"")
    return tmp_path / "models"


@pytest.fixture
def hungry(live, server: FileServer, models_dir: Path) -> Iterator[None]:
    """The studio has a base model, and everything else is still to be fetched."""

    def read() -> Library:
        offers = [
            Offer(file=it.file, kind=it.kind, source=Source(url=server.url(it.file)))
            for it in (*partner_offers(), *few_step_offers())
        ]
        catalog = read_catalog(models_dir, None, offers)
        return dataclasses.replace(full_library(), catalog=catalog, presets={})

    studio = live.studio
    studio.read_library = read
    studio.refresh()
    yield
    for fetch in studio.fetches.known():
        studio.fetches.cancel(fetch.item)
        server.go_on.set()
        fetch.wait()
    studio.read_library = full_library
    studio.refresh()


def photo() -> dict:
    file = io.BytesIO()
    Image.new("RGB", (90, 70), "green").save(file, "PNG")
    return {"name": "picture.png", "mimeType": "image/png", "buffer": file.getvalue()}


def row(page, file: str):
    return page.locator(f".file:visible:has(.file_name[title='{file}'])")


def follow_outlines(page) -> None:
    page.click("#image_prompts_button")
    with page.expect_file_chooser() as waiting:
        page.click(".slot[data-index='0'] .well_button")
    waiting.value.set_files(photo())
    page.wait_for_selector(".slot[data-index='0'] .well img[src]")
    page.select_option(".slot[data-index='0'] select", "PyraCanny")


def test_a_press_fetches_the_file_and_the_sentence_goes(
    open_page, hungry: None, server: FileServer, models_dir: Path
) -> None:
    server.files[OUTLINES] = DATA
    server.stalls[OUTLINES] = len(DATA) // 2
    page, other = open_page(), open_page()
    for it in (page, other):
        follow_outlines(it)
        it.wait_for_selector("text=To follow outlines, one file is missing")
    assert row(page, OUTLINES).locator(".file_facts").inner_text() == "396 MB · 127.0.0.1"
    row(page, OUTLINES).get_by_role("button", name="Download").click()
    bar = f".file:has(.file_name[title='{OUTLINES}']) .file_bar"
    page.wait_for_selector(f"{bar}[aria-valuenow='50']")
    assert row(page, OUTLINES).locator(".file_facts").inner_text() == "524 kB of 1.0 MB"
    other.reload()
    other.wait_for_selector("#image_prompts_button")
    follow_outlines(other)
    row(other, OUTLINES).get_by_role("button", name="Cancel").wait_for()
    server.go_on.set()
    for it in (page, other):
        it.wait_for_selector("text=To follow outlines", state="hidden")
    assert (models_dir / "controlnet" / OUTLINES).read_bytes() == DATA
    assert server.asked == [OUTLINES]


def test_a_download_that_fails_says_why_and_can_be_tried_again(
    open_page, hungry: None, server: FileServer
) -> None:
    file = COMMON["upscaler"].file
    page = open_page()
    page.click("#upscale_or_vary_button")
    page.click("#change_method label:has-text('Fast')")
    row(page, file).get_by_role("button", name="Download").click()
    row(page, file).get_by_role("button", name="Try again").wait_for()
    problem = row(page, file).get_by_role("alert").inner_text()
    assert problem.startswith(f"{file}: expected the file at http://127.0.0.1")
    assert problem.endswith("got: 404 Not Found")
    server.files[file] = DATA
    row(page, file).get_by_role("button", name="Try again").click()
    page.wait_for_selector("text=To enlarge a picture", state="hidden")


def test_a_download_can_be_ended_and_all_of_a_kind_begun_at_once(
    open_page, hungry: None, server: FileServer, models_dir: Path
) -> None:
    server.files[LIGHTNING] = DATA
    server.stalls[LIGHTNING] = len(DATA) // 2
    page = open_page()
    page.click("#performance label:has-text('Lightning')")
    page.wait_for_selector("text=To paint in 4 steps, one file is missing")
    row(page, LIGHTNING).get_by_role("button", name="Download").click()
    row(page, LIGHTNING).get_by_role("button", name="Cancel").click()
    row(page, LIGHTNING).get_by_role("button", name="Download").wait_for()
    assert not (models_dir / "loras" / LIGHTNING).exists()
    files = [COMMON[role].file for role in ("inpaint head", "inpaint v2.6", "upscaler")]
    server.files.update(dict.fromkeys(files, DATA))
    page.click("#inpaint_button")
    page.click("[data-use=inpaint] >> text=Download all")
    page.wait_for_selector("text=To repaint", state="hidden")
    assert sorted(set(server.asked) - {LIGHTNING}) == sorted(files)


def test_what_a_job_fetched_is_no_longer_missed_on_the_page(
    open_page, hungry: None, live, models_dir: Path
) -> None:
    page = open_page()
    page.click("#upscale_or_vary_button")
    page.click("#change_method label:has-text('Fast')")
    page.wait_for_selector("text=To enlarge a picture, one file is missing")
    offered = live.studio.catalog.weights("upscaler", COMMON["upscaler"].file, "test")
    offered.path.parent.mkdir(parents=True)
    offered.path.write_bytes(DATA)
    live.studio.look_for_arrivals()
    page.wait_for_selector("text=To enlarge a picture", state="hidden")


def test_what_finds_a_mask_can_be_fetched_before_it_is_looked_for(open_page, hungry: None) -> None:
    page = open_page()
    page.click("#inpaint_button")
    page.click("text=Mask from the picture")
    page.click("#mask_model input")
    page.click("[role=option]:has-text('sam')")
    page.wait_for_selector("text=To find it, 2 files are missing. They come with the first mask")
    for offer in (DETECTOR, SAM["vit_b"]):
        row(page, offer.file).get_by_role("button", name="Download").wait_for()
