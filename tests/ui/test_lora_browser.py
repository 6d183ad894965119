"""The LoRA studio in a real browser: what is filled in is what the job gets, and what a picture's reuse brings back."""

import hashlib
import io
from dataclasses import replace

import pytest
from PIL import Image

from tests.ui.live_studio import fill, says, visit
from tests.ui.studios import LORAS, OWN

INK = LORAS[0].name
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def photo(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (90, 70), colour).save(file, "PNG")
    return file.getvalue()


GREEN = photo("green")
GREEN_NAME = hashlib.sha256(GREEN).hexdigest()


def open_lora(page, pane: str = "common") -> None:
    page.get_by_role("tab", name="LoRA", exact=True).click()
    page.click(f"#lora_{pane}-button")


def pick(page, box: str, words: str) -> None:
    """Find one of many names by typing, or type what is none."""
    page.click(f"{box} .combo_box")
    page.keyboard.type(words)
    page.keyboard.press("Enter")


def wait_for_value(page, selector: str, value: str) -> None:
    page.wait_for_function(
        "([where, value]) => document.querySelector(where)?.value === value", arg=[selector, value]
    )


def put(page, well: str) -> None:
    with page.expect_file_chooser() as waiting:
        page.click(f"{well} .well_button")
    waiting.value.set_files({"name": "p.png", "mimeType": "image/png", "buffer": GREEN})
    page.wait_for_selector(f"{well} img[src$='/studio/inputs/{GREEN_NAME}']")


def set_all(page) -> None:
    """Fill in something on every pane."""
    open_lora(page)
    pick(page, "#lora_base_model", "own.safe")
    page.fill("#lora_num_inference_steps input[type=number]", "9")
    page.fill("#lora_guidance_scale input[type=number]", "3.5")
    page.click("#lora_scheduler input")
    page.get_by_role("option", name="DPM++ 2M Karras", exact=True).click()
    page.fill("#lora_negative_prompt textarea", "fog")
    open_lora(page, "addons")
    pick(page, "#lora_lora_rows .lora >> nth=0 >>", "ink")
    page.fill("#lora_lora_rows input[type=number] >> nth=0", "-3.25")
    pick(page, "#lora_lora_rows .lora >> nth=1 >>", "someone/style")
    page.wait_for_selector("#lora_lora_rows .combo_note:has-text('fetched from the hub')")
    page.fill("#lora_lora_rows .lora_file >> nth=1", "style.safetensors")
    page.click("#lora_embeddings .quiet_button")
    pick(page, "#lora_embeddings", "https://example.com/words.safetensors")
    open_lora(page, "pictures")
    page.click("#lora_controlnets .quiet_button")
    pick(page, "#lora_controlnets", "toy_edges")
    page.fill("[aria-label='ControlNet 1: weight as a number']", "0.4")
    page.keyboard.press("Tab")
    open_lora(page, "advanced")
    page.click("#lora_advanced .label-wrap:has-text('Noise levels')")
    page.fill("#lora_timesteps textarea", "999 500 20")
    page.keyboard.press("Tab")


def test_what_is_filled_in_is_what_the_job_gets_and_comes_back(open_page, live, monkeypatch):
    monkeypatch.setattr(live.studio, "library", replace(live.studio.library, may_fetch=bool))
    page = open_page()
    fill(page, "a studio star steps=9")
    set_all(page)
    page.click("#lora_generate")
    page.wait_for_selector("#lora_controlnets:has-text('ControlNet 1, drawing: choose a picture')")
    page.wait_for_selector("#lora_pictures-button[aria-selected=true]")
    put(page, "#lora_controlnets .row_picture >> nth=0 >>")
    page.click("#lora_generate")
    asked = live.asked("a studio star steps=9")
    studio = asked.studio
    assert (asked.negative_prompt, asked.num_images) == ("fog", 1)
    assert (asked.advanced.base_model, studio.scheduler) == (OWN.name, "DPM++ 2M Karras")
    assert (studio.num_inference_steps, studio.guidance_scale) == (9, 3.5)
    assert [(it.path, it.scale, it.weight_name) for it in studio.loras] == [
        (INK, -3.25, None),
        ("someone/style", 1.0, "style.safetensors"),
    ]
    assert studio.embeddings[0].path == "https://example.com/words.safetensors"
    assert (studio.controlnets[0].path, studio.controlnets[0].image) == ("toy_edges", GREEN_NAME)
    assert studio.controlnets[0].conditioning_scale == 0.4
    assert studio.timesteps == (999, 500, 20)
    live.step(9)
    says(page, "Done")

    visit(page, live)
    page.get_by_role("tab", name="LoRA", exact=True).click()
    wait_for_value(page, "#lora_controlnets .combo_box", "toy_edges")
    page.get_by_role("tab", name="Text", exact=True).click()
    page.wait_for_selector("#lora_settings", state="hidden")
    fill(page, "something else")
    empty_rows(page)
    page.click(".thumb:has(img[alt^='a studio star'])")
    page.click("#viewer [data-act=settings]")
    page.wait_for_selector("#lora_settings", state="visible")
    wait_for_value(page, "#lora_lora_rows .combo_box", INK)
    assert page.input_value("#prompt textarea") == "a studio star steps=9"
    page.keyboard.press("Control+Enter")
    again = live.asked("a studio star steps=9")
    assert again.studio == studio
    assert again.seed is not None


def empty_rows(page) -> None:
    open_lora(page, "addons")
    page.click("#lora_lora_rows .combo_box >> nth=0")
    page.keyboard.press("Home")
    page.keyboard.type("No LoRA")
    page.keyboard.press("Enter")
    page.get_by_role("tab", name="Text", exact=True).click()


def test_text_and_lora_do_not_touch_each_other(open_page, live):
    page = open_page()
    fill(page, "both ways steps=50", images=3)
    open_lora(page)
    assert page.input_value("#prompt textarea") == "both ways steps=50"
    assert page.input_value("#lora_num_images input[type=number]") == "1"
    assert page.locator("#pictures").is_hidden()
    assert page.locator("#generate").is_hidden()
    page.get_by_role("tab", name="Text", exact=True).click()
    page.click("#generate")
    asked = live.asked("both ways steps=50")
    assert (asked.studio, asked.num_images) == (None, 3)


def test_a_picture_of_the_studio_goes_to_the_panels_of_text(open_page, live):
    live.paint("to be sent", studio={})
    page = open_page()
    open_lora(page)
    page.click(".thumb:has(img[alt='to be sent'])")
    page.click("#viewer [data-act=inpaint]")
    page.wait_for_selector("#inpaint_button[aria-selected=true]")
    page.wait_for_selector(".sketch_status:has-text('nothing painted')")


def test_everything_is_in_reach_on_a_phone(open_page):
    page = open_page(**PHONE)
    page.get_by_role("tab", name="LoRA", exact=True).click()
    page.wait_for_selector("#lora_generate", state="visible")
    page.click("#settings_switch")
    page.click("#lora_pictures-button")
    page.click("#lora_controlnets .quiet_button")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    low = page.eval_on_selector_all(
        "#lora_pictures button, #lora_pictures .combo_box, #actions button",
        "them => them.filter((it) => it.offsetParent && it.getBoundingClientRect().height < 40)"
        ".map((it) => it.className || it.id)",
    )
    assert low == []
