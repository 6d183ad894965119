"""The presets that ship: each is a request, and names where every file that it needs comes from."""

import json
from pathlib import Path

import pytest

from engine.presets import Preset, read_own_presets, read_presets
from engine.prompt.styles import SPECIAL_STYLES, read_styles
from engine.requests import TextRequest

ROOT = Path(__file__).parent.parent
PRESETS = read_presets(ROOT / "presets")
FOOOCUS = {
    "default": ("juggernautXL_v8Rundiffusion", "Speed", 4.0, "1152x896", "dpmpp_2m_sde_gpu"),
    "anime": ("animaPencilXL_v500", "Speed", 6.0, "896x1152", "dpmpp_2m_sde_gpu"),
    "realistic": ("realisticStockPhoto_v20", "Speed", 3.0, "896x1152", "dpmpp_2m_sde_gpu"),
    "lcm": ("juggernautXL_v8Rundiffusion", "Extreme Speed", 4.0, "1152x896", "dpmpp_2m_sde_gpu"),
    "lightning": ("juggernautXL_v8Rundiffusion", "Lightning", 4.0, "1152x896", "dpmpp_2m_sde_gpu"),
    "playground_v2.5": (
        "playground-v2.5-1024px-aesthetic.fp16",
        "Speed",
        2.0,
        "1024x1024",
        "dpmpp_2m",
    ),
    "pony_v6": ("ponyDiffusionV6XL", "Speed", 7.0, "896x1152", "dpmpp_2m_sde_gpu"),
    "sai": ("sd_xl_base_1.0_0.9vae", "Speed", 7.0, "1152x896", "dpmpp_2m_sde_gpu"),
}
"""Model, mode, guidance, size and sampler of Fooocus' eight (reference of Fooocus 2.5.5)."""
each = pytest.mark.parametrize("name", PRESETS)


def request(preset: Preset) -> TextRequest:
    return TextRequest.parse(preset.request)


@pytest.mark.parametrize("name", FOOOCUS)
def test_fooocus_presets_have_their_numbers(name: str) -> None:
    asked = request(PRESETS[name])
    model, performance, guidance_scale, size, sampler = FOOOCUS[name]

    assert asked.advanced.base_model == f"{model}.safetensors"
    assert (asked.performance, asked.guidance_scale) == (performance, guidance_scale)
    assert (asked.aspect_ratio, asked.advanced.sampler) == (size, sampler)
    assert (asked.sharpness, asked.num_images) == (2.0, 2)


@each
def test_every_file_that_is_named_can_be_fetched(name: str) -> None:
    preset = PRESETS[name]
    asked = request(preset)
    base, refiner, vae = asked.advanced.base_model, asked.refiner_model, asked.advanced.vae
    named = {("checkpoint", file) for file in (base, refiner) if file and file != "pocket"}
    named |= {("lora", lora.path) for lora in asked.loras} | {("vae", vae)} - {("vae", None)}

    assert named <= {(offer.kind, offer.file) for offer in preset.weights}
    for offer in preset.weights:
        assert offer.source.url.startswith("https://huggingface.co/")
        assert offer.source.url.endswith(f"/{offer.file}")


@each
def test_every_style_that_is_named_ships(name: str) -> None:
    styles = read_styles([ROOT / "styles"])

    assert set(request(PRESETS[name]).styles) <= {*styles, *SPECIAL_STYLES}


@each
def test_the_file_is_tidy(name: str) -> None:
    text = (ROOT / "presets" / f"{name}.json").read_text(encoding="utf-8")

    assert text.endswith("}\n")
    assert list(json.loads(text))[:3] == ["name", "summary", "request"]
    assert PRESETS[name].summary.endswith(".")


def test_a_broken_preset_of_a_person_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "odd.json").write_text('{"name": 1}', encoding="utf-8")
    text = '{"name": "Mine", "summary": "", "request": {"sharpness": 3}}'
    (tmp_path / "mine.json").write_text(text, encoding="utf-8")
    assert list(read_own_presets(tmp_path)) == ["mine"]
