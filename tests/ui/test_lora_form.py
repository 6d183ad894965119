"""The form of the LoRA studio shows every field of it, reads them back, and says at which part something is wrong."""

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

import ui
from engine import Catalog, Library, TextRequest
from engine.catalog import Weights
from engine.knobs import bounds, knob
from engine.requests import Advanced
from engine.studio import Embedding, IcLight, Studio, StudioAdapter, StudioControl, Tiles
from jobs import Jobs
from tests.ui.studios import LORAS, OWN, POCKET, in_event_loop
from ui.form import flat
from ui.lora_settings import lora_settings
from ui.lora_tab import LoraTab, pictures_of
from ui.rows import Rows
from ui.start import lora_start_of, start_of

INK = LORAS[0].name
RED, GREEN, BLUE = ("a" * 64, "b" * 64, "c" * 64)
OWN_FIELDS = {"prompt", "negative_prompt", "aspect_ratio", "num_images", "seed", "output_format"}
NESTED = {"tiles": Tiles, "ic_light": IcLight}
NAMES = {
    *OWN_FIELDS,
    "enable_safety_checker",
    *(f"advanced.{name}" for name in ("base_model", "vae", "previews", "deterministic")),
    *(f"advanced.{name}" for name in ("save_metadata", "metadata_scheme", "picture_grid")),
    *(f"studio.{name}" for name in Studio.model_fields if name != "tiles"),
    *(f"studio.{it}.{name}" for it, model in NESTED.items() for name in model.model_fields),
}
ADDONS = [
    Weights(name="toy_sight", path=Path("toy_sight"), kind="clip_vision"),
    Weights(name="toy_edges", path=Path("toy_edges"), kind="controlnet"),
    Weights(name="toy_look", path=Path("toy_look"), kind="controlnet"),
    Weights(name="toy_light", path=Path("toy_light"), kind="ic_light"),
    Weights(name="toy_words", path=Path("toy_words"), kind="embedding"),
]
FULL = Studio(
    loras=(
        {"path": INK, "scale": -3.5},
        {"path": "someone/style", "weight_name": "style.safetensors", "scale": 0.25},
    ),
    unet_name="someone/unet",
    variant="fp16",
    prompt_weighting=True,
    embeddings=({"path": "toy_words", "tokens": ("<a>", "<b>")},),
    controlnets=(
        {
            "path": "toy_edges",
            "image": RED,
            "mask": GREEN,
            "mode": "depth",
            "conditioning_scale": 0.5,
            "start_percentage": 0.25,
            "end_percentage": 0.75,
            "ip_adapter_index": 0,
            "variant": "fp16",
            "config_url": "https://example.com/config.json",
        },
    ),
    controlnet_guess_mode=True,
    ip_adapters=(
        {
            "path": "toy_look",
            "images": (RED, BLUE),
            "mask": GREEN,
            "scale": 2.5,
            "layer_scales": '{"down": 0.5}',
            "model_subfolder": "sdxl_models",
            "weight_name": "look.bin",
            "insight_face_model_path": "buffalo_l",
            "unconditional_noising_factor": 0.5,
            "image_projection_shortcut": False,
        },
    ),
    image_encoder_path="toy_sight",
    image_encoder_subfolder="encoder",
    image_encoder_weight_name="model.safetensors",
    ic_light={"path": "toy_light", "image": BLUE, "background": RED},
    num_inference_steps=12,
    guidance_scale=3.5,
    clip_skip=1,
    scheduler="DPM++ 2M SDE Karras",
    timesteps=(999, 500, 20),
    sigmas=(14.5, 2.25, 0.0),
    eta=0.5,
    prediction_type="v_prediction",
    rescale_betas_snr_zero=True,
    tiles={"width": 1024, "height": 512, "stride_width": 512, "stride_height": 256},
    debug_latents=True,
    debug_per_pass_latents=True,
)


@pytest.fixture
def studio(jobs: Jobs, library: Library) -> ui.Studio:
    catalog = Catalog([POCKET, OWN], [*LORAS, *ADDONS])
    return ui.Studio(jobs=jobs, library=replace(library, catalog=catalog))


@pytest.fixture
def tab(studio: ui.Studio) -> LoraTab:
    def build() -> LoraTab:
        with gr.Blocks(analytics_enabled=False) as demo:
            prompt = gr.Textbox("a red star", elem_id="prompt")
            start = lora_start_of(studio.library, start_of(studio.library, {}))
            fields = lora_settings(start, can_bring=True, can_refresh=True)
            return LoraTab(studio, demo, {"prompt": prompt, **fields})

    return in_event_loop(build)


def values(tab, **changed):
    """What the components hold at first, but for some."""
    held = {part: part.value for part in tab.parts}
    return {**held, **{tab.form.fields[name]: value for name, value in changed.items()}}


def shown(tab, request):
    """What the components hold once a request is shown."""
    updates = tab.form.show(dict(flat(request.model_dump(mode="json"))))
    return {**values(tab), **{part: update["value"] for part, update in updates.items()}}


def wrong(tab, held):
    """The parts that something is wrong with, by field, and what."""
    names = {part: name for name, part in tab.form.fields.items()}
    verdict = tab.check(held)
    return {names[it]: said["message"] for it, said in verdict.items() if not said["is_valid"]}


def row(model, **filled):
    return {**Rows(model, 1, "").empty(), **filled}


def test_every_field_of_the_studio_is_on_the_form_and_nothing_else(tab):
    assert set(tab.form.fields) == NAMES


def test_labels_and_ranges_are_those_of_the_request(tab):
    owners = {
        "": TextRequest,
        "advanced": Advanced,
        "studio": Studio,
        "studio.tiles": Tiles,
        "studio.ic_light": IcLight,
    }
    for name, part in tab.form.fields.items():
        parent, _, leaf = name.rpartition(".")
        if name != "prompt":
            assert part.label == knob(owners[parent], leaf).label
        if isinstance(part, gr.Slider):
            assert (part.minimum, part.maximum) == bounds(owners[parent], leaf)


def test_no_part_has_the_name_of_one_of_the_other_form(tab):
    ids = [part.elem_id for part in tab.parts if part.elem_id != "prompt"]
    assert all(it.startswith("lora_") for it in ids)
    assert len(set(ids)) == len(ids)


def test_an_untouched_form_reads_as_the_defaults_of_fal(tab):
    given = tab.form.read(values(tab))
    assert given.studio == Studio()
    assert (given.num_images, given.aspect_ratio) == (1, "1024x1024")
    assert (given.output_format, given.loras, given.refiner_model) == ("png", (), None)
    assert wrong(tab, values(tab)) == {}


def test_a_shown_request_with_every_field_is_read_back_equal(tab):
    request = TextRequest(
        prompt="two stars",
        negative_prompt="fog",
        aspect_ratio="1000x512",
        num_images=3,
        seed=7,
        output_format="jpeg",
        studio=FULL,
        advanced={"base_model": OWN.name, "previews": False},
    )
    assert tab.form.read(shown(tab, request)) == request


def test_a_request_without_add_ons_empties_the_form_again(tab):
    full = shown(tab, TextRequest(studio=FULL))
    updates = tab.form.show(dict(flat(TextRequest(studio=Studio()).model_dump(mode="json"))))
    emptied = {**full, **{part: update["value"] for part, update in updates.items()}}
    assert tab.form.read(emptied).studio == Studio()


def test_rows_that_are_off_or_empty_are_not_asked_for(tab):
    rows = [
        row(Embedding),
        row(Embedding, on=False, file="off"),
        row(Embedding, file="toy_words", tokens=" <a>  <b> "),
    ]
    given = tab.form.read(values(tab, **{"studio.embeddings": rows}))
    assert given.studio.embeddings == (Embedding(path="toy_words", tokens=("<a>", "<b>")),)


@pytest.mark.parametrize(
    ("field", "rows", "message"),
    [
        (
            "studio.controlnets",
            [row(StudioControl), row(StudioControl, file="toy_edges")],
            "ControlNet 2, drawing: choose a picture",
        ),
        (
            "studio.controlnets",
            [row(StudioControl, image=RED)],
            "ControlNet 1: choose one",
        ),
        (
            "studio.controlnets",
            [row(StudioControl, file="toy_edges", image=RED, start_percentage=1.0)],
            "ControlNet 1, until: expected more than start_percentage, 1.0, got 1.0",
        ),
        (
            "studio.ip_adapters",
            [row(StudioAdapter, file="toy_look")],
            "IP-Adapter 1, pictures: choose a picture",
        ),
        (
            "studio.embeddings",
            [row(Embedding, file="toy_words", tokens="")],
            "Embedding 1, words: expected at least one word",
        ),
        (
            "studio.loras",
            [
                {"on": True, "file": "", "scale": 1.0},
                {"on": True, "file": "inc.safetensors", "scale": 1.0},
            ],
            "LoRA 2: no LoRA named 'inc.safetensors'; closest are 'ink.safetensors', 'watercolor.safetensors'",
        ),
    ],
)
def test_a_problem_is_told_at_its_rows_with_the_row_and_the_field(tab, field, rows, message):
    assert wrong(tab, values(tab, **{field: rows})) == {field: message}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"seed": "abc"}, "seed"),
        ({"aspect_ratio": "100x100"}, "aspect_ratio"),
        ({"studio.timesteps": "999, x"}, "studio.timesteps"),
        ({"studio.timesteps": "20, 999"}, "studio.timesteps"),
        ({"studio.sigmas": "-1"}, "studio.sigmas"),
        ({"studio.timesteps": "999, 1", "studio.sigmas": "3, 1"}, "studio.sigmas"),
        (
            {"studio.scheduler": "LCM", "studio.num_inference_steps": 90},
            "studio.num_inference_steps",
        ),
        ({"studio.unet_name": ["gone.safetensors"]}, "studio.unet_name"),
        ({"advanced.base_model": ["gone.safetensors"]}, "advanced.base_model"),
        ({"studio.ic_light": True}, "studio.ic_light.path"),
        (
            {"studio.ic_light": True, "studio.ic_light.path": ["toy_light"]},
            "studio.ic_light.image",
        ),
        (
            {
                "studio.ic_light": True,
                "studio.ic_light.path": ["toy_light"],
                "studio.ic_light.image": RED,
            },
            "studio.ic_light.path",
        ),
        ({"studio.tiles.width": 512}, "studio.tiles.stride_width"),
    ],
)
def test_what_cannot_be_painted_is_told_at_its_field(tab, changed, field):
    assert list(wrong(tab, values(tab, **changed))) == [field]


def test_own_levels_are_read_as_they_are_typed(tab):
    typed = {"studio.timesteps": " [999, 750 20]\n"}
    assert tab.form.read(values(tab, **typed)).studio.timesteps == (999, 750, 20)
    typed = {"studio.sigmas": "14.6; 2.5, 0"}
    assert tab.form.read(values(tab, **typed)).studio.sigmas == (14.6, 2.5, 0.0)


def test_a_half_filled_row_survives_a_reload_and_rubbish_does_not(tab):
    rows = [
        row(StudioControl, file="toy_edges", conditioning_scale=7),
        "rubbish",
        {"file": 3, "image": "../x", "conditioning_scale": float("nan")},
    ]
    kept = tab.form.kept({"studio.controlnets": rows})["studio.controlnets"]
    assert kept == [
        row(StudioControl, file="toy_edges", conditioning_scale=2.0),
        row(StudioControl),
    ]


def test_a_stored_form_comes_back_without_what_no_longer_fits(tab):
    held = {
        "studio.scheduler": "",
        "studio.eta": 9,
        "studio.clip_skip": 2,
        "studio.ic_light": True,
        "studio.ic_light.image": RED,
        "studio.prediction_type": "gone",
        "advanced.base_model": ["gone.safetensors"],
    }
    kept = tab.form.kept(held)
    assert set(kept) == {
        "studio.scheduler",
        "studio.clip_skip",
        "studio.ic_light",
        "studio.ic_light.image",
    }


def test_the_pictures_of_a_request_are_listed_with_their_fields():
    assert pictures_of(TextRequest(studio=FULL)) == [
        ("studio.controlnets.0.image", RED),
        ("studio.controlnets.0.mask", GREEN),
        ("studio.ip_adapters.0.images", RED),
        ("studio.ip_adapters.0.images", BLUE),
        ("studio.ip_adapters.0.mask", GREEN),
        ("studio.ic_light.image", BLUE),
        ("studio.ic_light.background", RED),
    ]
    assert pictures_of(TextRequest()) == []
