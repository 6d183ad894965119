"""Plans equal what Fooocus settles for the same requests (golden/requests.json)."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import Catalog, Checkpoint, Library, Plan, TextRequest, plan
from engine.catalog import Weights
from engine.prompt.styles import Style
from engine.records.record import log_rows
from engine.stages.metadata import record_of
from tests.golden_data import golden_json

GOLDEN = golden_json("requests.json")
CASES = GOLDEN.get("cases", {})
SDXL = {
    "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
    "model.diffusion_model.label_emb.0.0.weight": [1280, 2816],
}


def write_header(path: Path) -> Path:
    """A safetensors file of the SDXL layout that holds names and shapes alone."""
    header = {
        key: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for key, shape in SDXL.items()
    }
    data = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(data).to_bytes(8, "little") + data)
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("models")
    names = {GOLDEN["defaults"]["base_model"]} | {
        case["request"].get(key, "None") for case in CASES.values() for key in ("refiner",)
    }
    return Library(
        catalog=Catalog(
            [Checkpoint(name=name, path=write_header(folder / name)) for name in sorted(names)],
            [Weights(name=name, path=folder / name, kind="lora") for name in GOLDEN["lora_files"]],
        ),
        styles={
            name: Style(name=name, prompt=texts[0], negative_prompt=texts[1])
            for name, texts in GOLDEN["styles"].items()
        },
        wildcards={
            name: tuple(line for line in text.splitlines() if line)
            for name, text in GOLDEN["wildcards"].items()
        },
        expand=lambda prompt, seed: f"{prompt}, EXPANDED {seed % 1000}" if prompt else "",
    )


def request_of_case(case: dict[str, Any]) -> TextRequest:
    """Write a golden request in our fields."""
    asked = {**GOLDEN["defaults"], **case["request"]}
    overwritten = (asked["ow_width"], asked["ow_height"])
    size = "{}x{}".format(*overwritten) if min(overwritten) > 0 else asked["aspect"].split()[0]
    freeu = {name: asked[name] for name in ("b1", "b2", "s1", "s2")}
    return TextRequest.parse(
        {
            "prompt": asked["prompt"],
            "negative_prompt": asked["negative_prompt"],
            "styles": asked["styles"],
            "performance": asked["performance"],
            "guidance_scale": asked["cfg"],
            "sharpness": asked["sharpness"],
            "aspect_ratio": size,
            "num_images": asked["image_number"],
            "loras": [
                {"path": name, "scale": weight}
                for is_on, name, weight in asked["loras"]
                if is_on and name != "None"
            ],
            "refiner_model": asked["refiner"],
            "refiner_switch": asked["refiner_switch"],
            "seed": asked["seed"],
            "advanced": {
                "base_model": asked["base_model"],
                "refiner_swap_method": asked["swap_method"],
                "refiner_switch_step": asked["ow_switch"] if asked["ow_switch"] > 0 else None,
                "sampler": asked["sampler"],
                "scheduler": asked["scheduler"],
                "adaptive_cfg": asked["adaptive"],
                "adm_scaler_positive": asked["adm_pos"],
                "adm_scaler_negative": asked["adm_neg"],
                "adm_scaler_end": asked["adm_end"],
                "clip_skip": asked["clip_skip"],
                "num_inference_steps": asked["ow_step"] if asked["ow_step"] > 0 else None,
                "freeu": freeu if asked["freeu"] else None,
                "seed_increment": not asked["disable_seed_increment"],
                "wildcards_in_order": asked["wildcards_in_order"],
                "compat": "fooocus",
            },
        }
    )


def encoded(made: Plan) -> list[list[Any]]:
    """The texts with the count of those that are pooled: all positives, then all negatives."""
    positives = [[list(image.positive), image.pooled_positive] for image in made.images]
    negatives = [[list(image.negative), image.pooled_negative] for image in made.images]
    return positives + (negatives if made.guidance.needs_negative else [])


def diffusion(made: Plan) -> list[dict[str, Any]]:
    """What each image is sampled with, by the names of the golden file."""
    return [
        {
            "steps": made.sampling.num_inference_steps,
            "width": made.size.width,
            "height": made.size.height,
            "seed": image.seed,
            "sampler": made.sampling.sampler,
            "denoise": made.sampling.strength,
            "cfg": made.guidance.guidance_scale,
            "swap_method": made.request.advanced.refiner_swap_method,
            "sharpness": made.guidance.sharpness,
            "adaptive": made.guidance.adaptive_cfg,
            "adm_pos": made.size_conditioning.positive_scale,
            "adm_neg": made.size_conditioning.negative_scale,
            "adm_end": made.size_conditioning.end,
        }
        for image in made.images
    ]


@pytest.mark.parametrize("name", CASES)
def test_plans_equal_fooocus_golden(name: str, library: Library) -> None:
    case = CASES[name]
    made = plan(request_of_case(case), library, seed=0)
    assert encoded(made) == case["encoded"]
    expected = [{**run, **run["settings"]} for run in case["diffusion"]]
    ours = diffusion(made)
    assert ours == [
        {key: run[key] for key in mine} for mine, run in zip(ours, expected, strict=True)
    ]
    refresh = case["refresh"][0]
    assert made.base_model == refresh["base"]
    assert (made.refiner.model if made.refiner else "None") == refresh["refiner"]
    assert [[Path(item.name).name, item.scale] for item in made.loras] == refresh["loras"]
    assert made.clip_skip == case["clip_skip"][0]
    if made.refiner:
        assert made.refiner.switch == case["diffusion"][0]["switch"]
    rows = {key: value for _, key, value in case["logs"][0]["metadata"]}
    assert made.sampling.scheduler == rows["scheduler"]
    for image, log in zip(made.images, case["logs"], strict=True):
        record = record_of(replace(made, save_metadata=False), image, version=rows["version"])
        assert [list(row) for row in log_rows(record)] == log["metadata"]
