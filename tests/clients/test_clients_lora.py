"""The LoRA endpoint through fal's own clients: its example as it is, and a call that uses every field."""

import io
import json
import shutil
from collections.abc import Iterator
from typing import Any

import fal_client
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as read_tensors
from safetensors.torch import save

from api.wire.lora import LoraInput
from pocket.draw import draw
from pocket.measure_partners import edge_overlap
from pocket.score import read
from pocket.world import Scene
from tests.clients.running import Node, Studio, serving
from tests.clients.test_clients_javascript import AGES, output
from tests.clients.test_clients_pocket import SEEDS, painted
from tests.test_app import ROOT, get

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # the client closes none
]
LORA = "fal-ai/lora"
NAMED = SEEDS[LORA]["model_name"]
STAR = Scene(shape="star", colour="red", background="blue", size="large")
HEART = Scene(shape="heart", colour="green", background="yellow", size="large")


class LoraStudio(Studio):
    """A real studio where the example's base model is another name of the pocket model."""

    def _command(self) -> list[str]:
        return [
            *super()._command(),
            *("--models-dir", str(self.folder / "models"), "--alias", f"{NAMED}=pocket"),
            *("--allow-private-urls", "--allow-downloads", "127.0.0.1"),
        ]


@pytest.fixture(scope="module")
def lora_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("lora") / "studio"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "pocket").symlink_to(ROOT / "models" / "pocket")
    shutil.copytree(ROOT / "models" / "pocket" / "unet", folder / "models" / "unet" / "same")
    studio = LoraStudio(folder, is_real=True)
    studio.start()
    yield studio
    studio.stop()


def picture_of(scene: Scene) -> bytes:
    target = io.BytesIO()
    pixels = draw([scene], np.random.default_rng(3), scale=4)[0]
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def white() -> bytes:
    target = io.BytesIO()
    Image.new("L", (512, 512), 255).save(target, "PNG")
    return target.getvalue()


def two_words() -> bytes:
    """A textual inversion that means what the pocket model's own words *heart* and *green* mean."""
    from transformers import AutoModel, AutoTokenizer

    sides = {}
    for key, part in (("clip_l", ""), ("clip_g", "_2")):
        tokenizer = AutoTokenizer.from_pretrained(ROOT / "models" / "pocket" / f"tokenizer{part}")
        weights = AutoModel.from_pretrained(
            ROOT / "models" / "pocket" / f"text_encoder{part}", dtype=torch.float32
        )
        ids = [
            tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("green", "heart")
        ]
        sides[key] = weights.get_input_embeddings().weight.detach()[ids].clone()
    return save(sides)


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    """Serve pictures and weights; gives the address."""
    loras = ROOT / "models" / "pocket" / "loras"
    served = {
        "/star.png": picture_of(STAR),
        "/heart.png": picture_of(HEART),
        "/white.png": white(),
        "/dots.safetensors": (loras / "pocket_dots.safetensors").read_bytes(),
        "/words.safetensors": two_words(),
    }

    with serving(served) as address:
        yield address


def small(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((128, 128), Image.Resampling.BOX))


def test_the_example_is_painted_for_every_client(lora_studio: Studio, node: Node, point) -> None:
    point(lora_studio.address)
    asked = {**SEEDS[LORA], "seed": 7}
    result = fal_client.subscribe(LORA, arguments=asked, with_logs=True)
    assert set(result) == {"images", "seed", "has_nsfw_concepts"}
    assert (result["seed"], result["has_nsfw_concepts"]) == (7, [False])
    picture = painted(result)
    assert picture.shape == (1024, 1024, 3)
    assert result["images"][0]["content_type"] == "image/jpeg"
    for age in AGES:
        found = node.call(lora_studio.address, age, "run", endpoint=LORA, input=asked)
        assert np.array_equal(painted(output(found["value"], age)), picture)


def test_the_example_as_it_is_draws_a_seed(lora_studio: Studio, point) -> None:
    point(lora_studio.address)
    result = fal_client.subscribe(LORA, arguments=SEEDS[LORA])
    assert isinstance(result["seed"], int)
    again = fal_client.subscribe(LORA, arguments={**SEEDS[LORA], "seed": result["seed"]})
    assert np.array_equal(painted(result), painted(again))


def everything(files: str) -> dict[str, Any]:
    """A call that uses every field but those of SD 1.5 alone (IC-Light) and of faces (insightface)."""
    return {
        "model_name": NAMED,
        "unet_name": "same",
        "variant": "fp16",
        "prompt": "a large (<s0>:1.1) <s1>, yellow background",
        "negative_prompt": "blue",
        "prompt_weighting": True,
        "loras": [{"path": f"{files}/dots.safetensors", "scale": 0.3}],
        "embeddings": [{"path": f"{files}/words.safetensors", "tokens": ["<s0>", "<s1>"]}],
        "controlnets": [
            {
                "path": "pocket_edges",
                "config_url": f"{files}/config.json",
                "variant": "fp16",
                "image_url": f"{files}/heart.png",
                "mask_url": f"{files}/white.png",
                "conditioning_scale": 0.2,
                "start_percentage": 0.1,
                "end_percentage": 0.5,
            }
        ],
        "controlnet_guess_mode": False,
        "ip_adapter": [
            {
                "path": "pocket_image_prompt.safetensors",
                "ip_adapter_image_url": [f"{files}/heart.png"],
                "ip_adapter_mask_url": f"{files}/white.png",
                "model_subfolder": "sdxl_models",
                "weight_name": "adapter.safetensors",
                "scale": 0.3,
                "scale_json": {"down": 0.3, "mid": 0.3, "up": 0.3},
                "unconditional_noising_factor": 0.1,
                "image_projection_shortcut": True,
            }
        ],
        "image_encoder_path": "pocket_sight",
        "image_encoder_subfolder": "models/image_encoder",
        "image_encoder_weight_name": "model.safetensors",
        "seed": 5,
        "image_size": {"width": 1024, "height": 1024},
        "num_inference_steps": 20,
        "guidance_scale": 5,
        "clip_skip": 0,
        "scheduler": "DDIM",
        "timesteps": {"method": "default", "array": []},
        "sigmas": {"method": "default", "array": []},
        "prediction_type": "epsilon",
        "rescale_betas_snr_zero": False,
        "image_format": "png",
        "num_images": 2,
        "enable_safety_checker": False,
        "tile_width": 4096,
        "tile_height": 4096,
        "tile_stride_width": 2048,
        "tile_stride_height": 2048,
        "eta": 0.1,
        "debug_latents": True,
        "debug_per_pass_latents": True,
    }


def test_a_call_that_uses_every_field(lora_studio: Studio, node: Node, point, files: str) -> None:
    point(lora_studio.address)
    asked = everything(files)
    left = {name for name in LoraInput.model_fields if not name.startswith("ic_light")}
    assert left - set(asked) == {"advanced"}
    result = fal_client.subscribe(LORA, arguments=asked)
    assert (result["seed"], len(result["images"])) == (5, 2)
    pictures = [painted({"images": [image]}) for image in result["images"]]
    assert not np.array_equal(*pictures)
    seen = read(small(pictures[0]))
    assert (seen.colour, seen.background) == ("green", "yellow")
    latents = read_tensors(get(result["debug_latents"]["url"])[1])["latents"]
    passes = read_tensors(get(result["debug_per_pass_latents"]["url"])[1])
    assert latents.shape == (2, 4, 16, 16)
    assert passes["latents"].shape == (2, 20, 4, 16, 16)
    found = node.call(lora_studio.address, "new", "run", endpoint=LORA, input=asked)["value"]
    again = [painted({"images": [image]}) for image in found["data"]["images"]]
    assert all(map(np.array_equal, again, pictures))


def test_a_drawing_steers(lora_studio: Studio, point, files: str) -> None:
    point(lora_studio.address)
    aside = Scene(shape="star", colour="red", background="blue", size="medium", place="left")
    followed = draw([aside], np.random.default_rng(3))[0]
    edges = outlines(followed)
    asked = {"model_name": "pocket", "prompt": "a red star on a blue background", "seed": 3}
    net = {"path": "pocket_edges", "image_url": data_uri(edges)}
    free = painted(fal_client.subscribe(LORA, arguments=asked))
    led = painted(fal_client.subscribe(LORA, arguments={**asked, "controlnets": [net]}))
    assert edge_overlap(small(led), followed) > 2 * edge_overlap(small(free), followed)


def outlines(picture: np.ndarray) -> np.ndarray:
    """Draw the outlines as the pocket model's ControlNet knows them."""
    from engine.conditioning.preprocess.pyra_canny import pyra_canny

    return pyra_canny(picture, low=64, high=128)


def data_uri(pixels: np.ndarray) -> str:
    import base64

    target = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(target, "PNG")
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_name": "nothing-here"}, "model_name"),
        ({"loras": [{"path": "../../etc/passwd"}]}, "loras"),
        ({"sigmas": {"method": "array", "array": [1.0, 2.0]}}, "sigmas"),
    ],
)
def test_what_is_wrong_reaches_the_client_with_its_field(
    lora_studio: Studio, node: Node, changes: dict[str, Any], field: str
) -> None:
    asked = {"endpoint": LORA, "input": {**SEEDS[LORA], **changes}}
    error = node.call(lora_studio.address, "new", "run", **asked)["error"]
    assert error["is"] == ["ApiError", "ValidationError"]
    assert field in json.dumps(error["fields"])
