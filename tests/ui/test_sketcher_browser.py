"""The mask sketcher in a real browser: what is painted, by mouse or finger, is what a job gets."""

import gc
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.browser import open_chromium
from tests.ui.conftest import WAIT_MS
from tests.ui.sketch_page import SketchPage
from tests.ui.studios import in_event_loop
from ui.sketcher import IMAGE_FIELD, MASK_FIELD

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
BRUSH = 0.07
"""The brush at first: its width as a share of the picture's longest side."""
ROUNDING = 8
"""Pixels on the rim of a stroke that may fall to the other side."""

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def site(chromium_path, tmp_path_factory):
    page = in_event_loop(lambda: SketchPage(tmp_path_factory.mktemp("sketch")))
    yield page
    page.close()
    gc.collect()


@pytest.fixture(scope="module")
def browser(site, chromium_path):
    with open_chromium(chromium_path) as chromium:
        yield chromium


@pytest.fixture
def visit(browser, site):
    """Open the page in a browser of its own; the test fails when a script does."""
    contexts, faults = [], []

    def open_(**look):
        context = browser.new_context(
            locale="en-US", **{"viewport": {"width": 1400, "height": 900}, **look}
        )
        context.set_default_timeout(2 * WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(site.address)
        page.wait_for_selector(".empty .sketch_start")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []


def photo(width: int, height: int, kind: str = "PNG", turn: int | None = None) -> bytes:
    """A picture of coarse colours, rotated by EXIF where asked."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, kind, exif=exif)
    return file.getvalue()


def choose(page, data: bytes, act: str = "choose", kind: str = "image/png") -> None:
    with page.expect_file_chooser() as waiting:
        page.click(f"[data-act={act}]")
    waiting.value.set_files({"name": "${1}<b>.png", "mimeType": kind, "buffer": data})


def shows(page, words: str) -> None:
    page.wait_for_function(
        "words => document.querySelector('.sketch_status')?.textContent.includes(words)", arg=words
    )


def press(page, site) -> dict[str, bytes]:
    """Queue a job; returns the files it got."""
    answer = f"queued {len(site.asked) + 1}"
    page.click("#generate")
    page.wait_for_function(
        "text => document.querySelector('#answer textarea').value === text", arg=answer
    )
    return site.asked[-1]


def generate(page, site) -> tuple[bytes, np.ndarray | None]:
    """Queue a job; returns what it got: the picture's file and the mask's pixels."""
    asked = press(page, site)
    return asked[IMAGE_FIELD], pixels(asked[MASK_FIELD]) if MASK_FIELD in asked else None


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as mask:
        assert mask.mode == "1"
        return np.asarray(mask)


def drawn(page) -> np.ndarray:
    """What the page shows of the mask."""
    width, height, rows = page.evaluate(
        """() => {
            const canvas = document.querySelector(".sketch_sheet canvas");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let bits = "";
            for (let at = 3; at < data.length; at += 4) bits += data[at] ? 1 : 0;
            return [canvas.width, canvas.height, bits];
        }"""
    )
    return (np.frombuffer(rows.encode(), np.uint8) == ord("1")).reshape(height, width)


def places(page, *shares: tuple[float, float]) -> list[tuple[int, int]]:
    """Whole places on the screen that lie at these shares of the picture's width and height, as the page shows it."""
    box = page.locator(".sketch_sheet canvas").bounding_box()
    return [
        (round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])) for x, y in shares
    ]


def stroke_of(page, mask: np.ndarray, start, end) -> np.ndarray:
    """The pixels within the brush's reach of a line between two places on the screen."""
    box = page.locator(".sketch_sheet canvas").bounding_box()
    height, width = mask.shape
    scale = width / box["width"]
    (x0, y0), (x1, y1) = (((x - box["x"]) * scale, (y - box["y"]) * scale) for x, y in (start, end))
    y, x = np.mgrid[0:height, 0:width] + 0.5
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / max(
        1e-9, (x1 - x0) ** 2 + (y1 - y0) ** 2
    )
    along = np.clip(along, 0, 1)
    away = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))
    return away <= BRUSH * max(width, height) / 2


def drag(page, start, end, button: str = "left") -> None:
    page.mouse.move(*start)
    page.mouse.down(button=button)
    page.mouse.move(*end)
    page.mouse.up(button=button)


def zoomed(page, width: float) -> None:
    """Wait until the picture is well over so many pixels wide on the screen."""
    page.wait_for_function(
        "width => document.querySelector('.sketch_sheet canvas').getBoundingClientRect().width > width * 1.5",
        arg=width,
    )


def same(mask: np.ndarray, expected: np.ndarray) -> None:
    assert mask.shape == expected.shape
    assert np.count_nonzero(mask != expected) <= ROUNDING


def test_what_the_mouse_paints_is_what_arrives(visit, site):
    page = visit()
    data = photo(640, 480, "JPEG", turn=6)
    choose(page, data, kind="image/jpeg")
    shows(page, "480×640 · nothing painted")
    assert generate(page, site) == (data, None)

    start, end = places(page, (0.3, 0.4), (0.6, 0.5))
    drag(page, start, end)
    expected = stroke_of(page, np.zeros((640, 480)), start, end)
    got, mask = generate(page, site)
    assert got == data
    same(mask, expected)
    assert (mask == drawn(page)).all()
    assert ImageOps.exif_transpose(Image.open(io.BytesIO(got))).size == mask.shape[::-1]

    page.mouse.move(*places(page, (0.5, 0.5))[0])
    width = page.locator(".sketch_sheet canvas").bounding_box()["width"]
    page.mouse.wheel(0, -600)
    zoomed(page, width)
    page.keyboard.press("Escape")
    page.keyboard.down(" ")
    drag(page, *places(page, (0.5, 0.5), (0.55, 0.52)))  # moves the picture, paints nothing
    page.keyboard.up(" ")
    near = places(page, (0.5, 0.55), (0.58, 0.6))
    drag(page, *near)
    expected |= stroke_of(page, expected, *near)
    same(generate(page, site)[1], expected)
    page.keyboard.press("0")

    before = drawn(page)
    drag(page, *places(page, (0.1, 0.1), (0.9, 0.9)))
    assert (drawn(page) != before).any()
    page.keyboard.press("Control+z")
    assert (drawn(page) == before).all()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+Z")
    assert (drawn(page) == before).all()
    page.keyboard.press("e")
    drag(page, *places(page, (0.5, 0.55), (0.58, 0.6)))
    erased = drawn(page)
    assert erased.sum() < before.sum()
    assert (generate(page, site)[1] == erased).all()


def test_what_fingers_paint_arrives_and_two_of_them_zoom(visit, site):
    page = visit(**PHONE)
    choose(page, photo(600, 400))
    shows(page, "600×400")
    line = page.context.new_cdp_session(page)

    def touch(kind: str, *points) -> None:
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        line.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    start, end, left, right = places(page, (0.3, 0.3), (0.7, 0.6), (0.4, 0.5), (0.6, 0.5))
    touch("touchStart", start)
    touch("touchMove", end)
    touch("touchEnd")
    expected = stroke_of(page, np.zeros((400, 600)), start, end)
    width = page.locator(".sketch_sheet canvas").bounding_box()["width"]
    touch("touchStart", left)
    touch("touchMove", (left[0] - 4, left[1]))  # the first finger comes a little before the second
    touch("touchStart", left, right)
    touch("touchMove", (left[0] - 40, left[1]), (right[0] + 40, right[1]))
    touch("touchEnd")
    zoomed(page, width)
    same(generate(page, site)[1], expected)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    small = page.evaluate(
        """() => [...document.querySelectorAll(".sketch button, .sketch input")]
            .filter((node) => node.checkVisibility() && node.getBoundingClientRect().height < 44 && node.type !== "range")
            .map((node) => node.outerHTML)"""
    )
    assert small == []


def test_mask_and_picture_stay_through_tabs_reloads_and_a_studio_that_forgot(visit, site):
    page = visit()
    data = photo(300, 200)
    choose(page, data)
    shows(page, "300×200")
    page.click("[data-tool=lasso]")
    corners = places(page, (0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner)
    page.mouse.up()
    got, mask = generate(page, site)
    assert mask[45:155, 65:235].all()
    assert not mask[:35].any()
    assert not mask[:, :55].any()
    page.get_by_role("tab", name="Other", exact=True).click()
    page.get_by_role("tab", name="Inpaint", exact=True).click()
    assert (drawn(page) == mask).all()

    page.reload()
    shows(page, "% painted")
    again = generate(page, site)
    assert again[0] == got
    assert (again[1] == mask).all()

    shutil.rmtree(site.uploads.save(data, "local").path.parent)
    page.reload()
    shows(page, "% painted")
    again = generate(page, site)
    assert again[0] == got
    assert (again[1] == mask).all()

    page.click("[data-act=remove]")
    page.wait_for_selector(".empty .sketch_start")
    assert press(page, site) == {}


def test_masks_are_filled_inverted_cleared_saved_and_loaded(visit, site, tmp_path):
    page = visit()
    choose(page, photo(3000, 1500))
    shows(page, "3000×1500")
    page.keyboard.press("[")
    ring = places(page, (0.3, 0.2), (0.7, 0.2), (0.7, 0.8), (0.3, 0.8), (0.3, 0.2))
    page.mouse.move(*ring[0])
    page.mouse.down()
    for corner in ring[1:]:
        page.mouse.move(*corner)
    page.mouse.up()
    outline = drawn(page)
    assert outline.shape == (1024, 2048)
    assert not outline[512, 1024]
    page.keyboard.press("f")
    page.mouse.click(*places(page, (0.5, 0.5))[0])
    full = drawn(page)
    assert full[300:700, 700:1300].all()
    assert not full[:, :400].any()
    page.keyboard.press("i")
    assert (drawn(page) == ~full).all()
    with page.expect_download() as waiting:
        page.click("[data-act=mask-download]")
    waiting.value.save_as(tmp_path / "mask.png")
    saved = (tmp_path / "mask.png").read_bytes()
    assert pixels(saved).shape == (1500, 3000)
    page.click("[data-act=clear]")
    assert not drawn(page).any()
    choose(page, saved, "mask-upload")
    shows(page, "% painted")
    assert np.count_nonzero(drawn(page) != ~full) < 0.001 * full.size  # resized there and back

    page.click("#show")
    page.wait_for_function(
        "() => document.querySelector('.sketch_status').textContent.includes('50% painted')"
    )
    half = drawn(page)
    assert half[:, :1023].all()
    assert not half[:, 1025:].any()


def test_a_mask_that_comes_late_stays_off_another_picture(visit, site):
    page = visit()
    choose(page, photo(60, 40))
    shows(page, "60×40")
    generate(page, site)
    page.click("#late")
    shows(page, "50% painted")
    other = photo(90, 40)
    choose(page, other, "replace")
    shows(page, "90×40")
    page.click("#late")
    page.wait_for_selector("#studio_toast:has-text('is for another picture')")
    shows(page, "90×40 · nothing painted")
    assert generate(page, site) == (other, None)


def test_a_photo_of_12_megapixels_is_sent_once_and_as_it_is(visit, site):
    page = visit()
    sent = []
    page.on("request", lambda asked: sent.append(asked) if asked.method == "POST" else None)
    data = photo(4000, 3000, "JPEG")
    choose(page, data, kind="image/jpeg")
    shows(page, "4000×3000")
    start, end = places(page, (0.2, 0.2), (0.7, 0.6))
    drag(page, start, end)
    got, mask = generate(page, site)
    assert got == data
    same(mask, stroke_of(page, np.zeros((1536, 2048)), start, end))
    page.keyboard.press("Control+z")
    drag(page, end, start)
    generate(page, site)
    kinds = [asked.headers["content-type"] for asked in sent if asked.url.endswith("/inputs")]
    assert kinds == ["image/jpeg", "image/png", "image/png"]
    others = [asked.post_data or "" for asked in sent if not asked.url.endswith("/inputs")]
    assert sum(map(len, others)) < 5000


def test_pictures_come_from_results_the_clipboard_and_a_drop(visit, site):
    page = visit()
    upload = site.uploads.save(photo(160, 120), "local")
    page.evaluate("url => window.pochadeSketcher.load(url)", f"/studio/inputs/{upload.name}")
    shows(page, "160×120")
    assert generate(page, site)[0] == upload.path.read_bytes()
    give = """([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(bytes)], "x.png", { type: "image/png" }));
        const more = { bubbles: true, cancelable: true };
        const target = document.querySelector(".sketch_frame");
        target.dispatchEvent(kind === "paste"
            ? new ClipboardEvent(kind, { ...more, clipboardData: data })
            : new DragEvent(kind, { ...more, dataTransfer: data }));
    }"""
    page.evaluate(give, ["paste", list(photo(90, 60))])
    shows(page, "90×60")
    drag(page, *places(page, (0.2, 0.2), (0.7, 0.6)))
    before = drawn(page)
    page.evaluate(give, ["drop", list(photo(180, 120))])
    shows(page, "180×120 · nothing painted")
    page.click("#studio_toast button")
    shows(page, "% painted")
    assert (drawn(page)[::2, ::2] == before).all()
    assert generate(page, site)[0] == photo(180, 120)

    choose(page, b"no picture", "replace")
    page.wait_for_selector("#studio_toast:has-text('cannot show that file')")
    shows(page, "180×120")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    assert re.search(r"Smaller and larger brush", page.inner_text("#sheet"))
