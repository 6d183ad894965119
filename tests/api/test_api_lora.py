"""Calls of the LoRA endpoint: every field arrives in the plan, and what is wrong is said on the caller's own field."""

import base64
import hashlib
import io
from dataclasses import replace

import pytest
from PIL import Image

from engine import Catalog, Checkpoint, Size
from engine.catalog import Weights
from engine.library import ROOT
from engine.places import read_catalog
from engine.studio_plan import TileSizes

LORA = "fal-ai/lora"
LEAST = {"model_name": "pocket", "prompt": "a red star"}


def file_of(colour: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (16, 8), colour).save(target, "PNG")
    return target.getvalue()


def address(colour: str) -> str:
    return "data:image/png;base64," + base64.b64encode(file_of(colour)).decode()


def name(colour: str) -> str:
    return hashlib.sha256(file_of(colour)).hexdigest()


def run(client, **changes):
    return client.post(f"/{LORA}", json={**LEAST, **changes})


def plan_of(face):
    """The plan of the last job."""
    image = face.jobs.history(owner="local")[0]
    return face.jobs.job(image.job_id, owner="local").plan


def faults(answer):
    assert answer.status_code == 422, answer.text
    return [".".join(map(str, item["loc"][1:])) for item in answer.json()["detail"]]


@pytest.fixture
def face(face):
    """A studio with the pocket model and its helpers, a ControlNet and an adapter by name."""
    shipped = read_catalog(ROOT / "models")
    files = [
        *shipped.loras,
        *shipped.controls,
        shipped.weights("clip_vision", "pocket_sight", ""),
        Weights(name="star.safetensors", path=face.data_dir, kind="embedding"),
    ]
    catalog = Catalog([Checkpoint(name="toy", path=face.data_dir), *shipped.checkpoints], files)
    face.library = replace(face.library, catalog=catalog)
    return face


def test_the_least_is_fals_defaults(client, face):
    answer = run(client, seed=7)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"images", "seed", "has_nsfw_concepts"}
    assert body["seed"] == 7
    plan = plan_of(face)
    assert plan.request.seed == 7
    assert (plan.size, plan.sample_size) == (Size(1024, 1024), Size(128, 128))
    assert plan.output_format == "png"
    assert (plan.sampling.sampler, plan.sampling.num_inference_steps) == ("Euler", 30)
    assert (plan.guidance.guidance_scale, plan.guidance.sharpness) == (7.5, 0)
    assert plan.images[0].positive == ("a red star",)
    assert plan.studio.tiles is None
    assert plan.clip_skip == 2


def test_seeds_count_up_and_the_first_is_told(client):
    body = run(client, seed=2**40, num_images=3).json()
    assert (body["seed"], len(body["images"])) == (2**40, 3)
    drawn = run(client).json()["seed"]
    assert 0 <= drawn < 2**53


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ("portrait_16_9", Size(576, 1024)),
        ("square", Size(512, 512)),
        ({"width": 1280, "height": 720}, Size(1280, 720)),
        ({}, Size(512, 512)),
    ],
)
def test_sizes_have_names_or_numbers(client, face, asked, size):
    assert run(client, image_size=asked).status_code == 200
    assert plan_of(face).size == size


def test_what_is_asked_for_is_what_is_planned(client, face):
    answer = run(
        client,
        prompt_weighting=True,
        loras=[{"path": "pocket_dots.safetensors", "scale": 3.5}],
        embeddings=[{"path": "star.safetensors", "tokens": ["<star>"]}],
        controlnets=[
            {
                "path": "pocket_edges",
                "image_url": address("red"),
                "mask_url": address("white"),
                "conditioning_scale": 0.7,
                "start_percentage": 0.1,
                "end_percentage": 0.6,
                "ip_adapter_index": 0,
            }
        ],
        controlnet_guess_mode=True,
        ip_adapter=[
            {
                "path": "pocket_image_prompt.safetensors",
                "ip_adapter_image_url": [address("blue"), address("green")],
                "ip_adapter_mask_url": address("black"),
                "scale": 0.4,
                "scale_json": {"up": 1.0},
                "unconditional_noising_factor": 0.2,
                "image_projection_shortcut": False,
            }
        ],
        scheduler="DDIM",
        eta=0.3,
        timesteps={"method": "array", "array": [900, 500, 100]},
        prediction_type="v_prediction",
        rescale_betas_snr_zero=True,
        clip_skip=1,
        guidance_scale=0,
        image_size={"width": 2048, "height": 1024},
        tile_width=1024,
        tile_height=1024,
        tile_stride_width=512,
        tile_stride_height=512,
        debug_latents=True,
        debug_per_pass_latents=True,
        image_format="jpeg",
    )
    assert answer.status_code == 200, answer.text
    plan = plan_of(face)
    studio = plan.studio
    assert [(it.name, it.scale) for it in plan.loras] == [("pocket_dots.safetensors", 3.5)]
    assert studio.embeddings[0].tokens == ("<star>",)
    net, adapter = studio.nets[0], studio.adapters[0]
    assert (net.image, net.mask) == (name("red"), name("white"))
    assert (net.weight, net.start, net.stop, net.adapter) == (0.7, 0.1, 0.6, 0)
    assert adapter.images == (name("blue"), name("green"))
    assert adapter.mask == name("black")
    assert (adapter.scale, adapter.layer_scales) == (0.4, '{"up": 1.0}')
    assert (adapter.noising, adapter.has_shortcut) == (0.2, False)
    assert studio.encoder.name == "pocket_sight"
    assert studio.is_guessing
    assert studio.is_weighted
    assert (studio.scheduler, studio.eta) == ("DDIM", 0.3)
    assert (studio.timesteps, studio.sigmas) == ((900, 500, 100), ())
    assert plan.sampling.num_inference_steps == 3
    assert (studio.prediction_type, studio.is_zero_snr) == ("v_prediction", True)
    assert plan.clip_skip == 3
    assert plan.guidance.guidance_scale == 1
    assert plan.sample_size == Size(256, 128)
    assert studio.tiles == TileSizes(width=128, height=128, stride_width=64, stride_height=64)
    assert studio.keeps_latents
    assert studio.keeps_passes
    assert plan.output_format == "jpeg"


def test_defaults_of_lists_are_looked_over(client, face):
    empty = {"method": "default", "array": []}
    kept = {"method": "default", "array": [3.0, 1.0]}
    assert run(client, timesteps=empty, sigmas=kept).status_code == 200
    assert plan_of(face).studio.sigmas == ()


CONTROL = {"path": "pocket_edges", "image_url": address("red")}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_name": "nothing"}, "model_name"),
        ({"image_size": {"width": 1001, "height": 1000}}, "image_size"),
        ({"loras": [{"path": "nothing"}]}, "loras.0.path"),
        ({"loras": [{"path": "../secret"}]}, "loras.0.path"),
        ({"loras": [{"path": "x", "scale": 5}]}, "loras.0.scale"),
        ({"unet_name": "nothing"}, "unet_name"),
        ({"controlnets": [{**CONTROL, "path": "nothing"}]}, "controlnets.0.path"),
        ({"controlnets": [{**CONTROL, "image_url": "gone"}]}, "controlnets.0.image_url"),
        ({"controlnets": [{**CONTROL, "end_percentage": 0}]}, "controlnets.0.end_percentage"),
        ({"controlnets": [{**CONTROL, "ip_adapter_index": 0}]}, "ip_adapter"),
        (
            {
                "ip_adapter": [
                    {
                        "path": "pocket_image_prompt.safetensors",
                        "ip_adapter_image_url": [address("red"), "gone"],
                    }
                ]
            },
            "ip_adapter.0.ip_adapter_image_url.1",
        ),
        ({"ic_light_model_url": "x"}, "ic_light_image_url"),
        ({"ic_light_image_url": address("red")}, "ic_light_model_url"),
        ({"timesteps": {"method": "array", "array": [1, 2]}}, "timesteps.array"),
        ({"timesteps": {"method": "array", "array": []}}, "timesteps.array"),
        ({"sigmas": {"method": "array", "array": [1.0, 1.0]}}, "sigmas.array"),
        (
            {
                "timesteps": {"method": "array", "array": [2, 1]},
                "sigmas": {"method": "array", "array": [2.0, 1.0]},
            },
            "sigmas.array",
        ),
        ({"tile_width": 128, "tile_stride_width": 256}, "tile_stride_width"),
        ({"scheduler": "none such"}, "scheduler"),
        ({"clip_skip": 3}, "clip_skip"),
    ],
)
def test_what_is_wrong_is_said_on_its_field(client, changes, field):
    assert faults(run(client, **changes)) == [field]


def test_what_must_be_given(client):
    assert faults(client.post(f"/{LORA}", json={})) == ["model_name", "prompt"]
