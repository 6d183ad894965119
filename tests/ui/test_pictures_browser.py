"""The pictures' panel in a real browser: what is put there is what the job gets, to the byte."""

import hashlib
import io

import pytest
from PIL import Image, ImageDraw

from engine.partners import has_aux
from tests.ui.live_studio import fill

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def photo(colour: str) -> bytes:
    """A picture of the shape that the toy engine paints at first."""
    picture = Image.new("RGB", (90, 70), colour)
    ImageDraw.Draw(picture).ellipse((20, 10, 60, 50), fill="white")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


GREEN, BROWN = photo("green"), photo("brown")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(page, button: str, data: bytes) -> None:
    with page.expect_file_chooser() as waiting:
        page.click(button)
    waiting.value.set_files({"name": "picture.png", "mimeType": "image/png", "buffer": data})


def put_in_well(page, well: str, data: bytes) -> None:
    put(page, f"{well} .well_button", data)
    page.wait_for_selector(f"{well} .well img[src$='/studio/inputs/{digest(data)}']")


def slide(page, label: str, presses: int) -> None:
    """Move a slider from its lowest value, by the keyboard."""
    page.focus(f"[aria-label='{label}']")
    page.keyboard.press("Home")
    for _ in range(presses):
        page.keyboard.press("ArrowRight")


def kept(live, name: str) -> bytes:
    """The bytes of an input that a job has, by its name."""
    return live.studio.uploads.find(name, "local").path.read_bytes()


def test_pictures_reach_the_job_from_every_panel_and_come_back(open_page, live):
    page = open_page()
    page.wait_for_selector("#pictures_bar [role=tab]")
    follow_two(page, live)
    repaint(page, live)
    vary(page, live)
    look_again(page, live)


@pytest.mark.skipif(has_aux(), reason="controlnet-aux is there")
def test_a_drawing_that_cannot_be_made_says_why(open_page):
    page = open_page()
    page.wait_for_selector("#pictures_bar [role=tab]")
    page.click("#image_prompts_button")
    put_in_well(page, ".slot[data-index='0']", GREEN)
    choice = ".slot[data-index='0'] select"
    # The toy model has nothing for it, which is not what is looked at here.
    page.wait_for_selector(f"{choice} option[value='Depth'][disabled]", state="attached")
    page.eval_on_selector(f"{choice} option[value='Depth']", "option => (option.disabled = false)")
    page.select_option(choice, "Depth")
    page.click(".slot[data-index='0'] .quiet_button")
    page.wait_for_selector("#studio_toast:has-text('pip install controlnet-aux')")
    page.wait_for_selector(".slot[data-index='0'] .drawing", state="hidden")


def follow_two(page, live) -> None:
    tiles = "document.querySelector('#tiles').clientHeight"
    page.wait_for_function(f"{tiles} > 200")
    tall = page.evaluate(tiles)
    page.click("#image_prompts_button")
    put_in_well(page, ".slot[data-index='0']", GREEN)
    put_in_well(page, ".slot[data-index='2']", BROWN)
    page.select_option(".slot[data-index='2'] select", "PyraCanny")
    slide(page, "Image 3: weight", 3)
    page.click(".slot[data-index='2'] .quiet_button")
    page.wait_for_function("document.querySelector('[data-index=\"2\"] .drawing').naturalWidth > 0")
    page.wait_for_function(f"200 < {tiles} && {tiles} < {tall}")
    fill(page, "two to follow steps=50")
    page.click("#generate")
    asked = live.asked("two to follow steps=50")
    first, second = asked.image_prompts
    assert (first.type, first.image) == ("ImagePrompt", digest(GREEN))
    assert (first.weight, first.stop_at) == (0.6, 0.5)
    assert (second.type, second.image) == ("PyraCanny", digest(BROWN))
    assert (second.weight, second.stop_at) == (pytest.approx(0.003), 0.5)
    assert (asked.inpaint, asked.upscale_or_vary) == (None, None)
    assert kept(live, first.image) == GREEN


def repaint(page, live) -> None:
    page.click("#inpaint_button")
    put(page, "#sketch [data-act=choose]", BROWN)
    page.wait_for_selector(".sketch_status:has-text('nothing painted')")
    page.locator(".sketch_frame").scroll_into_view_if_needed()
    box = page.locator(".sketch_frame").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 30, middle[1], steps=3)
    page.mouse.up()
    page.wait_for_selector(".sketch_status:has-text('% painted')")
    page.wait_for_selector("#outpaint", state="visible")
    page.wait_for_selector("#additional_prompt", state="hidden")
    page.click("#inpaint_mode label:has-text('Improve Detail')")
    page.fill("#additional_prompt textarea", "a face")
    page.wait_for_selector("#outpaint", state="hidden")
    fill(page, "a part anew")
    page.click("#generate")
    asked = live.asked("a part anew").inpaint
    assert (asked.image, asked.additional_prompt) == (digest(BROWN), "a face")
    with Image.open(io.BytesIO(kept(live, asked.mask))) as mask:
        assert mask.size == (90, 70)
        assert mask.getpixel((45, 35))
        assert not mask.getpixel((2, 2))


def vary(page, live) -> None:
    page.click("#upscale_or_vary_button")
    page.click("#generate")
    page.wait_for_selector("text=Upscale or vary: choose a picture")
    put_in_well(page, "#change_picture", GREEN)
    page.click("#change_method label:has-text('Subtle')")
    fill(page, "once more")
    page.click("#generate")
    asked = live.asked("once more").upscale_or_vary
    assert (asked.image, asked.method) == (digest(GREEN), "Vary (Subtle)")


def look_again(page, live) -> None:
    for job in live.jobs.active(owner="local"):
        if job.prompt != "once more":
            live.jobs.cancel(job.id, owner="local")
    live.step(3)
    page.click(".thumb:has(img[alt='once more'])")
    page.click("#viewer [data-act=compare]")
    page.wait_for_selector("#viewer .compare input[type=range]")
    page.wait_for_selector("#viewer .compare .before img[src$='/before']")
    page.click("#viewer [data-act=inpaint]")
    page.wait_for_selector("#inpaint_button[aria-selected=true]")
    page.wait_for_selector(".sketch_status:has-text('nothing painted')")
    fill(page, "")
    page.click(".thumb:has(img[alt='once more'])")
    page.click("#viewer [data-act=upscale_or_vary]")
    page.wait_for_selector("#upscale_or_vary_button[aria-selected=true]")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'once more'")
    page.click("#change_picture .well_clear")
    page.click("#words_button")
    page.click(".thumb:has(img[alt='once more'])")
    page.click("#viewer [data-act=settings]")
    page.wait_for_selector("#upscale_or_vary_button[aria-selected=true]")
    page.wait_for_selector(f"#change_picture img[src$='/{digest(GREEN)}']")
