"""A Stable Diffusion 1.5 model paints: equal to the stock pipeline, at its own sizes, and what is made for SDXL is refused."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from engine import (
    Catalog,
    Event,
    Failed,
    Finished,
    ImageReady,
    InvalidRequest,
    ModelIncompatible,
    ModelNotFound,
    Plan,
    Progress,
    Size,
    TextRequest,
    plan,
    read_catalog,
)
from engine.begin import begin_image
from engine.catalog import SD15_SIZES
from engine.conditioning.text import final_norm
from engine.engine import Engine, create
from engine.library import few_step_offers
from engine.loop import step
from engine.models.controlnets import load_controlnet
from engine.partners import partner_offers
from engine.plan import FromPicture, Repainting
from engine.stages.metadata import read_plan
from engine.starts import Beginning
from tests.libraries import library_of
from tests.tiny_model import write_tiny_model
from tests.tiny_sd15 import WIDTH, pipeline_of, tiny_parts, write_tiny_sd15

pytestmark = pytest.mark.torch

OWN = Size(512, 512)
SMALL = Size(64, 64)
"""What is really painted here, to save time."""
PICTURE, MASK = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_sd15(folder / "checkpoints" / "small")
    write_tiny_model(folder / "checkpoints" / "xl")
    (folder / "embeddings").mkdir()
    save_file({"emb_params": torch.ones(2, WIDTH)}, folder / "embeddings" / "thing.safetensors")
    (folder / "loras").mkdir()
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    generator = torch.Generator().manual_seed(1)
    weights = {
        f"{layer}.lora_down.weight": torch.randn(4, WIDTH, generator=generator),
        f"{layer}.lora_up.weight": torch.randn(96, 4, generator=generator),
    }
    save_file(weights, folder / "loras" / "style.safetensors")
    return folder


@pytest.fixture(scope="module")
def catalog(models_dir: Path) -> Catalog:
    offers = [*few_step_offers(), *partner_offers()]
    return read_catalog(models_dir, "small", offers)


@pytest.fixture(scope="module")
def engine(models_dir: Path) -> Engine:
    return start(models_dir)


def start(models_dir: Path) -> Engine:
    """An engine whose model paints at `SMALL`."""
    made = create(str(models_dir), device="cpu")
    torch.set_num_threads(1)
    base = made._palette.catalog.checkpoint("small")
    small = replace(base, native_size=64, buckets=(SMALL,), sizes=(SMALL,))
    files = [*made._palette.catalog.loras, *made._palette.catalog.embeddings]
    made._palette.catalog = Catalog([small], files)
    return made


def ask(catalog: Catalog, prompt: str = "a star", **fields: Any) -> Plan:
    advanced = {"num_inference_steps": 2, "previews": False, **fields.pop("advanced", {})}
    request = {"prompt": prompt, "styles": (), "num_images": 1, "advanced": advanced, **fields}
    return plan(TextRequest.parse(request), library_of(catalog), seed=5)


def ask_small(engine: Engine, prompt: str = "a star", **fields: Any) -> Plan:
    return ask(engine._palette.catalog, prompt, **{"aspect_ratio": str(SMALL), **fields})


def run(engine: Engine, job: Plan, pictures: Mapping[str, Path] | None = None) -> list[Event]:
    engine.admit("job", job, pictures or {})
    events: list[Event] = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
    return events


def picture(events: list[Event]) -> Image.Image:
    assert isinstance(events[-1], Finished), events[-1]
    (ready,) = (event for event in events if isinstance(event, ImageReady))
    return Image.open(io.BytesIO(ready.data))


def pixels(events: list[Event]) -> np.ndarray:
    return np.asarray(picture(events))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_its_latents_are_those_of_the_stock_pipeline(engine: Engine) -> None:
    from diffusers import EulerDiscreteScheduler

    job = ask_small(
        engine,
        "a red star",
        negative_prompt="a circle",
        guidance_scale=5.0,
        sharpness=0.0,
        advanced={
            "num_inference_steps": 4,  # whose timesteps 999, 666, 333, 0 are whole numbers
            "sampler": "euler",
            "scheduler": "normal",
            "clip_skip": 1,
        },
    )
    image = begin_image(engine._palette.load("small"), job.images[0], Beginning(plan=job))
    start = image.asked.x.clone()
    while not image.is_done:
        step([image])
    pipeline = pipeline_of(tiny_parts())
    pipeline.scheduler = EulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="linspace", steps_offset=0
    )
    pipeline.scheduler.set_timesteps(4)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a red star",
        negative_prompt="a circle",
        num_inference_steps=4,
        guidance_scale=5.0,
        latents=start / pipeline.scheduler.init_noise_sigma,
        output_type="latent",
    ).images
    scale = float(expected.abs().max())
    torch.testing.assert_close(image.latents, expected, rtol=0, atol=1e-4 * max(1.0, scale))


def test_a_request_becomes_a_picture_with_its_record(engine: Engine) -> None:
    styles = ("Fooocus V2",)
    job = ask_small(engine, styles=styles, aspect_ratio="96x80", advanced={"previews": True})
    events = run(engine, job)
    painted = picture(events)
    assert painted.size == (96, 80)
    assert read_plan(painted).base_model == "small"
    assert any(isinstance(event, Progress) and event.preview for event in events)
    assert (pixels(run(engine, job)) == np.asarray(painted)).all()


def test_words_loras_and_embeddings_are_seen(engine: Engine) -> None:
    plain = pixels(run(engine, ask_small(engine)))
    for other in (
        ask_small(engine, "a circle"),
        ask_small(engine, "a star (of gold:1.5) " * 30),
        ask_small(engine, "a star embedding:thing"),
        ask_small(engine, advanced={"clip_skip": 1}),
        ask_small(engine, loras=[{"path": "style.safetensors", "scale": 1.0}]),
    ):
        assert (pixels(run(engine, other)) != plain).any()
    assert (pixels(run(engine, ask_small(engine))) == plain).all()


def test_sizes_follow_from_the_family(catalog: Catalog) -> None:
    base = catalog.checkpoint("small")
    assert (base.paints_as, base.native_size, base.default_size) == ("sd15", 512, OWN)
    assert base.sizes == base.buckets == SD15_SIZES
    assert all(side % 64 == 0 and 512 <= side <= 896 for size in SD15_SIZES for side in size)
    assert len(set(SD15_SIZES)) == len(SD15_SIZES)
    sizes = {
        "768x768": "768x768",
        "1024x1024": "512x512",
        "1152x896": "640x512",
        "640x960": "512x768",
    }
    for asked, painted in sizes.items():
        job = ask(catalog, aspect_ratio=asked)
        assert (str(job.size), str(job.sample_size)) == (asked, painted)
    other = catalog.checkpoint("xl")
    assert (other.paints_as, other.native_size) == ("sdxl", 1024)


def test_a_picture_is_varied(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(path)
    varied = {"method": "Vary (Subtle)", "image": PICTURE}
    job = ask_small(engine, upscale_or_vary=varied)
    assert picture(run(engine, job, {PICTURE: path})).size == (96, 96)


def test_what_fits_every_family_is_planned(catalog: Catalog) -> None:
    inpaint = {"image": PICTURE, "mask": MASK, "engine": "None"}
    start = ask(catalog, inpaint=inpaint).start
    assert isinstance(start, Repainting)
    assert (start.head, start.patch) == (None, None)
    larger = ask(catalog, upscale_or_vary={"method": "Upscale (2x)", "image": PICTURE}).start
    assert isinstance(larger, FromPicture)
    assert larger.upscaler == start.upscaler


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "performance": (
        {"performance": "Extreme Speed"},
        "expected Quality or Speed with small, a Stable Diffusion 1.5 model, got Extreme Speed",
    ),
    "refiner_model": (
        {"refiner_model": "xl"},
        "expected none with small, a Stable Diffusion 1.5 model, got xl",
    ),
    "image_prompts.0.type": (
        {"image_prompts": [{"image": PICTURE, "type": "PyraCanny"}]},
        "PyraCanny needs an SDXL base model, and small is one of Stable Diffusion 1.5",
    ),
    "inpaint.engine": (
        {"inpaint": {"image": PICTURE, "mask": MASK}},
        "inpaint head needs an SDXL base model, and small is one of Stable Diffusion 1.5",
    ),
}


@pytest.mark.parametrize("field", list(REFUSED))
def test_what_is_made_for_sdxl_is_refused_on_its_field(field: str, catalog: Catalog) -> None:
    fields, problem = REFUSED[field]
    with pytest.raises((InvalidRequest, ModelNotFound)) as error:
        ask(catalog, **fields)
    assert str(error.value) == f"{field}: {problem}"


def test_a_lora_for_sdxl_fails_with_a_sentence(models_dir: Path) -> None:
    path = models_dir / "loras" / "xl.safetensors"
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    ends = {"lora_up.weight": torch.ones(96, 4), "lora_down.weight": torch.ones(4, 2048)}
    save_file({f"{key}.{end}": value for end, value in ends.items()}, path)
    engine = start(models_dir)
    job = ask_small(engine, loras=[{"path": "xl.safetensors", "scale": 1.0}])
    failed = run(engine, job)[-1]
    assert isinstance(failed, Failed)
    assert "made for SDXL: cross-attention width 2048, this model has 32" in failed.message
    assert isinstance(run(engine, ask_small(engine))[-1], Finished)


def test_words_for_a_refiner_come_from_the_first_encoder_of_sdxl(models_dir: Path) -> None:
    engine = create(str(models_dir), model="xl", device="cpu")
    model, job = engine._palette.load("xl"), ask(engine._palette.catalog, guidance_scale=1)
    unet = tiny_parts()["unet"]
    branch, none = model.encoder.refiner_branches(job, job.images[0], "sd15", unet)
    encoder = model.loaded.text_encoders["text_encoder"]
    ids = model.loaded.pipeline.tokenizer("a star", padding="max_length", return_tensors="pt")
    with torch.no_grad():
        states = encoder(ids.input_ids, output_hidden_states=True).hidden_states[-2]
        expected = final_norm(encoder)(states)
    torch.testing.assert_close(branch.context, expected, rtol=0, atol=1e-5)
    assert (branch.pooled, branch.size_ids, none) == (None, None, None)


def test_its_own_controlnets_steer_it_and_those_of_sdxl_are_refused(
    engine: Engine, models_dir: Path, tmp_path: Path
) -> None:
    from diffusers import ControlNetModel

    small = engine._palette.load("small").loaded.unet
    large = create(str(models_dir), model="xl", device="cpu")._palette.load("xl").loaded.unet
    for name, unet in (("small", small), ("large", large)):
        ControlNetModel.from_unet(unet).save_pretrained(tmp_path / name)
    net = load_controlnet(tmp_path / "small", small)
    x, context = torch.randn(1, 4, 8, 8), torch.randn(1, 77, WIDTH)
    hint = net.embed(torch.rand(1, 3, 64, 64))
    assert len(net.residuals(hint, x, torch.tensor([500.0]), context, None)) == 13
    wanted = "expected a ControlNet for this base model, whose text is 32 wide"
    with pytest.raises(ModelIncompatible, match=f"^large: {wanted}, got one for text 80 wide$"):
        load_controlnet(tmp_path / "large", small)
