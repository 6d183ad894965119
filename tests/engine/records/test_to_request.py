"""Foreign records fill the request; what cannot be read is said, and spoils nothing else."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import Catalog, Checkpoint, Weights
from engine.errors import InvalidRequest
from engine.records import a1111, fooocus
from engine.records.to_request import LABELS, request_from, settings_from
from engine.requests import TextRequest
from tests.engine.records.sample import FIELDS, RESOLVE, STYLES, full_record


@pytest.mark.parametrize("scheme", ["fooocus", "a1111"])
def test_a_record_comes_back_whole(scheme: str) -> None:
    record = full_record()
    if scheme == "fooocus":
        values = fooocus.read(fooocus.write(record), RESOLVE)
    else:
        values = a1111.read(a1111.write(record), RESOLVE, STYLES)

    fields, notes = request_from(values, RESOLVE)

    assert notes == []
    assert fields == FIELDS
    TextRequest.parse(fields)


def test_styles_are_found_in_a_text_that_does_not_name_them() -> None:
    text = a1111.write(full_record(), compat="fooocus")

    assert "Styles" not in text
    values = a1111.read(text, RESOLVE, STYLES)
    assert values["styles"] == "['Fooocus V2', 'Plain', 'Wrap']"


def test_a_text_of_a1111_fills_what_it_says() -> None:
    text = (
        "a cat, (sharp:1.2) <lora:film:0.8>\nat night\n"
        "Negative prompt: rain,\nfog\n"
        "Steps: 22, Sampler: DPM++ 3M SDE Exponential, CFG scale: 6.5, Seed: 77, Size: 1216x832, "
        "Model hash: 0123abcdef, Model: base_v1.0, VAE: Automatic, Clip skip: 2, "
        'Lora hashes: "film: 0123456789", Refiner: fine [7440042bbd], Refiner switch at: 0.8, '
        'Hashes: {"model": "0123", "vae": "4567"}, Version: v1.9.0'
    )

    fields, notes = request_from(a1111.read(text, RESOLVE, STYLES), RESOLVE)

    assert notes == []
    assert fields["prompt"] == "a cat, (sharp:1.2) <lora:film:0.8>\nat night"
    assert fields["negative_prompt"] == "rain,\nfog"
    assert (fields["performance"], fields["advanced"]["num_inference_steps"]) == ("Speed", 22)
    assert fields["advanced"]["sampler"] == "dpmpp_3m_sde_gpu"
    assert fields["advanced"]["scheduler"] == "exponential"
    assert fields["advanced"]["base_model"] == "photo/base_v1.0.safetensors"
    assert fields["advanced"]["vae"] is None
    assert (fields["refiner_model"], fields["refiner_switch"]) == ("fine.safetensors", 0.8)
    assert (fields["seed"], fields["aspect_ratio"]) == (77, "1216x832")
    assert fields["loras"] == []  # the tag in the prompt asks for it
    assert "styles" not in fields


def test_steps_of_the_mode_are_no_overwrite_by_key_or_label() -> None:
    for performance, steps in (("performance", "steps"), ("Performance", "Steps")):
        fields, _ = request_from({performance: "Lightning", steps: "4"}, RESOLVE)
        assert fields["performance"] == "Lightning"
        assert fields["advanced"]["num_inference_steps"] is None


def test_steps_alone_never_choose_a_mode_that_changes_more() -> None:
    for steps, expected in ((60, ("Quality", None)), (30, ("Speed", None)), (8, ("Speed", 8))):
        fields, _ = request_from({"steps": steps}, RESOLVE)
        assert (fields["performance"], fields["advanced"]["num_inference_steps"]) == expected


def test_labels_mean_what_keys_mean() -> None:
    values = fooocus.read(fooocus.write(full_record()), RESOLVE)
    labelled = {LABELS.get(key, key): value for key, value in values.items()}

    assert request_from(labelled, RESOLVE) == request_from(values, RESOLVE)


def test_what_is_not_installed_is_said() -> None:
    values = {
        "base_model": "gone_v9",
        "vae": "lost",
        "lora_combined_1": "away : 0.5",
        "lora_combined_2": "film : 0.7",
    }

    fields, notes = request_from(values, RESOLVE)

    assert notes == [
        "Base Model: 'gone_v9' is not installed; the one that is chosen stays",
        "VAE: 'lost' is not installed; the one that is chosen stays",
        "LoRA 1: 'away' is not installed; it is left out",
    ]
    assert fields["loras"] == [{"path": "film.safetensors", "scale": 0.7}]
    assert "base_model" not in fields["advanced"]


def test_the_modes_own_lora_is_not_the_persons() -> None:
    values = {
        "performance": "Extreme Speed",
        "lora_combined_1": "sdxl_lcm_lora : 1.0",
        "lora_combined_2": "Glow : 1.0",
        "lora_combined_3": "False : film : 1.0",
    }

    assert request_from(values, RESOLVE)[0]["loras"] == [
        {"path": "sub/Glow.safetensors", "scale": 1.0}
    ]
    fields, notes = request_from(values, RESOLVE, mode_loras=["Glow.safetensors"])
    assert (fields["loras"], notes) == ([], [])


def test_a_size_between_latents_is_rounded_and_said() -> None:
    fields, notes = request_from({"resolution": "(777, 1001)"}, RESOLVE)

    assert fields["aspect_ratio"] == "776x1000"
    assert notes == ["Resolution: 777x1001 is painted as 776x1000, the latents' own size"]


def test_unknown_styles_are_said() -> None:
    fields, notes = request_from({"styles": "['plain', 'Zzz']"}, RESOLVE, styles=STYLES)

    assert fields["styles"] == ("Plain",)
    assert notes == ["Styles: no style named 'Zzz'; it is left out"]


@pytest.mark.parametrize(
    ("key", "value", "note"),
    [
        ("seed", "x", "Seed: expected a number, got 'x'"),
        ("seed", -1, "Seed: expected greater than or equal to 0, got -1"),
        ("seed", 1.5, "Seed: expected a whole number, got 1.5"),
        ("guidance_scale", "1e999", "Guidance Scale: expected a number, got '1e999'"),
        ("guidance_scale", True, "Guidance Scale: expected a number, got True"),
        ("sharpness", 99, "Sharpness: expected less than or equal to 30, got 99.0"),
        ("sampler", "plms", "Sampler: expected .*'euler'.*, got 'plms'"),
        ("styles", "__import__('os')", r"Styles: expected a list of names, got \"__imp.*"),
        ("styles", "['a' + 'b']", r"Styles: expected a list of names, got .*"),
        ("adm_guidance", "(1, 2)", r"ADM Guidance: expected 3 numbers, got '\(1, 2\)'"),
        ("freeu", "(9**9**9, 1, 1, 1)", r"FreeU: expected a number, got '9\*\*9\*\*9'"),
        ("prompt", 5, "Prompt: expected a text, got 5"),
        ("lora_combined_1", "film", "LoRA 1: expected 'name : weight', got 'film'"),
        ("lora_combined_1", "film : 9", "LoRA 1: expected less than or equal to 2, got 9.0"),
        ("performance", "Warp", "Performance: expected .*, got 'Warp'"),
    ],
)
def test_what_cannot_be_read_is_said_and_left_out(key: str, value: Any, note: str) -> None:
    fields, notes = request_from({key: value, "negative_prompt": "rain"}, RESOLVE)

    assert len(notes) == 1
    assert_matches(notes[0], note)
    assert fields["negative_prompt"] == "rain"
    TextRequest.parse(fields)


def assert_matches(text: str, pattern: str) -> None:
    with pytest.raises(ValueError, match=f"^{pattern}$"):
        raise ValueError(text)


def test_no_object_is_a_sentence() -> None:
    with pytest.raises(InvalidRequest, match=r"^metadata: expected a JSON object, got 'a cat'$"):
        fooocus.read("a cat", RESOLVE)
    with pytest.raises(
        InvalidRequest, match=r"^metadata: expected a JSON object, got '\{\"a\".*'$"
    ):
        fooocus.read('{"a": ' + "[" * 50 + "]" * 50 + "}", RESOLVE)
    with pytest.raises(InvalidRequest, match=r"^metadata: expected at most 1048576 characters"):
        a1111.read("x" * (1 << 21), RESOLVE, STYLES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*LABELS, *LABELS.values()]), JSON, max_size=6))
def test_any_mapping_makes_a_request(values: dict[str, Any]) -> None:
    fields, _ = request_from(values, RESOLVE)

    TextRequest.parse(fields)


@given(st.text(alphabet='Steps: 1,"{}[]x\n\\Sampler', max_size=80))
def test_any_text_is_read(text: str) -> None:
    values = a1111.read(f"{text}\nSteps: 1, {text}, Seed: 2, Lora weights: {text}", RESOLVE, STYLES)

    TextRequest.parse(request_from(values, RESOLVE)[0])


def test_a_catalog_and_styles_are_enough() -> None:
    checkpoint = Checkpoint(
        name="pocket", path=Path("pocket"), performance_loras=(("Lightning", "few.safetensors"),)
    )
    files = [Weights(name="few.safetensors", path=Path("few.safetensors"), kind="lora")]
    text = 'x\nSteps: 4, Sampler: Euler, Seed: 3, Performance: Lightning, Lora weights: "few: 1.0"'

    fields, notes = settings_from("a1111", text, Catalog([checkpoint], files), STYLES)

    assert (fields["performance"], fields["loras"], notes) == ("Lightning", [], [])


def test_what_a_base_model_brings_for_enlarging_is_not_the_persons() -> None:
    checkpoint = Checkpoint(
        name="pocket", path=Path("pocket"), partners=(("upscale lora", "larger.safetensors"),)
    )
    files = [
        Weights(name=f"{name}.safetensors", path=Path(name), kind="lora")
        for name in ("larger", "ink")
    ]
    text = 'x\nSteps: 18, Sampler: Euler, Seed: 3, Lora weights: "ink: 0.5, larger: 1.0"'

    fields, notes = settings_from("a1111", text, Catalog([checkpoint], files), STYLES)

    assert (fields["loras"], notes) == ([{"path": "ink.safetensors", "scale": 0.5}], [])
