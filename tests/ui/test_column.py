"""What a person does with the settings column in a real browser: styles, LoRAs, modes, presets, pictures dropped on the page."""

import dataclasses
import json
from pathlib import Path

import pytest

from engine import Catalog
from engine.catalog import Weights
from engine.plan import plan_to_json
from engine.presets import Preset
from engine.prompt.styles import Style
from tests.ui.live_studio import fill, visit
from tests.ui.studios import LORAS, OWN

INK = LORAS[0].name
TRAP = "<script>document.title='trapped'</script><img src=x onerror=\"document.title='trapped'\">"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
FOOOCUS = {
    "prompt": "an old lighthouse",
    "negative_prompt": "fog",
    "styles": "['SAI Anime', 'Fooocus Sharp']",
    "performance": "Quality",
    "resolution": "(1024, 1024)",
    "guidance_scale": 6.5,
    "sharpness": 3.0,
    "seed": "9007199254740993",
    "lora_combined_1": "ink : 0.4",
    "lora_combined_2": "gone : 1.0",
    "freeu": "(1.1, 1.2, 0.9, 0.8)",
    "version": "Fooocus v2.5.5",
}

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets open where it builds and launches a page.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def pick(page, box: str, words: str) -> None:
    """Find one of many names by typing."""
    page.click(f"{box} .combo_box")
    page.keyboard.type(words)
    page.keyboard.press("Enter")


def picked_styles(page) -> list[str]:
    return page.locator(".picked_name").all_inner_texts()


def wait_for_value(page, selector: str, value: str) -> None:
    page.wait_for_function(
        "([where, value]) => document.querySelector(where)?.value === value", arg=[selector, value]
    )


def submitted(page, live, prompt: str):
    """Press Generate and find what was asked for."""
    fill(page, f"{prompt} steps=9")
    page.click("#generate")
    return live.asked(f"{prompt} steps=9")


def drop(page, name: str, kind: str, data: bytes) -> None:
    """Drop a file on the page."""
    page.evaluate(
        """([name, type, bytes]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], name, {type}));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.querySelector("#easel").dispatchEvent(
                    new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: files}));
        }""",
        [name, kind, list(data)],
    )


def paste(page, text: str) -> None:
    """Paste a text into the prompt, as a browser does."""
    page.evaluate(
        """(text) => {
            const box = document.querySelector("#prompt textarea");
            const clipboardData = new DataTransfer();
            clipboardData.setData("text/plain", text);
            box.focus();
            box.dispatchEvent(new ClipboardEvent("paste", {bubbles: true, clipboardData}));
        }""",
        text,
    )
    page.fill("#prompt textarea", text)


def is_harmless(page) -> None:
    assert page.title() != "trapped"
    assert page.locator("img[src='x'], #stage script, #settings script").count() == 0


def test_styles_are_found_by_their_words_and_chosen_by_keyboard(open_page, live):
    page = open_page()
    tab(page, "Styles")
    page.wait_for_selector(".style")
    page.click("#clear_styles")
    page.focus("#style_search")
    page.keyboard.type("anime")
    page.keyboard.press("Enter")
    assert picked_styles(page) == ["SAI Anime"]
    assert "{prompt}" in page.inner_text("#style_words")
    page.fill("#style_search", "HALATION")  # a word of a style's text only
    page.keyboard.press("Enter")
    assert picked_styles(page)[1:] == ["SAI Analog Film"]
    page.keyboard.press("Escape")
    assert page.input_value("#style_search") == ""
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert picked_styles(page) == ["SAI Anime", "SAI Analog Film", "Fooocus V2"]
    page.focus(".picked_name >> nth=2")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Delete")
    assert picked_styles(page) == ["SAI Anime", "SAI Analog Film"]
    page.click(".picked_name >> nth=1")
    page.keyboard.press("ArrowLeft")
    tab(page, "Settings")
    assert submitted(page, live, "by style").styles == ("SAI Analog Film", "SAI Anime")


def test_styles_and_rows_survive_a_reload(open_page, live):
    page = open_page()
    tab(page, "Styles")
    page.click(".style:text-is('SAI Origami')")
    tab(page, "Models")
    pick(page, "#lora_rows .lora >> nth=0 >>", "ink")
    page.click("#lora_rows .switch >> nth=0")
    page.wait_for_timeout(300)  # the browser's store is written behind the page's back
    visit(page, live)
    tab(page, "Styles")
    page.wait_for_selector(".picked_name:text-is('SAI Origami')")
    tab(page, "Models")
    wait_for_value(page, "#lora_rows .combo_box", INK)
    assert not page.is_checked("#lora_rows .switch >> nth=0")
    tab(page, "Settings")
    assert submitted(page, live, "off and kept").loras == ()


def test_a_row_is_asked_for_with_its_weight_while_it_is_on(open_page, live):
    page = open_page()
    tab(page, "Models")
    pick(page, "#lora_rows .lora >> nth=0 >>", "ink")
    page.fill("#lora_rows input[type=number] >> nth=0", "-0.35")
    page.keyboard.press("Tab")
    assert page.input_value("#lora_rows input[type=range] >> nth=0") == "-0.35"
    pick(page, "#lora_rows .lora >> nth=1 >>", "portrait")
    page.click("#lora_rows .switch >> nth=1")
    page.click("#add_lora")
    assert page.locator(".lora").count() == 6
    pick(page, "#lora_rows .lora >> nth=5 >>", "water")
    tab(page, "Settings")
    asked = submitted(page, live, "with rows").loras
    assert [(it.path, it.scale) for it in asked] == [(INK, -0.35), ("watercolor.safetensors", 1.0)]


def test_a_mode_of_few_steps_takes_out_of_reach_what_it_has_built_in(open_page):
    page = open_page()
    unreachable = "document.querySelector(`#${name}`).closest('[inert]') !== null"
    page.click(".segment:has-text('Lightning')")
    assert page.is_hidden("#negative_prompt")
    assert "Lightning has guidance" in page.inner_text("#performance .why")
    tab(page, "Advanced")
    for group in ("Sampling", "Size conditioning"):
        page.get_by_role("button", name=group).click()
    page.wait_for_selector("#sampler:visible")
    page.wait_for_selector("#adm_scaler_end:visible")
    names = "guidance_scale sharpness sampler scheduler adaptive_cfg adm_scaler_end refiner_model"
    for name in names.split():
        assert page.evaluate(f"name => {unreachable}", name), name
    assert not page.evaluate(f"name => {unreachable}", "clip_skip")
    assert page.is_visible("#advanced_settings .block.why")
    tab(page, "Settings")
    page.click(".segment:has-text('Quality')")
    assert page.is_visible("#negative_prompt")
    tab(page, "Advanced")
    assert not page.evaluate(f"name => {unreachable}", "guidance_scale")
    assert page.is_hidden("#advanced_settings .block.why")


def test_the_refiners_settings_come_with_a_refiner(open_page):
    page = open_page()
    tab(page, "Models")
    assert page.is_hidden("#refiner_switch")
    pick(page, "#refiner_model", OWN.name)
    page.wait_for_selector("#refiner_switch:visible")
    page.fill("#refiner_switch input[type=number]", "0.8")
    pick(page, "#refiner_model", "none")
    page.wait_for_selector("#refiner_switch", state="hidden")
    pick(page, "#refiner_model", OWN.name)
    assert page.input_value("#refiner_switch input[type=number]") == "0.8"


def test_sizes_are_those_of_the_base_model_or_typed(open_page, live):
    page = open_page()
    page.click(".size_face")
    page.wait_for_selector(".size_grid button >> nth=2")
    assert page.locator(".size_grid button").count() == 3
    tab(page, "Models")
    pick(page, "#base_model", OWN.name)
    tab(page, "Settings")
    assert page.locator(".size_grid button").count() == 26
    page.click("[data-size='1728x576']")
    assert "1728×576" in page.inner_text(".size_face")
    tab(page, "Models")
    pick(page, "#base_model", "studio")
    tab(page, "Settings")
    assert "1152×896" in page.inner_text(".size_face")  # the pocket model does not offer the other
    page.click(".size_face")
    page.fill("#size_panel input >> nth=0", "1003")
    page.keyboard.press("Tab")
    assert page.input_value("#size_panel input >> nth=0") == "1000"
    assert submitted(page, live, "typed size").aspect_ratio == "1000x896"


def test_a_preset_fills_the_form_and_says_what_it_fetches(open_page, live):
    page = open_page()
    fill(page, "stays as it is", images=4)
    page.click(".segment:has-text('Quality')")
    pick(page, "#presets", "default")
    page.wait_for_selector("#preset_missing:has-text('juggernautXL_v8Rundiffusion.safetensors')")
    assert live.studio.library.presets["default"].summary in page.inner_text("#preset_summary")
    wait_for_value(page, "#num_images input[type=number]", "2")
    page.wait_for_selector(".segment:has-text('Speed') :checked", state="attached")
    assert page.input_value("#prompt textarea") == "stays as it is"
    tab(page, "Models")
    wait_for_value(page, "#lora_rows .combo_box", "sd_xl_offset_example-lora_1.0.safetensors")
    assert "to be fetched" in page.inner_text(".lora >> nth=0")
    asked = page.input_value("#base_model .combo_box")
    assert asked == "juggernautXL_v8Rundiffusion.safetensors"


def test_a_saved_preset_is_in_the_list_until_it_is_deleted(open_page, live):
    page = open_page()
    fill(page, "not part of it", images=3)
    page.click("#save_preset")
    page.fill("#preset_name", f"Mine {TRAP[:40]}")
    page.keyboard.press("Enter")
    page.wait_for_selector("#studio_toast:has-text('Saved as Mine')")
    (file,) = live.studio.presets_dir.glob("*.json")
    saved = json.loads(file.read_text())
    assert saved["request"]["num_images"] == 3
    assert not {"prompt", "seed"} & set(saved["request"])
    fill(page, "kept", images=1)
    page.click("#save_preset")
    page.keyboard.press("Enter")  # its own name is offered again
    page.wait_for_selector("#preset_form :text('Replace?')")
    assert json.loads(file.read_text())["request"]["num_images"] == 3
    page.keyboard.press("Enter")
    page.wait_for_selector("#preset_form", state="hidden")
    assert json.loads(file.read_text())["request"]["num_images"] == 1
    other = open_page()
    pick(other, "#presets", "mine")
    wait_for_value(other, "#num_images input[type=number]", "1")
    other.click("#delete_preset")
    assert file.exists()
    other.click("#delete_preset")
    other.wait_for_selector("#studio_toast:has-text('Preset deleted')")
    assert not file.exists()
    assert other.title() != "trapped"


def test_a_preset_that_cannot_be_saved_says_why(open_page, live):
    taken = next(item.name for item in live.studio.library.presets.values())
    page = open_page()
    page.click("#save_preset")
    page.fill("#preset_name", taken)
    page.keyboard.press("Enter")
    page.wait_for_selector("text=comes with Pochade", timeout=10_000)


def test_a_dropped_picture_of_our_own_fills_the_form(open_page, live):
    image = live.paint(
        "dropped",
        styles=("SAI Anime",),
        loras=({"path": INK, "scale": 0.25},),
        performance="Quality",
        advanced={"clip_skip": 3, "freeu": {"b1": 1.25}},
    )
    page = open_page()
    drop(page, "picture.png", "image/png", image.path.read_bytes())
    wait_for_value(page, "#prompt textarea", "dropped")
    page.wait_for_selector("#studio_toast:has-text('Settings taken over')")
    wait_for_value(page, "#seed textarea", "11")
    asked = submitted(page, live, "dropped again")
    assert asked.styles == ("SAI Anime",)
    assert [(it.path, it.scale) for it in asked.loras] == [(INK, 0.25)]
    assert (asked.performance, asked.advanced.clip_skip, asked.advanced.freeu.b1) == (
        "Quality",
        3,
        1.25,
    )
    visit(page, live)  # also what was never in sight is kept
    assert submitted(page, live, "kept").advanced.clip_skip == 3


def test_a_picture_is_chosen_by_a_button_too(open_page, live, tmp_path):
    image = live.paint("chosen by a button")
    page = open_page()
    with page.expect_file_chooser() as waiting:
        page.click("#from_picture")
    waiting.value.set_files(str(image.path))
    wait_for_value(page, "#prompt textarea", "chosen by a button")
    empty = tmp_path / "empty.txt"
    empty.write_text("no picture")
    drop(page, "empty.txt", "text/plain", b"no picture")
    page.wait_for_selector("#studio_toast:has-text('Only PNG, JPEG and WebP')")


def test_pasted_settings_fill_the_form_if_one_likes(open_page, live):
    page = open_page()
    text = json.dumps(FOOOCUS)
    paste(page, text)
    page.wait_for_selector("#paste_bar:has-text('written by Fooocus')")
    assert "'gone' is not installed" in page.inner_text("#paste_bar")
    page.click("#keep_text")
    assert page.input_value("#prompt textarea") == text
    paste(page, text)
    page.click("#use_settings")
    wait_for_value(page, "#prompt textarea", "an old lighthouse")
    wait_for_value(page, "#seed textarea", "9007199254740993")
    wait_for_value(page, "#negative_prompt textarea", "fog")
    asked = submitted(page, live, "lighthouse")
    assert asked.styles == ("SAI Anime", "Fooocus Sharp")
    assert [(it.path, it.scale) for it in asked.loras] == [(INK, 0.4)]
    assert asked.guidance_scale == 6.5
    assert asked.advanced.freeu.s2 == 0.8


def test_an_ordinary_text_is_just_pasted(open_page):
    page = open_page()
    paste(page, "a {red} star, steps: many")
    page.wait_for_timeout(500)
    assert page.inner_text("#paste_bar") == ""


def test_what_could_not_be_done_is_told_when_a_job_is_submitted(open_page, live):
    page = open_page()
    fill(page, "a star <lora:unknown:1> steps=3")
    page.click("#generate")
    page.wait_for_selector("#studio_toast:has-text(\"no LoRA named 'unknown'\")")


def test_a_pasted_record_is_text(open_page, live):
    record = json.loads(plan_to_json(live.paint(f"a trap {TRAP}").plan))
    record["request"] |= {"negative_prompt": TRAP, "styles": [TRAP[:90]]}
    record["request"]["loras"] = [{"path": TRAP, "scale": 1.0}]
    page = open_page()
    paste(page, json.dumps(record))
    page.wait_for_selector("#paste_bar small")
    assert "<script>" in page.inner_text("#paste_bar")
    page.click("#use_settings")
    wait_for_value(page, "#negative_prompt textarea", TRAP)
    page.wait_for_selector("#studio_toast:has-text('<script>')")
    is_harmless(page)


def test_names_and_texts_of_files_are_text(open_page, live):
    known = live.studio.library
    trap = Style(name=TRAP, prompt=f"{TRAP} {{prompt}}", negative_prompt=TRAP)
    lora = Weights(name=f"{TRAP}.safetensors", path=Path("trap"), kind="lora")
    wanted = {"styles": [TRAP], "loras": [{"path": "no such file" + TRAP, "scale": 1.0}]}
    live.studio.library = dataclasses.replace(
        known,
        catalog=Catalog(known.catalog.checkpoints, [*known.catalog.loras, lora]),
        styles={**known.styles, TRAP: trap},
        presets={"trap": Preset(TRAP, TRAP, wanted)},
    )
    try:
        page = open_page()
        pick(page, "#presets", "<script>")
        page.wait_for_selector("#preset_summary:has-text('<script>')")
        tab(page, "Styles")
        page.wait_for_selector(".style")
        page.fill("#style_search", "<script>")
        page.keyboard.press("ArrowDown")
        assert page.inner_text("#style_words b") == TRAP
        assert picked_styles(page) == [TRAP]
        tab(page, "Models")
        assert "not installed" in page.inner_text(".lora >> nth=0")
        page.click("#lora_rows .combo_box >> nth=1")
        page.wait_for_selector(".combo_list:popover-open li:has-text('<script>')")
        page.keyboard.press("Escape")
        page.fill("#prompt textarea", "never painted")
        page.click("#generate")
        page.wait_for_selector("[data-testid=toast-text]:has-text('no such file<script>')")
        is_harmless(page)
    finally:
        live.studio.library = known


def test_a_size_that_is_too_large_is_told_in_its_tab(open_page, live):
    page = open_page()
    page.click(".size_face")
    for box in (0, 1):
        page.fill(f"#size_panel input >> nth={box}", "4096")
        page.keyboard.press("Tab")
    tab(page, "Models")
    page.click("#generate")
    page.wait_for_selector("#aspect_ratio .validation-error:visible")
    page.wait_for_selector("#studio_toast:has-text('Size: expected sides from 64')")
    assert live.jobs.active(owner="local") == []


def test_reuse_brings_back_styles_and_rows(open_page, live):
    live.paint(
        "to be reused",
        styles=("MRE Manga", "SAI Origami"),
        loras=({"path": INK, "scale": -1.5},),
        advanced={"base_model": OWN.name, "metadata_scheme": "fooocus"},
    )
    page = open_page()
    page.click(".thumb >> nth=0")
    page.click("#viewer [data-act=settings]")
    wait_for_value(page, "#prompt textarea", "to be reused")
    asked = submitted(page, live, "reused")
    assert asked.styles == ("MRE Manga", "SAI Origami")
    assert [(it.path, it.scale) for it in asked.loras] == [(INK, -1.5)]
    assert asked.advanced.base_model == OWN.name
    assert asked.advanced.metadata_scheme == "fooocus"


def test_a_phone_shows_every_tab_of_the_column(open_page):
    page = open_page(**PHONE)
    page.click("#settings_switch")
    for name in ("Settings", "Styles", "Models", "Advanced"):
        tab(page, name)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") == 390, name
    tab(page, "Styles")
    page.tap(".style:text-is('SAI Anime')")
    assert "SAI Anime" in picked_styles(page)
    assert page.locator(".style >> nth=0").bounding_box()["height"] >= 36


def test_files_are_looked_for_again(open_page, live):
    page = open_page()
    tab(page, "Models")
    page.click("#refresh_files")
    page.wait_for_selector("#studio_toast:has-text('can be chosen')")
    assert Path(live.studio.presets_dir).name == "presets"
