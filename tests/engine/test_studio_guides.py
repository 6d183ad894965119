"""ControlNets and IP-Adapters of the LoRA studio: diffusers' own pipelines paint the same, and every setting acts."""

import hashlib
import importlib.util
import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import InvalidRequest, Library, ModelNotFound, TextRequest
from engine.begin import begin_image
from engine.catalog import Catalog, Weights
from engine.engine import create
from engine.events import Failed, ImageReady
from engine.library import ROOT
from engine.loop import step
from engine.models.face_readers import FoundFace, load_face_reader
from engine.palette import Palette
from engine.places import read_catalog
from engine.sampling.noise import draw_noise, seeded_generator
from engine.settle import plan
from engine.starts import Beginning
from engine.studio_guides import _ends
from engine.warm import warm_up
from tests.stock_pictures import difference
from tests.stock_schedulers import stock_scheduler
from tests.tiny_adapters import (
    EMBED_WIDTH,
    ENCODER_WIDTH,
    FACE_WIDTH,
    SIDE,
    adapter_shapes,
    base_shapes,
    face_lora_shapes,
    face_plus_shapes,
    face_shapes,
    nested,
    plus_shapes,
    random_tensors,
    save_adapter,
    tiny_encoder,
)
from tests.toy_controls import toy_controlnet, toy_union

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

POCKET = ROOT / "models" / "pocket"
WORDS = "a large red star, blue background"
STEPS, GUIDANCE, SEED = 6, 5.0, 5
EXACT = 1e-4
NET = "pocket_edges"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Mapping[str, Path]:
    """Drawings and masks of sizes that nobody paints at, and two pictures in colour."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = np.zeros((150, 210, 3), np.uint8)
    lines[30:33, 40:160] = lines[110:113, 40:160] = 255
    lines[30:113, 40:43] = lines[30:113, 157:160] = 255
    circle = np.hypot(*(np.mgrid[:128, :128] - 64.0))
    half = np.zeros((60, 90), np.uint8)
    half[:, :45] = 255
    generator = np.random.default_rng(3)
    made = {
        "box": lines,
        "circle": np.repeat(((np.abs(circle - 40) < 2) * 255).astype(np.uint8)[..., None], 3, 2),
        "left": half,
        "right": 255 - half,
        "white": np.full((50, 50), 255, np.uint8),
        "black": np.zeros((50, 50), np.uint8),
        "red": np.array((220, 30, 20)) + generator.integers(-20, 20, (40, 60, 3)),
        "blue": np.array((30, 60, 210)) + generator.integers(-20, 20, (70, 50, 3)),
    }
    paths = {}
    for name, pixels in made.items():
        paths[name] = folder / f"{name}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(paths[name])
    return paths


def sent(name: str) -> str:
    """Give the name by which a picture goes with a job."""
    return hashlib.sha256(name.encode()).hexdigest()


def named(item):
    """Bring the pictures of a net or an adapter to the names of a job."""
    return {
        key: sent(value)
        if key in ("image", "mask")
        else [sent(name) for name in value]
        if key == "images"
        else value
        for key, value in item.items()
    }


def settled(catalog, base, size="1024x1024", **studio):
    asked = {
        "prompt": WORDS,
        "num_images": 1,
        "aspect_ratio": size,
        "advanced": {"base_model": base},
        "studio": {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, **studio},
    }
    return plan(TextRequest.parse(asked), Library(catalog=catalog), seed=SEED)


@torch.inference_mode()
def latents_of(model, catalog, job, pictures):
    files = {sent(name): path for name, path in pictures.items()}
    followed = model.guides.follow(catalog, job, files)
    image = begin_image(model, job.images[0], Beginning(plan=job), followed)
    while not image.is_done:
        step([image])
    return image.latents


def told(stock):
    """Give the words as diffusers' pipelines take them."""
    embeds, negative, pooled, negative_pooled = stock.encode_prompt(WORDS, negative_prompt="")
    return {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": negative,
        "pooled_prompt_embeds": pooled,
        "negative_pooled_prompt_embeds": negative_pooled,
    }


# ControlNets, on the pocket model


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return read_catalog(ROOT / "models")


@pytest.fixture(scope="module")
def model(catalog):
    torch.set_num_threads(1)
    return warm_up(catalog.checkpoint("pocket"), torch.device("cpu"), lambda name: None)


@pytest.fixture(scope="module")
def painted(catalog, model, pictures):
    """Paint with nets that differ from a box in the middle only in what is said."""

    def paint(*nets, **studio):
        controls = [named({"path": NET, "image": "box", **net}) for net in nets]
        return latents_of(
            model, catalog, settled(catalog, "pocket", controlnets=controls, **studio), pictures
        )

    return paint


@pytest.fixture(scope="module")
def stock():
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(
        POCKET, use_safetensors=True, dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def stock_controlled(stock, pictures):
    """Paint with diffusers' own pipeline."""
    from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline

    net = ControlNetModel.from_pretrained(POCKET / "controlnet" / NET, use_safetensors=True)

    def paint(drawings, guidance=GUIDANCE, **more):
        is_one = isinstance(drawings, str)
        images = [Image.open(pictures[name]) for name in ([drawings] if is_one else drawings)]
        pipe = StableDiffusionXLControlNetPipeline(
            **{name: part for name, part in stock.components.items() if name != "scheduler"},
            scheduler=stock_scheduler("Euler"),
            controlnet=net if is_one else [net] * len(images),
            add_watermarker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe(
            **told(stock),
            image=images[0] if is_one else images,
            height=128,
            width=128,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            latents=draw_noise(seeded_generator(SEED), (1, 4, 16, 16)),
            output_type="latent",
            **more,
        ).images

    return paint


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"conditioning_scale": 0.6}, {"controlnet_conditioning_scale": 0.6}),
        (
            {"start_percentage": 0.2, "end_percentage": 0.7},
            {"control_guidance_start": 0.2, "control_guidance_end": 0.7},
        ),
        (
            {"start_percentage": 1 / 3, "end_percentage": 2 / 3},
            {"control_guidance_start": 1 / 3, "control_guidance_end": 2 / 3},
        ),
        ({"end_percentage": 0.1}, {"control_guidance_end": 0.1}),
    ],
    ids=["plain", "weight", "ends", "whole steps", "never"],
)
def test_a_net_paints_what_diffusers_paints(painted, stock_controlled, ours, theirs):
    expected = stock_controlled("box", **theirs)
    assert difference(painted(ours), expected) < EXACT


def test_guessing_paints_what_diffusers_paints(painted, stock_controlled):
    ours = painted({"conditioning_scale": 0.8}, controlnet_guess_mode=True)
    expected = stock_controlled("box", guess_mode=True, controlnet_conditioning_scale=0.8)
    assert difference(ours, expected) < EXACT
    assert difference(ours, painted({"conditioning_scale": 0.8})) > 1e-2


def test_two_nets_paint_what_diffusers_paints(painted, stock_controlled):
    ours = painted({"conditioning_scale": 0.5}, {"image": "circle", "start_percentage": 0.4})
    expected = stock_controlled(
        ["box", "circle"],
        controlnet_conditioning_scale=[0.5, 1.0],
        control_guidance_start=[0.0, 0.4],
        control_guidance_end=[1.0, 1.0],
    )
    assert difference(ours, expected) < EXACT


def test_a_mask_says_where_a_net_acts(painted):
    free, whole = painted(), painted({})
    assert torch.equal(painted({"mask": "white"}), whole)
    assert torch.equal(painted({"mask": "black"}), free)
    before = painted(num_inference_steps=1)
    left, right = (
        (painted({"mask": mask}, num_inference_steps=1) - before).abs().mean((0, 1, 2))
        for mask in ("left", "right")
    )
    assert float(left[:8].mean()) > 1.3 * float(right[:8].mean())
    assert float(right[8:].mean()) > 1.3 * float(left[8:].mean())


def test_a_net_of_weight_0_is_not_there(painted, catalog):
    assert torch.equal(painted({"conditioning_scale": 0.0}), painted())


@pytest.mark.parametrize("steps", [1, 4, 7, 30, 150])
def test_the_ends_are_those_of_diffusers(catalog, steps):
    from engine.sampling.listings import listing

    levels = listing("Euler", steps).levels
    for start, end in [(0, 1), (0.1, 0.3), (0.5, 0.51), (0.7, 1), (0.29, 0.58), (0, 0.001)]:
        job = settled(
            catalog,
            "pocket",
            controlnets=[
                {"path": NET, "image": sent("x"), "start_percentage": start, "end_percentage": end}
            ],
        )
        first, last = _ends(job.studio.nets[0], steps)
        ours = [
            levels.percent_to_sigma(last) <= sigma <= levels.percent_to_sigma(first)
            for sigma in levels.sigmas[:-1]
        ]
        theirs = [not (i / steps < start or (i + 1) / steps > end) for i in range(steps)]
        assert ours == theirs, (start, end)


def test_a_net_that_does_not_fit_is_an_error_on_its_field(catalog, model, pictures, tmp_path):
    other = tmp_path / "other.safetensors"
    save_adapter(other, {"ip_adapter.1": torch.zeros(1)})
    known = Catalog(
        catalog.checkpoints,
        [*catalog.loras, Weights(name=other.name, path=other, kind="controlnet")],
    )
    nets = [
        named({"path": "pocket_edges", "image": "box", "conditioning_scale": 0.0}),
        named({"path": other.name, "image": "box"}),
    ]
    job = settled(known, "pocket", controlnets=nets)
    with pytest.raises(InvalidRequest, match=r"^studio\.controlnets\.1\.path: other"):
        latents_of(model, known, job, pictures)


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_picture_that_did_not_come_is_an_error_on_its_field(painted, part):
    with pytest.raises(InvalidRequest, match=rf"^studio\.controlnets\.0\.{part}: expected"):
        painted({part: "lost"})


def test_only_a_union_has_modes(painted):
    with pytest.raises(InvalidRequest, match=r"^studio\.controlnets\.0\.mode: expected none"):
        painted({"mode": "depth"})


# IP-Adapters, on a tiny model


PACK = "pack"
"""Of face models."""
WIDTH, SIZE = 80, "320x256"
"""Of the tiny model's words, and of what it paints."""


@pytest.fixture(scope="module")
def tiny(models_dir, tmp_path_factory):
    """A catalog with a tiny model, its image encoder, all kinds of adapters, and a ControlNet."""
    from diffusers import UNet2DConditionModel

    folder = tmp_path_factory.mktemp("adapters")
    tiny_encoder().save_pretrained(folder / "tiny_clip")
    widths = [64] * 7
    projections = {
        "base": base_shapes(EMBED_WIDTH, WIDTH),
        "plus": plus_shapes(ENCODER_WIDTH, 64, WIDTH, count=5),
        "faces": face_shapes(WIDTH),
        "carrier": face_shapes(WIDTH),
        "faces_plus": face_plus_shapes(ENCODER_WIDTH, 64, WIDTH),
        "instant": plus_shapes(FACE_WIDTH, 64, WIDTH, count=16),
    }
    kinds = [
        Weights(name="tiny_clip", path=folder / "tiny_clip", kind="clip_vision"),
        Weights(name=PACK, path=folder / PACK, kind="insightface"),
    ]
    found = read_catalog(models_dir)
    unet = found.checkpoint("tiny").path / "unet"
    loaded = UNet2DConditionModel.from_pretrained(unet, use_safetensors=True)
    for seed, (name, projection) in enumerate(projections.items()):
        shapes = adapter_shapes(projection, widths, WIDTH)
        if name == "carrier":
            shapes |= face_lora_shapes(loaded)
        path = save_adapter(folder / f"{name}.safetensors", random_tensors(shapes, seed))
        kinds.append(Weights(name=path.name, path=path, kind="controlnet"))
    toy_controlnet(loaded).save_pretrained(folder / "toy")
    toy_union(loaded).save_pretrained(folder / "union")
    kinds += [
        Weights(name=name, path=folder / name, kind="controlnet") for name in ("toy", "union")
    ]
    return Catalog(found.checkpoints, kinds)


def read_face(image):
    """Read a face by the mean of a picture: nobody's models are needed to see what becomes of it."""
    red, _, blue = image.reshape(-1, 3).mean(0)
    if abs(red - blue) < 10:
        return None
    vector = np.random.default_rng(int(red)).normal(size=FACE_WIDTH).astype(np.float32)
    return FoundFace(3 * vector, np.ascontiguousarray(image[:40, :40]))


@pytest.fixture(scope="module")
def tiny_model(tiny):
    model = warm_up(tiny.checkpoint("tiny"), torch.device("cpu"), lambda name: None)
    pack = tiny.weights("insightface", PACK, "x").path
    model.guides._weights._face_readers[pack] = read_face
    return model


@pytest.fixture(scope="module")
def shown(tiny, tiny_model, pictures):
    """Paint with adapters that show a red picture where nothing else is said."""

    def paint(*adapters, **studio):
        items = [
            named({"path": "plus.safetensors", "images": ["red"], **item}) for item in adapters
        ]
        job = settled(
            tiny,
            "tiny",
            SIZE,
            ip_adapters=items,
            image_encoder_path="tiny_clip",
            **studio,
        )
        return latents_of(tiny_model, tiny, job, pictures)

    return paint


@pytest.fixture(scope="module")
def stock_shown(tiny, models_dir, pictures):
    """Paint with diffusers' own pipeline and its adapters."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.image_processor import IPAdapterMaskProcessor
    from safetensors.torch import load_file
    from transformers import CLIPImageProcessorPil

    width, height = (int(side) for side in SIZE.split("x"))

    def paint(files, images, scale, *, masks=None, faces=None, shortcut=False, **more):
        pipe = StableDiffusionXLPipeline.from_pretrained(
            models_dir / "checkpoints" / "tiny", use_safetensors=True, dtype=torch.float32
        )
        pipe.register_modules(
            image_encoder=tiny_encoder(),
            feature_extractor=CLIPImageProcessorPil(size=SIDE, crop_size=SIDE),
        )
        pipe.scheduler = stock_scheduler("Euler")
        pipe.set_progress_bar_config(disable=True)
        paths = [tiny.weights("controlnet", name, "x").path for name in files]
        pipe.load_ip_adapter([nested(load_file(path)) for path in paths], "", [""] * len(paths))
        pipe.set_ip_adapter_scale(scale)
        seen = [[Image.open(pictures[name]).convert("RGB") for name in group] for group in images]
        if faces is not None:
            told_faces = id_embeds(pictures, images[0], is_unit=faces == "unit")
            if faces == "whole":
                told_faces = told_faces[:, None]
            more["ip_adapter_image_embeds"] = [
                torch.cat([torch.zeros_like(told_faces), told_faces])
            ]
            crops = [picture.crop((0, 0, 40, 40)) for picture in seen[0]]
            projection = pipe.unet.encoder_hid_proj.image_projection_layers[0]
            states = pipe.encode_image(crops, "cpu", 1, output_hidden_states=True)
            embeds = torch.cat([it[None] for it in states[::-1]])
            projection.clip_embeds, projection.shortcut = embeds, shortcut
        else:
            more["ip_adapter_image"] = seen
        if masks is not None:
            drawn = [None if name is None else Image.open(pictures[name]) for name in masks]
            processor = IPAdapterMaskProcessor()
            more["cross_attention_kwargs"] = {
                "ip_adapter_masks": [
                    None if mask is None else processor.preprocess([mask], height, width)[None, 0]
                    for mask in drawn
                ]
            }
        latents = draw_noise(seeded_generator(SEED), (1, 4, height // 8, width // 8))
        return pipe(
            **told(pipe),
            height=height,
            width=width,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=latents,
            output_type="latent",
            **more,
        ).images

    return paint


def id_embeds(pictures, names, *, is_unit=True):
    """Give vectors of faces, (1, n, 512), as diffusers is told them."""
    found = [read_face(np.array(Image.open(pictures[name]))).vector for name in names]
    return torch.stack(
        [torch.from_numpy(it / np.linalg.norm(it) if is_unit else it) for it in found]
    )[None]


SCALES = {"down": {"block_2": 0.5}, "mid": 0.3, "up": {"block_0": [0.0, 1.0], "block_1": 0.7}}


@pytest.mark.parametrize(
    ("adapters", "scales", "masks"),
    [
        ([("plus.safetensors", ["red"])], [0.7], None),
        ([("base.safetensors", ["red"])], [1.0], None),
        ([("plus.safetensors", ["red", "blue"])], [0.7], None),
        ([("base.safetensors", ["red", "blue", "box"])], [0.7], None),
        ([("plus.safetensors", ["red"]), ("base.safetensors", ["blue"])], [0.4, 0.9], None),
        ([("plus.safetensors", ["red"])], [SCALES], None),
        ([("plus.safetensors", ["red"]), ("base.safetensors", ["blue"])], [SCALES, 0.5], None),
        ([("plus.safetensors", ["red"])], [1.0], ["left"]),
        (
            [("plus.safetensors", ["red"]), ("base.safetensors", ["blue"])],
            [{"up": 1.0}, 0.5],
            ["circle", None],
        ),
    ],
    ids=["plus", "base", "two", "three", "adapters", "layers", "mixed", "mask", "all"],
)
def test_adapters_paint_what_diffusers_paints(shown, stock_shown, adapters, scales, masks):
    ours = [
        {
            "path": path,
            "images": images,
            **(
                {"layer_scales": json.dumps(scale)} if isinstance(scale, dict) else {"scale": scale}
            ),
            **({"mask": mask} if mask else {}),
        }
        for (path, images), scale, mask in zip(
            adapters, scales, masks or [None] * len(adapters), strict=True
        )
    ]
    expected = stock_shown(
        [path for path, _ in adapters], [it for _, it in adapters], scales, masks=masks
    )
    assert difference(shown(*ours), expected) < EXACT
    assert difference(shown(), expected) > 1e-3


def test_an_adapter_that_is_off_is_not_there(shown):
    assert torch.equal(shown({"scale": 0.0}), shown())
    assert torch.equal(shown({"layer_scales": '{"up": 0}'}), shown())


def test_a_white_mask_is_none_and_a_black_one_is_off(shown):
    white = shown({"mask": "white", "images": ["red", "blue"]})
    assert difference(white, shown({"images": ["red", "blue"]})) < EXACT
    assert difference(shown({"mask": "black"}), shown()) < EXACT


@pytest.mark.parametrize("kind", ["plus.safetensors", "base.safetensors"])
def test_the_negative_side_is_shown_noise(shown, tiny, tiny_model, pictures, kind):
    none, little, much = (
        shown({"path": kind, "unconditional_noising_factor": factor}) for factor in (0.0, 0.01, 1.0)
    )
    assert torch.equal(none, shown({"path": kind}))
    assert 0 < difference(little, none) < difference(much, none)
    assert torch.equal(much, shown({"path": kind, "unconditional_noising_factor": 1.0}))


def test_the_noise_is_that_of_the_written_formula(tiny, tiny_model, pictures):
    encoder = tiny_model.guides._weights.encoder(tiny.weights("clip_vision", "tiny_clip", "x").path)
    adapter = tiny_model.guides._weights.adapter(
        tiny.weights("controlnet", "base.safetensors", "x").path
    )
    item = named({"path": "base.safetensors", "images": ["red", "blue"]})
    job = settled(
        tiny,
        "tiny",
        SIZE,
        ip_adapters=[{**item, "unconditional_noising_factor": 0.25}],
        image_encoder_path="tiny_clip",
    )
    files = {sent(name): path for name, path in pictures.items()}
    (prompt,) = tiny_model.guides.follow(tiny, job, files).image_prompts
    noise = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(SEED))
    with torch.inference_mode():
        embeds = encoder.network(noise).image_embeds * 0.25
        tokens = adapter.projection(embeds)
    expected = torch.cat([tokens, tokens], 1) @ adapter.matrices[0][0].T
    torch.testing.assert_close(prompt.negative.keys[0], expected)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"images": ["red", "lost"]}, r"studio\.ip_adapters\.0\.images\.1: expected a picture"),
        ({"mask": "lost"}, r"studio\.ip_adapters\.0\.mask: expected a picture"),
        ({"path": "tiny_clip.safetensors"}, r"studio\.ip_adapters\.0\.path"),
        ({"layer_scales": "{"}, r"studio\.ip_adapters\.0\.layer_scales: expected JSON"),
        ({"layer_scales": '{"top": 1}'}, r"studio\.ip_adapters\.0\.layer_scales: expected down or"),
    ],
)
def test_what_an_adapter_cannot_take_is_an_error_on_its_field(shown, changes, field):
    with pytest.raises((InvalidRequest, ModelNotFound), match=f"^{field}"):
        shown(changes)


def test_another_encoder_is_an_error_on_its_field(tiny, tiny_model, pictures, tmp_path):
    shapes = adapter_shapes(base_shapes(EMBED_WIDTH + 1, WIDTH), [64] * 7, WIDTH)
    path = save_adapter(tmp_path / "wide.safetensors", random_tensors(shapes))
    known = Catalog(
        tiny.checkpoints,
        [
            Weights(name=path.name, path=path, kind="controlnet"),
            tiny.weights("clip_vision", "tiny_clip", "x"),
        ],
    )
    item = named({"path": path.name, "images": ["red"]})
    job = settled(known, "tiny", SIZE, ip_adapters=[item], image_encoder_path="tiny_clip")
    with pytest.raises(InvalidRequest, match=r"^studio\.image_encoder_path: wide\.safetensors"):
        latents_of(tiny_model, known, job, pictures)


FACE = {"insight_face_model_path": PACK}


@pytest.mark.parametrize(
    ("path", "images", "shortcut"),
    [
        ("faces.safetensors", ["red"], False),
        ("faces.safetensors", ["red", "blue"], False),
        ("faces_plus.safetensors", ["red"], False),
        ("faces_plus.safetensors", ["red", "blue"], True),
    ],
)
def test_adapters_of_faces_paint_what_diffusers_paints(shown, stock_shown, path, images, shortcut):
    ours = shown(
        {
            "path": path,
            "images": images,
            "image_projection_shortcut": shortcut,
            "scale": 0.8,
            **FACE,
        }
    )
    expected = stock_shown([path], [images], [0.8], faces="unit", shortcut=shortcut)
    assert difference(ours, expected) < EXACT
    assert difference(shown(), expected) > 1e-3


def test_instant_id_is_told_the_whole_vector(shown, stock_shown):
    path = "instant.safetensors"
    expected = stock_shown([path], [["red"]], [0.8], faces="whole")
    assert difference(shown({"path": path, "scale": 0.8, **FACE}), expected) < EXACT


def test_the_shortcut_and_noise_act_on_faces(shown):
    item = {"path": "faces_plus.safetensors", **FACE}
    on, off = (shown({**item, "image_projection_shortcut": it}) for it in (True, False))
    noisy = shown({**item, "unconditional_noising_factor": 0.5})
    assert difference(on, off) > 1e-3
    assert difference(noisy, on) > 1e-3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"path": "faces.safetensors"}, r"insight_face_model_path: expected a folder of models/in"),
        (FACE, r"insight_face_model_path: expected none, since plus\.safetensors is no adapter"),
        (
            {"path": "faces.safetensors", "images": ["red", "box"], **FACE},
            r"images\.1: expected a picture with a face in it",
        ),
    ],
)
def test_what_an_adapter_of_faces_cannot_take_is_an_error(shown, changes, problem):
    with pytest.raises(InvalidRequest, match=rf"^studio\.ip_adapters\.0\.{problem}"):
        shown(changes)


@pytest.mark.skipif(importlib.util.find_spec("insightface") is not None, reason="it is installed")
def test_without_insightface_it_is_named(tmp_path):
    with pytest.raises(ModelNotFound, match=r"^a\.b: .*pip install insightface onnxruntime"):
        load_face_reader(tmp_path, "a.b")


def test_the_lora_of_a_face_adapter_is_put_on_and_taken_off(tiny):
    palette = Palette(tiny, torch.device("cpu"), allow_pickle=False)

    def bring(*adapters):
        items = [named({"images": ["red"], **item}) for item in adapters]
        job = settled(tiny, "tiny", SIZE, ip_adapters=items, image_encoder_path="tiny_clip")
        model = palette.bring(job)
        return {key: value.clone() for key, value in model.loaded.unet.state_dict().items()}

    before = bring()
    carrier = {"path": "carrier.safetensors", **FACE}
    patched = bring(carrier)
    changed = {key for key, value in patched.items() if not torch.equal(value, before[key])}
    assert len(changed) == 4 * 14
    for plain in (
        {"path": "faces.safetensors", **FACE},
        {"path": "plus.safetensors"},
        {**carrier, "scale": 0.0},
    ):
        assert all(torch.equal(value, before[key]) for key, value in bring(plain).items())
        bring(carrier)


# A ControlNet that reads an adapter


@pytest.fixture(scope="module")
def read_aloud(tiny, tiny_model, pictures):
    """Paint with a ControlNet that reads an adapter of faces."""

    def follow(**changes):
        adapter = named({"path": "instant.safetensors", "images": ["red"], **FACE})
        net = named({"path": "toy", "image": "box", "ip_adapter_index": 0})
        scale, guess = changes.pop("scale", 0.8), changes.pop("guess", False)
        job = settled(
            tiny,
            "tiny",
            SIZE,
            ip_adapters=[{**adapter, "scale": scale}],
            controlnets=[{**net, **changes}],
            controlnet_guess_mode=guess,
            image_encoder_path="tiny_clip",
        )
        files = {sent(name): path for name, path in pictures.items()}
        followed = tiny_model.guides.follow(tiny, job, files)
        return followed, latents_of(tiny_model, tiny, job, pictures)

    return follow


def test_a_net_reads_an_adapter_in_place_of_the_words(read_aloud, tiny, tiny_model, pictures):
    followed, latents = read_aloud()
    adapter = tiny_model.guides._weights.adapter(
        tiny.weights("controlnet", "instant.safetensors", "x").path
    )
    face = id_embeds(pictures, ["red"], is_unit=False)
    expected = {"positive": adapter.projection(face), "negative": adapter.projection(0 * face)}
    assert {control.side for control in followed.controls} == set(expected)
    for control in followed.controls:
        torch.testing.assert_close(control.context, expected[control.side])
    _, worded = read_aloud(ip_adapter_index=None)
    assert difference(latents, worded) > 1e-3


def test_a_net_reads_an_adapter_that_is_off(read_aloud):
    followed, latents = read_aloud(scale=0.0)
    assert followed.image_prompts == ()
    assert difference(latents, read_aloud(scale=0.0, ip_adapter_index=None)[1]) > 1e-3


def test_a_guessing_net_reads_on_the_positive_side_only(read_aloud):
    followed, _ = read_aloud(guess=True)
    assert [control.side for control in followed.controls] == ["positive"]


def test_a_union_is_told_the_kind_of_drawing(tiny, tiny_model, pictures):
    def paint(mode):
        net = named({"path": "union", "image": "box", "mode": mode})
        job = settled(tiny, "tiny", SIZE, controlnets=[net])
        return latents_of(tiny_model, tiny, job, pictures)

    assert difference(paint("depth"), paint("canny")) > 1e-3
    assert torch.equal(paint("canny"), paint("lineart"))
    for mode in (None, "dept"):
        with pytest.raises(InvalidRequest, match=r"^studio\.controlnets\.0\.mode: .* pose, depth"):
            paint(mode)


# The pocket model's own adapter, through the engine


@pytest.fixture(scope="module")
def engine():
    return create(str(ROOT / "models"))


def pixels_of(engine, job, pictures):
    engine.admit("job", job, {sent(name): path for name, path in pictures.items()})
    events = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
    assert not [event for event in events if isinstance(event, Failed)]
    (ready,) = (event for event in events if isinstance(event, ImageReady))
    return np.array(Image.open(io.BytesIO(ready.data)).convert("RGB")).astype(float)


def test_one_request_follows_a_drawing_and_pictures(catalog, engine, pictures):
    def paint(**studio):
        job = settled(catalog, "pocket", num_inference_steps=3, **studio)
        return pixels_of(engine, job, pictures)

    adapter = {"path": "pocket_image_prompt.safetensors", "images": ["blue", "red"]}
    net = {"path": NET, "image": "box"}
    plain, drawn, shown, both = (
        paint(**studio)
        for studio in (
            {},
            {"controlnets": [named(net)]},
            {"ip_adapters": [named(adapter)]},
            {"controlnets": [named(net)], "ip_adapters": [named(adapter)]},
        )
    )
    for one, other in itertools.combinations((plain, drawn, shown, both), 2):
        assert np.abs(one - other).mean() > 3
    halves = [{**adapter, "images": [name], "scale": 0.5} for name in ("blue", "red")]
    assert np.abs(paint(ip_adapters=[named(item) for item in halves]) - plain).mean() > 3


def test_in_tiles_masks_go_with_their_places(shown):
    tiles = {"width": 192, "height": 192, "stride_width": 128, "stride_height": 128}
    free, whole, black, left = (
        shown(*adapters, tiles=tiles, num_inference_steps=2)
        for adapters in ((), ({},), ({"mask": "black"},), ({"mask": "left"},))
    )
    assert difference(black, free) < EXACT
    assert difference(whole, free) > 1e-3
    change = (left - free).abs().mean((0, 1, 2))
    half = len(change) // 2
    assert float(change[:half].mean()) > 1.3 * float(change[half:].mean())
