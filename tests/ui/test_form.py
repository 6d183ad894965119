"""The form shows exactly the fields of its request, with their labels and ranges, and reads them back."""

import gradio as gr
import pytest

from engine import Catalog, InvalidRequest, TextRequest
from engine.requests import MAX_SEED, Advanced, bounds, knob
from tests.ui.conftest import OWN, POCKET, in_event_loop
from ui.form import Form, flat, nested
from ui.settings import STUDIOS_OWN, settings

NAMES = {
    *(name for name in TextRequest.model_fields if name != "advanced"),
    *(f"advanced.{name}" for name in Advanced.model_fields),
}


def column(catalog: Catalog, **preset):
    """The settings column, and a prompt."""

    def build():
        with gr.Blocks(analytics_enabled=False):
            prompt = gr.Textbox("a red star", elem_id="prompt")
            return {"prompt": prompt, **settings(catalog, preset)}

    return in_event_loop(build)


@pytest.fixture
def form(catalog: Catalog) -> Form[TextRequest]:
    return Form(TextRequest, column(catalog))


def values(form: Form, **changed):
    """What the components hold at first, but for some."""
    held = {part: part.value for part in form.fields.values()}
    return {**held, **{form.fields[name]: value for name, value in changed.items()}}


def test_every_field_of_the_request_is_on_the_form_and_nothing_else(form):
    assert set(form.fields) == NAMES


def test_labels_and_ranges_are_those_of_the_request(form):
    for name, part in form.fields.items():
        owner, leaf = (Advanced, name[9:]) if name.startswith("advanced.") else (TextRequest, name)
        if name != "prompt":
            assert part.label == knob(owner, leaf).label
        if isinstance(part, gr.Slider):
            assert (part.minimum, part.maximum) == bounds(owner, leaf)


def test_an_untouched_form_reads_as_the_defaults(form):
    given = form.read(values(form))
    assert given == TextRequest(prompt="a red star")


def test_the_preset_is_what_the_form_shows_at_first(catalog):
    fields = column(catalog, **{"performance": "Quality", "advanced.clip_skip": 3})
    assert fields["performance"].value == "Quality"
    assert fields["advanced.clip_skip"].value == 3


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
    ],
)
def test_of_a_stored_form_what_still_fits_is_kept(form, stored, kept):
    assert form.kept(stored) == kept


def test_dotted_names_and_nests_are_each_others_opposite():
    tree = {"prompt": "x", "advanced": {"clip_skip": 2, "compat": "pochade"}}
    assert nested(dict(flat(tree))) == tree


def test_base_models_are_offered_only_where_there_is_a_choice():
    one, two = column(Catalog([POCKET])), column(Catalog([OWN, POCKET]))
    assert not one["advanced.base_model"].visible
    assert two["advanced.base_model"].visible
    assert two["advanced.base_model"].value == STUDIOS_OWN
    labels, names = zip(*two["advanced.base_model"].choices, strict=True)
    assert names == (STUDIOS_OWN, OWN.name, POCKET.name)
    assert labels[0] == f"The studio's own ({OWN.name})"


def test_a_stored_base_model_that_is_gone_is_dropped(form):
    stored = {"advanced.base_model": "gone.safetensors", "sharpness": 3.0}
    assert form.kept(stored) == {"sharpness": 3.0}
    assert form.kept({"advanced.base_model": "pocket"}) == {"advanced.base_model": "pocket"}


def test_sizes_are_those_of_the_base_model(form):
    offered = form.fields["aspect_ratio"].choices
    assert [value for _, value in offered] == [str(size) for size in POCKET.sizes]
    assert "1152×896" in {value: label for label, value in offered}["1152x896"]
    assert "9:7" in {value: label for label, value in offered}["1152x896"]
