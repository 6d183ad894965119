"""The image prompt in training is the one that the engine reads from the file: tokens, both formulas, the pooled share."""

import copy

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402

from engine.conditioning.image_attention import (  # noqa: E402
    ImagePrompt,
    add_pooled,
    attend_images,
    attention_kwargs,
)
from engine.models.image_encoders import EncodedImage  # noqa: E402
from engine.models.ip_adapters import load_ip_adapter, read_negative  # noqa: E402
from pocket.grounds import GROUND_FIELDS, solve  # noqa: E402
from pocket.image_prompt import REFERENCE_WIDTH, Adapter, ImageAttention, Images  # noqa: E402
from pocket.parts import make_unet  # noqa: E402
from pocket.sight import SIDE, make_image_encoder, quick_thumbnails, shown, thumbnail  # noqa: E402
from pocket.train_image_prompt import halves, other_in, random_weights  # noqa: E402
from pocket.train_text import FIELDS  # noqa: E402
from pocket.world import Scene, seen_scenes  # noqa: E402

SCENE = Scene("star", "red", "blue", "large", "left", "striped", "plain")
WEIGHT = 0.7


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An adapter with weights that float16 holds, its UNet, the same UNet for the engine, and the folder."""
    torch.manual_seed(0)
    unet = make_unet().eval()
    for name, parameter in unet.named_parameters():
        if name.endswith(("to_out.0.weight", "proj_out.weight")):
            torch.nn.init.normal_(parameter, std=0.1)
    plain = copy.deepcopy(unet)
    unet.set_attn_processor(ImageAttention())
    adapter = Adapter(unet)
    torch.nn.init.normal_(adapter.pooled_proj.ground, std=0.1)
    adapter.load_state_dict({k: v.half().float() for k, v in adapter.state_dict().items()})
    folder = tmp_path_factory.mktemp("adapter")
    adapter.save(folder)
    return unet, adapter, plain, folder


@torch.no_grad()
@pytest.mark.parametrize("formula", ["joint", "separate"])
def test_the_engine_follows_the_file_as_training_did(trained, formula):
    unet, adapter, plain, folder = trained
    encoded = EncodedImage(torch.randn(1, 65, 128), torch.randn(1, 96))
    call = (torch.randn(1, 4, 8, 8), torch.tensor([700]), torch.randn(1, 77, 160))
    told = {"text_embeds": torch.zeros(1, 96), "time_ids": torch.full((1, 6), 128.0)}
    tokens = adapter.image_proj(encoded.hidden_states)
    weights, joint = torch.tensor([WEIGHT]), formula == "joint"
    images = Images([tokens, tokens * 0.5], [weights] * 2, torch.zeros(1, 96), joint)
    expected = unet(*call, added_cond_kwargs=told, cross_attention_kwargs={"images": images}).sample

    attend_images(plain)
    loaded = load_ip_adapter(folder / "adapter.safetensors", plain)
    assert torch.allclose(loaded.project(encoded), tokens, atol=1e-4)
    negative = loaded.attend(read_negative(folder / "negative.safetensors"))
    row = [
        (
            ImagePrompt(
                positive=loaded.attend(part),
                negative=negative,
                weight=WEIGHT,
                formula=formula,
                reference_width=loaded.reference_width,
            ),
            False,
        )
        for part in (tokens, tokens * 0.5)
    ]
    told_engine = attention_kwargs([row])
    actual = plain(*call, added_cond_kwargs=told, cross_attention_kwargs=told_engine).sample
    without = plain(*call, added_cond_kwargs=told).sample
    assert torch.allclose(actual, expected, atol=1e-4)
    assert (actual - without).abs().max() > 1e-3


def test_the_file_has_the_layout_of_plus_files_and_its_reference_width(trained):
    with safe_open(trained[3] / "adapter.safetensors", framework="pt") as reader:
        keys = set(reader.keys())
        assert reader.metadata()["reference_width"] == str(REFERENCE_WIDTH)
    assert {"image_proj.latents", "image_proj.layers.1.0.to_kv.weight"} <= keys
    layers = {int(key.split(".")[1]) for key in keys if key.startswith("ip_adapter.")}
    assert sorted(layers) == list(range(1, 2 * len(layers), 2))
    assert "negative" not in keys


def test_both_thumbnails_are_what_the_encoder_takes():
    picture = np.full((112, 144, 3), 200, np.uint8)
    assert (thumbnail(picture) == quick_thumbnails(picture[None])[0]).all()
    seen = shown(quick_thumbnails(picture[None]))
    assert make_image_encoder()(seen).image_embeds.shape == (1, 96)
    assert seen.shape == (1, 3, SIDE, SIDE)


def test_halves_share_the_scene_between_them():
    rng = np.random.default_rng(0)
    for _ in range(40):
        thing, ground = halves(rng, SCENE)
        assert (thing.shape, thing.colour, thing.place) == ("star", "red", "left")
        assert ground.background == "blue"
        assert thing.colour != thing.background
        assert ground.colour != ground.background


def test_of_two_images_the_engine_joins_the_halves_that_training_joined(trained):
    _, adapter, plain, folder = trained
    projection, loaded = (
        adapter.pooled_proj,
        load_ip_adapter(folder / "adapter.safetensors", plain),
    )
    shown = [EncodedImage(torch.randn(1, 65, 128), torch.randn(1, 96)) for _ in range(2)]
    tokens = loaded.attend(torch.zeros(1, 8, 160))
    said = [loaded.pooled(image) for image in shown]
    images = [
        ImagePrompt(
            positive=tokens, negative=tokens, weight=WEIGHT, pooled=it, ground=loaded.ground(it)
        )
        for it in said
    ]
    expected = projection.joined([image.image_embeds for image in shown])
    nothing = torch.zeros(1, 96)
    both = add_pooled(nothing, [(image, False) for image in images])
    assert torch.allclose(both, expected, atol=1e-4)
    alone = add_pooled(nothing, [(images[0], False)])
    assert torch.equal(alone, said[0] * WEIGHT)
    assert not torch.allclose(both, alone, atol=1e-1)


def test_the_ground_is_found_in_sums():
    source, rng = seen_scenes(np.random.default_rng(1)), np.random.default_rng(2)
    scenes = [next(source) for _ in range(600)]
    said = {f: rng.standard_normal((len(values), 40)) for f, values in FIELDS.items()}
    parts = {
        field: np.stack([said[field][values.index(getattr(scene, field))] for scene in scenes])
        for field, values in FIELDS.items()
    }
    parts = {field: part - part.mean(0) for field, part in parts.items()}
    pooled, grounds = sum(parts.values()), sum(parts[field] for field in GROUND_FIELDS)
    found = pooled @ solve(pooled, scenes).T
    assert np.square(found - grounds).mean() < 0.01 * np.square(grounds).mean()


def test_another_scene_differs_only_in_what_is_named():
    rng = np.random.default_rng(0)
    others = [other_in(rng, SCENE, frozenset({"shape"})) for _ in range(40)]
    assert len({other.shape for other in others}) == 6
    assert {(o.colour, o.background, o.place) for o in others} == {("red", "blue", "left")}


def test_most_weights_are_one():
    weights = random_weights(np.random.default_rng(0), 2000)
    assert 0.55 < (weights == 1).mean() < 0.75
    assert weights.min() > 0
    assert weights.max() < 1.31
