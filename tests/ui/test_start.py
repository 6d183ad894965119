"""The form starts from a whole request, and a preset changes just what it should."""

from engine.presets import Preset
from tests.ui.studios import OWN, POCKET
from ui.start import after_preset, start_of


def shown(library, preset: dict, start: dict | None = None) -> dict:
    first = start_of(library, start or {})
    return after_preset(library, first, Preset("Some", "A test.", preset))


def test_the_start_names_every_field(library):
    start = start_of(library, {"sharpness": 5.0})
    assert start["sharpness"] == 5.0
    assert start["guidance_scale"] == 4.0
    assert start["advanced.sampler"] == "dpmpp_2m_sde_gpu"


def test_what_a_preset_does_not_name_is_as_at_the_start(library):
    values = shown(library, {"performance": "Quality"}, {"sharpness": 5.0})
    assert values["performance"] == "Quality"
    assert values["sharpness"] == 5.0
    assert values["negative_prompt"] == ""


def test_prompt_and_seed_stay_unless_they_are_named(library):
    assert {"prompt", "seed"}.isdisjoint(shown(library, {}))
    assert shown(library, {"prompt": "a star"})["prompt"] == "a star"


def test_freeu_goes_and_comes_whole(library):
    on = {"advanced": {"freeu": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.8}}}
    values = shown(library, on)
    assert "advanced.freeu" not in values
    assert values["advanced.freeu.b1"] == 1.3
    gone = shown(library, {"advanced": {"freeu": None}}, on)
    assert gone["advanced.freeu"] is None
    assert "advanced.freeu.b1" not in gone


def test_a_size_that_the_presets_model_lacks_is_that_models_own(library):
    start = {"aspect_ratio": "1728x576", "advanced": {"base_model": OWN.name}}
    values = shown(library, {"advanced": {"base_model": POCKET.name}}, start)
    assert values["aspect_ratio"] == str(POCKET.default_size)
