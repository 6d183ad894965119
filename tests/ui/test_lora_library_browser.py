"""LoRAs in a real browser: one comes, is chosen, gives its words to the prompt, and what was noted is still there after a reload."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Library
from engine.places import read_catalog
from tests.file_server import file_server
from tests.lora_files import hostile_files, lora_bytes, weights_bytes, write_lora
from tests.ui.studios import full_library
from ui.lora_library import LoraLibrary

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROW = "#lora_rows .lora >> nth=0 >>"
TRAP = "<img src=x onerror=window.trapped=1>"
KNOWN = {
    "modelspec.title": "Ink and wash",
    "modelspec.trigger_phrase": "inkwash, wet on wet",
    "ss_tag_frequency": json.dumps({"1_ink": {"tree": 5}}),
}


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    own = tmp_path / "models" / "checkpoints" / "own.safetensors"
    own.parent.mkdir(parents=True)
    own.write_bytes(weights_bytes({"unet.attn2.to_k.weight": (4, 2048)}))
    write_lora(tmp_path / "models" / "loras" / "small.safetensors", width=768)
    return tmp_path / "models"


@pytest.fixture
def shelf(live, models_dir: Path, tmp_path: Path) -> Iterator[None]:
    """The studio has a models folder of its own, that LoRAs may come into."""
    studio = live.studio
    before = studio.read_library, studio.loras

    def read() -> Library:
        catalog = read_catalog(models_dir)
        return dataclasses.replace(
            full_library(), catalog=catalog, presets={}, may_fetch=lambda url: True
        )

    studio.read_library, studio.loras = read, LoraLibrary(models_dir, tmp_path / "data")
    studio.refresh()
    yield
    studio.read_library, studio.loras = before
    studio.refresh()


def to_rows(page) -> None:
    page.click("#model_settings-button")
    page.wait_for_selector(".lora_bring:visible")


def bring(page, *files: tuple[str, bytes]) -> None:
    page.click(".lora_bring:visible summary")
    given = [{"name": name, "mimeType": "", "buffer": data} for name, data in files]
    page.locator(".lora_bring:visible input[type=file]").set_input_files(given)


def test_a_lora_comes_is_chosen_and_what_was_noted_is_kept(open_page, live, shelf: None) -> None:
    page = open_page()
    to_rows(page)
    bring(page, ("Ink v2.safetensors", lora_bytes(KNOWN)))
    page.wait_for_selector(".lora_bring .file:has-text('Is here · sha256')")
    page.wait_for_selector(f"{ROW} .lora_title:has-text('Ink and wash')")
    assert page.input_value(f"{ROW} .combo_box") == "Ink v2.safetensors"
    page.fill("#prompt textarea", "a boat")
    page.click(f"{ROW} .lora_word:has-text('wet on wet')")
    assert page.input_value("#prompt textarea") == "a boat, wet on wet"
    page.wait_for_selector(f"{ROW} .lora_word[aria-pressed=true]:has-text('wet on wet')")
    page.click(f"{ROW} .lora_word:has-text('wet on wet')")
    assert page.input_value("#prompt textarea") == "a boat"
    page.click(f"{ROW} .lora_notes")
    page.click("#lora_sheet .lora_word:has-text('tree')")
    assert page.input_value("#lora_sheet_words") == "inkwash, wet on wet, tree"
    page.fill("#lora_sheet_notes", "Grey paper.\nNo outlines.")
    page.fill("#lora_sheet_weight", "0.7")
    page.click("#lora_sheet_save")
    page.wait_for_selector("#lora_sheet", state="detached")
    page.wait_for_selector(f"{ROW} .lora_word:has-text('tree')")
    page.reload()
    to_rows(page)
    page.click("#lora_rows .combo_box >> nth=1")
    page.keyboard.type("tree")  # found by its words
    page.click("[role=option]:visible:has-text('Ink v2')")
    weight = "#lora_rows .lora >> nth=1 >> input[type=number]"
    assert page.input_value(weight) == "0.7"
    page.click("#lora_rows .lora >> nth=1 >> .lora_notes")
    page.wait_for_selector("#lora_sheet[open]")
    assert page.input_value("#lora_sheet_notes") == "Grey paper.\nNo outlines."
    page.click("#lora_sheet summary:has-text('What its file says')")
    page.wait_for_function("/[0-9a-f]{64}/.test(document.querySelector('.sheet_hash').textContent)")


def test_a_picture_becomes_the_thumbnail(open_page, live, shelf: None, models_dir: Path) -> None:
    live.paint("steps=1 a boat")
    page = open_page()
    to_rows(page)
    page.click(f"{ROW} .combo_box")
    page.click("[role=option]:visible:has-text('small')")
    assert page.locator(f"{ROW} img.lora_picture").count() == 0
    page.click(f"{ROW} .lora_notes")
    page.click("#lora_sheet summary:has-text('Choose one of your pictures')")
    page.click(".sheet_pictures .thumb >> nth=0")
    page.wait_for_selector(".sheet_picture img")
    page.click("#lora_sheet .shut")
    page.wait_for_selector(f"{ROW} img.lora_picture")
    assert (models_dir / "loras" / "small.preview.webp").exists()


def test_what_does_not_fit_says_so_and_what_is_no_lora_is_refused(
    open_page, shelf: None, models_dir: Path
) -> None:
    page = open_page()
    to_rows(page)
    page.click(f"{ROW} .combo_box")
    page.click("[role=option]:visible:has-text('Made for Stable Diffusion 1.5')")
    page.wait_for_selector(f"{ROW} .lora_misfit:has-text('not for this base model')")
    hostile = hostile_files()
    bring(
        page,
        ("old.ckpt", hostile["a pickle"]),
        ("pickle.safetensors", hostile["a pickle"]),
        ("broken.safetensors", hostile["cut off"]),
        ("words.safetensors", hostile["an embedding"]),
    )
    for problem in (
        "Only .safetensors files are taken",
        "This is no safetensors file",
        "whose header promises",
        "got an embedding; it belongs into the embeddings folder",
    ):
        page.wait_for_selector(f".lora_bring .file_problem:visible:has-text('{problem}')")
    assert [it.name for it in (models_dir / "loras").iterdir()] == ["small.safetensors"]


def test_a_lora_from_an_address_comes_with_its_progress(open_page, shelf: None) -> None:
    with file_server() as server:
        server.files["far.safetensors"] = lora_bytes(KNOWN)
        server.stalls["far.safetensors"] = 100
        page = open_page()
        to_rows(page)
        page.click(".lora_bring:visible summary")
        page.fill(".lora_fetch:visible input >> nth=0", server.url("far.safetensors"))
        page.click(".lora_fetch:visible button")
        page.wait_for_selector(".lora_bring .file_bar[aria-valuenow='1']")
        server.go_on.set()
        page.wait_for_selector(".lora_bring .file:has-text('Is here')")
        page.wait_for_selector(f"{ROW} .lora_title:has-text('Ink and wash')")


def test_text_of_strangers_is_only_text(open_page, live, shelf: None, models_dir: Path) -> None:
    known = dict.fromkeys(("modelspec.title", "modelspec.author", "modelspec.description"), TRAP)
    tags = json.dumps({TRAP: {TRAP: 3}})
    trap = models_dir / "loras" / "trap.safetensors"
    write_lora(trap, {**known, "modelspec.trigger_phrase": TRAP, "ss_tag_frequency": tags})
    trap.with_suffix(".json").write_text(json.dumps({"notes": TRAP}))
    live.studio.refresh()
    page = open_page()
    to_rows(page)
    page.click(f"{ROW} .combo_box")
    page.click("[role=option]:visible:has-text('trap')")
    page.click(f"{ROW} .lora_word")
    page.click(f"{ROW} .lora_notes")
    page.click("#lora_sheet summary:has-text('What its file says')")
    page.wait_for_selector(f"#lora_sheet dd:has-text('{TRAP}')")
    assert page.input_value("#lora_sheet_notes") == TRAP
    page.click("#lora_sheet_save")
    page.wait_for_selector("#lora_sheet", state="detached")
    bring(page, (f"{TRAP}.safetensors", lora_bytes(KNOWN, seed=3)))
    page.wait_for_selector(".lora_bring .file:has-text('Is here · sha256')")
    assert page.evaluate("window.trapped") is None
    assert page.locator("img[src=x]").count() == 0
