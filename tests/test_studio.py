"""The whole studio in a browser with the real pocket model: from a prompt to a picture that shows what was asked."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image

from tests.browser import open_chromium
from tests.test_app import ROOT, free_port, get, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.torch]
SCREENSHOTS = os.environ.get("POCHADE_SCREENSHOTS")
"""A folder that takes pictures of the page, where one is wanted: docs/ holds those of the README."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "app.py", "--port", str(port), "--model", "pocket"]
    folders = ["--data-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "out")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, *folders], cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/health/live", 60)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator[Any]:
    with open_chromium(chromium_path) as browser:
        yield browser


def shoot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / name))


def test_a_prompt_becomes_a_picture_in_the_browser(address: str, chromium: Any) -> None:
    from pocket.score import read

    page = chromium.new_page(viewport={"width": 1400, "height": 900}, locale="en-US")
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    page.locator("#prompt textarea").fill("a large red star on a blue background")
    page.locator("#seed textarea, #seed input").first.fill("11")
    page.locator("#generate").click()
    wait_for(f"{address}/health/ready", 120)
    page.reload()
    prompt = "() => document.querySelector('#prompt textarea')?.value"
    page.wait_for_function(f"({prompt})() === 'a large red star on a blue background'")
    finished = page.locator("#stage img[src*='/studio/images/']")
    finished.nth(1).wait_for(timeout=120_000)
    shoot(page, "studio.png")
    sources = [finished.nth(index).get_attribute("src") or "" for index in range(2)]
    for source in sources:
        status, data = get(urljoin(address, source))
        assert status == 200
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        assert picture.size == (512, 512)
        seen = read(np.asarray(picture.resize((128, 128), Image.Resampling.BOX)))
        assert (seen.shape, seen.colour, seen.background) == ("star", "red", "blue")
    page.get_by_role("tab", name="History", exact=True).click()
    page.locator("#history img").nth(1).wait_for(timeout=20_000)
    shoot(page, "history.png")
    page.set_viewport_size({"width": 390, "height": 844})
    shoot(page, "history-phone.png")
    page.get_by_role("tab", name="Text", exact=True).click()
    shoot(page, "studio-phone.png")
    assert problems == []


def drop(page: Any, data: bytes) -> None:
    """Let go of a picture file over the page."""
    page.evaluate(
        """bytes => {
            const transfer = new DataTransfer();
            const file = new File([new Uint8Array(bytes)], "picture.png", {type: "image/png"});
            transfer.items.add(file);
            for (const kind of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(
                    new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        list(data),
    )


def finished_pictures(page: Any, address: str, count: int) -> list[bytes]:
    """Wait until so many pictures are on the stage, and fetch their files."""
    pictures = page.locator("#stage img[src*='/studio/images/']")
    pictures.nth(count - 1).wait_for(timeout=180_000)
    sources = [pictures.nth(index).get_attribute("src") or "" for index in range(count)]
    return [get(urljoin(address, source))[1] for source in sources]


def test_a_picture_dropped_on_the_page_is_painted_again_to_the_pixel(
    address: str, chromium: Any
) -> None:
    first = chromium.new_page(viewport={"width": 1400, "height": 900}, locale="en-US")
    first.goto(address)
    wait_for(f"{address}/health/ready", 120)
    prompt = "a large __color__ [[star,heart]] on a white background <lora:pocket_dots:0.8>"
    first.locator("#prompt textarea").fill(prompt)
    first.locator("#generate").click()
    _, second_picture = finished_pictures(first, address, 2)
    first.close()

    other = chromium.new_context(locale="en-US").new_page()
    other.set_viewport_size({"width": 1400, "height": 900})
    other.goto(address)
    other.locator("#generate").wait_for()
    drop(other, second_picture)
    box = "document.querySelector('#prompt textarea').value"
    other.wait_for_function(f"() => {box}.includes('heart')")
    assert "__" not in other.evaluate(box)
    other.locator("#generate").click()
    (again,) = finished_pictures(other, address, 1)
    before, after = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (second_picture, again)
    )
    assert np.array_equal(before, after)
