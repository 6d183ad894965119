"""The form shows exactly the fields of its request, with their labels and ranges, and reads them back."""

import gradio as gr
import pytest

from engine import Catalog, InvalidRequest, Library, TextRequest
from engine.knobs import bounds, knob
from engine.requests import MAX_SEED, Advanced, FreeU, LoraWeight
from tests.ui.studios import LORAS, OWN, POCKET, VAE, in_event_loop
from ui.form import Form, flat, nested
from ui.notations import ROWS
from ui.pictures_panel import pictures_panel
from ui.settings import settings
from ui.start import start_of

ELSEWHERE = (
    "advanced",
    "inpaint",
    "upscale_or_vary",
    "mask_from",
    "describe",
    "enhance",
    "studio",
)
"""Fields that the pictures' panel makes up of several parts, or that are jobs of their own."""
NAMES = {
    *(name for name in TextRequest.model_fields if name not in ELSEWHERE),
    *(f"advanced.{name}" for name in Advanced.model_fields),
    *(f"advanced.freeu.{name}" for name in FreeU.model_fields),
}
INK = LORAS[0].name


def column(library: Library, **preset):
    """The settings column, and a prompt."""

    def build():
        with gr.Blocks(analytics_enabled=False):
            prompt = gr.Textbox("a red star", elem_id="prompt")
            start = start_of(library, preset)
            shown = settings(start, can_refresh=True, can_save=True)
            slots = pictures_panel(start, can_bring=True).slots
            return {"prompt": prompt, "image_prompts": slots, **shown.fields}

    return in_event_loop(build)


@pytest.fixture
def form(library: Library) -> Form[TextRequest]:
    return Form(TextRequest, column(library), lambda name, value: value != "gone.safetensors")


def values(form: Form, **changed):
    """What the components hold at first, but for some."""
    held = {part: part.value for part in form.fields.values()}
    return {**held, **{form.fields[name]: value for name, value in changed.items()}}


def shown(form: Form, **named):
    """What the components hold once a request is shown."""
    updates = form.show(dict(flat(named)))
    return {**values(form), **{part: update["value"] for part, update in updates.items()}}


def test_every_field_of_the_request_is_on_the_form_and_nothing_else(form):
    assert set(form.fields) == NAMES


def test_labels_and_ranges_are_those_of_the_request(form):
    owners = {"": TextRequest, "advanced": Advanced, "advanced.freeu": FreeU}
    for name, part in form.fields.items():
        parent, _, leaf = name.rpartition(".")
        if name != "prompt":
            assert part.label == knob(owners[parent], leaf).label
        if isinstance(part, gr.Slider):
            assert (part.minimum, part.maximum) == bounds(owners[parent], leaf)


def test_an_untouched_form_reads_as_the_defaults(form):
    given = form.read(values(form))
    assert given == TextRequest(prompt="a red star")


def test_the_preset_is_what_the_form_shows_at_first(library):
    freeu = {"b1": 1.3}
    preset = {"performance": "Quality", "advanced": {"clip_skip": 3, "freeu": freeu}}
    fields = column(library, **preset)
    assert fields["performance"].value == "Quality"
    assert fields["advanced.clip_skip"].value == 3
    assert fields["advanced.freeu"].value is True
    assert fields["advanced.freeu.b1"].value == 1.3


def test_freeu_is_asked_for_only_where_its_switch_is_on(form):
    off = values(form, **{"advanced.freeu": False, "advanced.freeu.b1": 1.5})
    assert form.read(off).advanced.freeu is None
    on = {**off, form.fields["advanced.freeu"]: True}
    assert form.read(on).advanced.freeu == FreeU(b1=1.5)


def test_showing_a_request_without_freeu_switches_it_off(form):
    request = TextRequest(advanced={"freeu": {"s1": 0.5}}).model_dump(mode="json")
    assert form.read(shown(form, **request)).advanced.freeu == FreeU(s1=0.5)
    request["advanced"]["freeu"] = None
    assert form.read(shown(form, **request)).advanced.freeu is None


def test_a_shown_request_is_read_back_equal(form):
    request = TextRequest(
        prompt="two stars",
        styles=("SAI Anime", "Random Style"),
        loras=(LoraWeight(path=INK, scale=-0.25), LoraWeight(path="b.safetensors")),
        refiner_model=OWN.name,
        refiner_switch=0.8,
        seed=MAX_SEED,
        advanced={
            "base_model": POCKET.name,
            "vae": VAE.name,
            "refiner_switch_step": 12,
            "refiner_swap_method": "vae",
            "freeu": {"b1": 1.1},
            "seed_increment": False,
            "wildcards_in_order": True,
            "metadata_scheme": "a1111",
        },
    )
    assert form.read(shown(form, **request.model_dump(mode="json"))) == request


def test_rows_that_are_off_or_empty_are_not_asked_for(form):
    rows = [
        {"on": True, "file": "", "scale": 1.0},
        {"on": False, "file": "off.safetensors", "scale": 1.0},
        {"on": True, "file": INK, "scale": 0.5},
    ]
    assert form.read(values(form, loras=rows)).loras == (LoraWeight(path=INK, scale=0.5),)


def test_there_are_always_a_few_rows(form):
    assert len(form.fields["loras"].value) == ROWS
    update = form.show({"loras": [{"path": INK, "scale": 1.0}]})[form.fields["loras"]]
    assert [row["file"] for row in update["value"]] == [INK, *[""] * (ROWS - 1)]


def test_too_many_rows_are_told_at_the_rows(form):
    row = {"on": True, "file": "x" * 401, "scale": 1.0}
    verdict = form.check(values(form, loras=[row]))
    assert [part for part, said in verdict.items() if not said["is_valid"]] == [
        form.fields["loras"]
    ]


def test_an_emptied_seed_is_random_and_an_emptied_text_is_empty(form):
    given = form.read(values(form, seed="", negative_prompt=""))
    assert given.seed is None
    assert given.negative_prompt == ""


def test_a_seed_beyond_a_browsers_numbers_survives(form):
    shown = form.show({"seed": MAX_SEED})[form.fields["seed"]]["value"]
    assert shown == str(MAX_SEED)
    assert form.read(values(form, seed=shown)).seed == MAX_SEED


def test_a_wrong_value_is_named_at_its_field_only(form):
    verdict = form.check(values(form, seed="abc"))
    wrong = [part for part, said in verdict.items() if not said["is_valid"]]
    assert wrong == [form.fields["seed"]]
    assert "'abc'" in verdict[form.fields["seed"]]["message"]


def test_reading_a_wrong_value_says_which(form):
    with pytest.raises(
        InvalidRequest, match=r"^aspect_ratio: expected 'WIDTHxHEIGHT', got 'wide'$"
    ):
        form.read(values(form, aspect_ratio="wide"))


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        (None, {}),
        ("rubbish", {}),
        ({"no_such_field": 1}, {}),
        ({"num_images": 99, "prompt": "kept"}, {"prompt": "kept"}),
        ({"advanced.sampler": "gone", "advanced.clip_skip": 4}, {"advanced.clip_skip": 4}),
        ({"seed": ""}, {"seed": ""}),
        ({"advanced.freeu": True, "advanced.freeu.b1": 9}, {"advanced.freeu": True}),
        ({"advanced.freeu": "yes"}, {}),
        ({"performance": "Warp"}, {}),
        ({"styles": ["SAI Anime"]}, {"styles": ["SAI Anime"]}),
        ({"advanced.base_model": []}, {"advanced.base_model": []}),
    ],
)
def test_of_a_stored_form_what_still_fits_is_kept(form, stored, kept):
    assert form.kept(stored) == kept


@pytest.mark.parametrize(
    "row", [None, "x", 3, [], {"file": 3}, {"scale": "x"}, {"scale": float("nan")}, {"on": 7}]
)
def test_a_stored_row_that_is_none_becomes_an_empty_one(form, row):
    good = {"on": False, "file": INK, "scale": 0.5}
    kept = form.kept({"loras": [row, good]})["loras"]
    assert kept[0] == {"on": True, "file": "", "scale": 1.0}
    assert kept[1] == good
    assert len(kept) == ROWS


def test_a_stored_weight_beyond_its_range_is_brought_back_into_it(form):
    kept = form.kept({"loras": [{"on": True, "file": INK, "scale": 7}]})
    assert kept["loras"][0]["scale"] == 2.0


def test_dotted_names_and_nests_are_each_others_opposite():
    tree = {"prompt": "x", "advanced": {"clip_skip": 2, "compat": "pochade"}}
    assert nested(dict(flat(tree))) == tree


def test_a_stored_file_that_is_gone_is_dropped(form):
    stored = {"advanced.base_model": ["gone.safetensors"], "sharpness": 3.0}
    assert form.kept(stored) == {"sharpness": 3.0}
    assert form.kept({"advanced.base_model": ["pocket"]}) == {"advanced.base_model": ["pocket"]}


def test_a_size_that_the_base_model_does_not_offer_is_its_own_at_first(library):
    pocket_only = Library(catalog=Catalog([POCKET]))
    assert start_of(pocket_only, {"aspect_ratio": "1728x576"})["aspect_ratio"] == "1152x896"
    own = {"aspect_ratio": "1728x576", "advanced": {"base_model": OWN.name}}
    assert start_of(library, own)["aspect_ratio"] == "1728x576"
