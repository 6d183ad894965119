"""What the pictures' panel holds becomes a request with its files, and a request is shown on it again."""

import io
import json
from typing import get_args

import gradio as gr
import pytest
from PIL import Image

from engine import EngineError, InvalidRequest, ModelNotFound, TextRequest
from engine.image_inputs import FURTHER, SLOT_DEFAULTS, ImagePromptType
from engine.partners import has_aux
from engine.requests import Advanced
from tests.ui.studios import in_event_loop
from ui.image_input import Uploads
from ui.notations import SLOTS, empty_slot, prompts_of, slots_of
from ui.picture_values import PicturesPanel
from ui.pictures_panel import pictures_panel
from ui.sketcher import write_sketch

DETAIL = "Improve Detail (face, hand, eyes, etc.)"
FAST = "Upscale (Fast 2x)"
GONE = "0" * 64


@pytest.fixture(scope="module")
def panel() -> PicturesPanel:
    def build():
        with gr.Blocks(analytics_enabled=False):
            return pictures_panel({}, can_bring=True)

    return in_event_loop(build)


@pytest.fixture
def uploads(tmp_path) -> Uploads:
    return Uploads(tmp_path / "uploads")


def png(colour: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (24, 16), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def first(uploads):
    return uploads.save(png(10), "me")


@pytest.fixture
def second(uploads):
    return uploads.save(png(200), "me")


def held(panel: PicturesPanel, **changed):
    """What the parts hold at first, but for some: by name of a part, or of a field of one that has several."""
    parts = {
        "choice": panel.choice,
        "slots": panel.slots,
        "sketch": panel.sketch,
        "picture": panel.picture,
        **panel.inpaint,
        **{f"change_{name}": part for name, part in panel.change.items()},
    }
    first = {part: part.value for part in panel.inputs}
    return {**first, **{parts[name]: value for name, value in changed.items()}}


def slot(image, **more):
    return {**empty_slot(), "image": image.name, **more}


def read(panel, uploads, values, owner="me"):
    asked = TextRequest(prompt="a star", image_prompts=prompts_of(values[panel.slots]))
    return panel.read(asked, values, uploads, owner)


def test_words_alone_ask_for_no_picture_whatever_the_parts_hold(panel, uploads, first):
    values = held(panel, slots=[slot(first)], sketch=write_sketch(first), picture=first.name)
    request, files = read(panel, uploads, values)
    assert request == TextRequest(prompt="a star")
    assert files == {}


def test_slots_become_image_prompts_with_their_files(panel, uploads, first, second):
    rows = [
        empty_slot(),
        slot(first, type="CPDS", weight=1.25, stop_at=0.75),
        slot(second),
        empty_slot(),
    ]
    request, files = read(panel, uploads, held(panel, choice={"tab": "image_prompts"}, slots=rows))
    stop_at, weight = SLOT_DEFAULTS["ImagePrompt"]
    got = [(it.type, it.image, it.weight, it.stop_at) for it in request.image_prompts]
    assert got == [
        ("CPDS", first.name, 1.25, 0.75),
        ("ImagePrompt", second.name, weight, stop_at),
    ]
    assert files == {first.name: png(10), second.name: png(200)}


@pytest.mark.skipif(has_aux(), reason="controlnet-aux is there")
def test_what_a_library_draws_needs_it_unless_it_is_drawn_already(panel, uploads, first):
    rows = [empty_slot(), slot(first, type="Depth")]
    values = held(panel, choice={"tab": "image_prompts"}, slots=rows)
    problem = "^Image 2, type: expected the library controlnet-aux .+ pip install controlnet-aux"
    with pytest.raises(EngineError, match=problem), panel.in_words(values):
        read(panel, uploads, values)
    prompts = prompts_of(values[panel.slots])
    drawn = TextRequest(image_prompts=prompts, advanced=Advanced(skip_preprocessors=True))
    (asked,) = panel.read(drawn, values, uploads, "me")[0].image_prompts
    assert (asked.type, asked.image) == ("Depth", first.name)


def test_the_page_offers_all_types_of_the_engine(panel):
    script = panel.slots.js_on_load.partition("const pochade = ")[2]
    told = json.JSONDecoder().raw_decode(script)[0]["facts"]["types"]
    assert [it["name"] for it in told] == list(get_args(ImagePromptType))
    assert {it["name"] for it in told if it["draws"]} == {"PyraCanny", "CPDS", *FURTHER}
    assert all(it["help"] for it in told)


def test_a_picture_is_repainted_where_it_is_painted_over(panel, uploads, first, second):
    values = held(
        panel,
        choice={"tab": "inpaint"},
        sketch=write_sketch(first, second),
        mode=DETAIL,
        additional_prompt="a nose",
        outpaint=["Left"],
        strength="0.4",
        engine="v1",
        disable_initial_latent=False,
    )
    request, files = read(panel, uploads, values)
    asked = request.inpaint
    assert (asked.image, asked.mask) == (first.name, second.name)
    assert (asked.mode, asked.additional_prompt, asked.strength) == (DETAIL, "a nose", 0.4)
    assert (asked.engine, asked.disable_initial_latent) == ("v1", False)
    assert asked.outpaint == ()  # out of sight in this mode
    assert asked.respective_field is None
    assert files == {first.name: png(10), second.name: png(200)}


def test_sides_need_no_mask_and_the_usual_mode_no_additional_prompt(panel, uploads, first):
    values = held(
        panel,
        choice={"tab": "inpaint"},
        sketch=write_sketch(first),
        outpaint=["Left", "Top"],
        additional_prompt="out of sight",
    )
    asked = read(panel, uploads, values)[0].inpaint
    assert (asked.mask, asked.outpaint, asked.additional_prompt) == (None, ("Left", "Top"), "")


def test_a_picture_is_varied_or_enlarged(panel, uploads, first):
    values = held(
        panel,
        choice={"tab": "upscale_or_vary"},
        picture=first.name,
        change_method="Vary (Subtle)",
        change_strength="0.3",
    )
    request, files = read(panel, uploads, values)
    asked = request.upscale_or_vary
    assert (asked.image, asked.method, asked.strength) == (first.name, "Vary (Subtle)", 0.3)
    assert files == {first.name: png(10)}
    values[panel.change["method"]] = FAST  # which has no use for a strength
    assert read(panel, uploads, values)[0].upscale_or_vary.strength is None


@pytest.mark.parametrize("mixed", ["inpaint", "upscale_or_vary"])
def test_image_prompts_mix_with_one_of_the_others(panel, uploads, first, second, mixed):
    values = held(
        panel,
        choice={"tab": "image_prompts", mixed: True},
        slots=[slot(first)],
        sketch=write_sketch(second, first),
        picture=second.name,
    )
    request, files = read(panel, uploads, values)
    assert len(request.image_prompts) == 1
    assert getattr(request, mixed).image == second.name
    assert set(files) == {first.name, second.name}


def test_a_mix_counts_with_image_prompts_alone(panel, uploads, first):
    values = held(
        panel,
        choice={"tab": "upscale_or_vary", "inpaint": True},
        picture=first.name,
        sketch=write_sketch(first, first),
    )
    assert read(panel, uploads, values)[0].inpaint is None


@pytest.mark.parametrize("choice", [None, "inpaint", [], {"tab": 3}, {"tab": "no such"}, {}])
def test_a_choice_that_is_none_is_words_alone(panel, uploads, first, choice):
    values = held(panel, choice=choice, picture=first.name)
    assert read(panel, uploads, values)[1] == {}


def complaint(panel, uploads, values, owner="me") -> str:
    with pytest.raises(InvalidRequest) as caught, panel.in_words(values):
        read(panel, uploads, values, owner)
    return str(caught.value)


def test_what_is_missing_is_said_in_words(panel, uploads, first):
    inpaint = {"tab": "inpaint"}
    for values, said in (
        (held(panel, choice=inpaint), "Inpaint: choose a picture to repaint"),
        (
            held(panel, choice=inpaint, sketch=write_sketch(first)),
            "Inpaint, mask: paint over what shall change, or choose sides to paint beyond",
        ),
        (
            held(panel, choice=inpaint, sketch=write_sketch(first), mode=DETAIL),
            "Inpaint, mask: paint over what shall change",
        ),
        (
            held(panel, choice={"tab": "upscale_or_vary"}),
            "Upscale or vary: choose a picture to vary or to enlarge",
        ),
    ):
        assert complaint(panel, uploads, values) == said


def test_a_picture_of_somebody_else_is_not_here(panel, uploads, first):
    rows = [empty_slot(), empty_slot(), slot(first)]
    gone = "expected a picture that is still here; choose it again"
    values = held(panel, choice={"tab": "image_prompts"}, slots=rows)
    assert complaint(panel, uploads, values, "other") == f"Image 3: {gone}"
    values = held(panel, choice={"tab": "upscale_or_vary"}, picture=first.name)
    assert complaint(panel, uploads, values, "other") == f"Upscale or vary: {gone}"
    values = held(panel, choice={"tab": "inpaint"}, sketch=write_sketch(first, first))
    assert complaint(panel, uploads, values, "other") == f"Inpaint: {gone}"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"strength": "much"}, "Inpaint, strength: "),
        ({"strength": "7"}, "Inpaint, strength: "),
        ({"erode_or_dilate": 99}, "Inpaint, grow the mask: "),
        ({"mode": "Warp"}, "Inpaint, method: "),
        ({"outpaint": ["Up"]}, "Inpaint, paint beyond: "),
        ({"sketch": "{rubbish"}, "Inpaint: "),
        ({"sketch": '{"image": "../../etc/passwd"}'}, "Inpaint: "),
    ],
)
def test_a_wrong_value_is_named_as_on_the_page(panel, uploads, first, changed, said):
    values = held(
        panel, **{"choice": {"tab": "inpaint"}, "sketch": write_sketch(first, first), **changed}
    )
    assert complaint(panel, uploads, values).startswith(said)


def test_an_error_of_the_plan_names_the_slot_on_the_page(panel, first):
    values = held(panel, slots=[empty_slot(), slot(first), empty_slot(), slot(first)])
    said = r"^Image 4, type: pocket has no FaceSwap$"
    with pytest.raises(InvalidRequest, match=said), panel.in_words(values):
        raise ModelNotFound("image_prompts.1.type: pocket has no FaceSwap")
    with pytest.raises(ModelNotFound, match=r"^base_model: none$"), panel.in_words(values):
        raise ModelNotFound("base_model: none")


def shown(panel, uploads, given, owner="me"):
    """What the parts hold once a request is shown."""
    updates, lost = panel.show(given, uploads, owner)
    return {**held(panel), **{part: it["value"] for part, it in updates.items()}}, lost


def test_a_shown_request_is_read_back_equal(panel, uploads, first, second):
    prompts = [{"image": first.name, "type": "PyraCanny", "weight": 0.5, "stop_at": 0.25}]
    inpaint = {"image": second.name, "mask": first.name, "mode": DETAIL, "strength": 0.4}
    change = {"image": second.name, "method": "Upscale (2x)"}
    for given in (
        {"image_prompts": prompts},
        {"inpaint": inpaint},
        {"upscale_or_vary": change},
        {"image_prompts": prompts, "inpaint": inpaint},
        {"image_prompts": prompts, "upscale_or_vary": change},
        {},
    ):
        request = TextRequest(prompt="a star", **given)
        values, lost = shown(panel, uploads, request.model_dump(mode="json"))
        assert not lost
        assert read(panel, uploads, values)[0] == request


def test_pictures_that_are_gone_leave_their_place_empty(panel, uploads, first):
    prompts = [{"image": GONE}, {"image": first.name}]
    values, lost = shown(panel, uploads, {"image_prompts": prompts})
    assert lost
    assert [it["image"] for it in values[panel.slots]] == [first.name, "", "", ""]
    for given in (
        {"upscale_or_vary": {"image": first.name}},
        {"inpaint": {"image": first.name, "mask": first.name}},
    ):
        values, lost = shown(panel, uploads, given, owner="other")
        assert lost
        assert values[panel.choice]["tab"] == "words"
    values, lost = shown(panel, uploads, {"inpaint": {"image": first.name, "mask": GONE}})
    assert lost
    assert values[panel.sketch] == write_sketch(first)


def test_what_is_no_request_is_not_shown(panel, uploads):
    with pytest.raises(InvalidRequest, match=r"^inpaint\.image: "):
        panel.show({"inpaint": {"image": "../x"}}, uploads, "me")


@pytest.mark.parametrize("stored", [None, "x", 3, [], [None, 3, "x", {}], [{"image": ""}]])
def test_slots_without_pictures_are_none(stored):
    assert prompts_of(stored) == []


def test_slots_show_what_the_type_has_where_nothing_is_set(first):
    rows = slots_of([{"image": first.name, "type": "FaceSwap"}])
    assert len(rows) == SLOTS
    assert rows[0] == {"image": first.name, "type": "FaceSwap", "stop_at": 0.9, "weight": 0.75}
    assert rows[1:] == [empty_slot()] * 3
