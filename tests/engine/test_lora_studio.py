"""The LoRA studio on the pocket model: a whole request gives diffusers' own picture, and every setting acts."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as read_tensors
from safetensors.torch import save_file

from engine import InvalidRequest, Library, ModelIncompatible, TextRequest
from engine.begin import begin_image
from engine.catalog import Catalog, Weights
from engine.engine import create
from engine.events import Failed, ImageReady
from engine.library import ROOT
from engine.loop import step
from engine.places import read_catalog
from engine.sampling.noise import draw_noise, seeded_generator
from engine.settle import plan
from engine.starts import Beginning
from engine.warm import warm_up
from tests.stock_schedulers import stock_scheduler

pytestmark = pytest.mark.torch

POCKET = ROOT / "models" / "pocket"
WORDS = "a large red star, blue background"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return read_catalog(ROOT / "models")


def settled(catalog, prompt=WORDS, seed=5, **changes):
    asked = {
        "prompt": prompt,
        "num_images": 1,
        "aspect_ratio": changes.pop("aspect_ratio", "1024x1024"),
        "advanced": {"base_model": "pocket"},
        "studio": {"num_inference_steps": 8, "guidance_scale": 5, **changes},
    }
    return plan(TextRequest.parse(asked), Library(catalog=catalog), seed=seed)


@pytest.fixture(scope="module")
def stock():
    """The pocket model in diffusers' own pipeline."""
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(
        POCKET, use_safetensors=True, dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def embedding(stock, tmp_path_factory) -> Path:
    """Two vectors for each encoder: those of two words of the vocabulary, so that their effect is known."""
    words = ["red", "star"]
    sides = {}
    for key, tokenizer, encoder in (
        ("clip_l", stock.tokenizer, stock.text_encoder),
        ("clip_g", stock.tokenizer_2, stock.text_encoder_2),
    ):
        ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
        table = encoder.get_input_embeddings().weight.detach()
        sides[key] = table[ids].clone()
    path = tmp_path_factory.mktemp("embeddings") / "red_star.safetensors"
    save_file(sides, path)
    return path


@pytest.fixture(scope="module")
def model(catalog, embedding):
    return warm_up(
        catalog.checkpoint("pocket"),
        torch.device("cpu"),
        {"red_star.safetensors": embedding}.get,
    )


@torch.inference_mode()
def latents_of(model, job):
    image = begin_image(model, job.images[0], Beginning(plan=job))
    while not image.is_done:
        step([image])
    return image.latents


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("clip_skip", [0, 1])
@pytest.mark.parametrize("scheduler", ["Euler", "DPM++ 2M Karras", "DDIM"])
def test_a_request_paints_what_diffusers_paints(catalog, model, stock, scheduler, clip_skip):
    def told(words):
        embeds, _, pooled, _ = stock.encode_prompt(words, clip_skip=clip_skip or None)
        return embeds, pooled

    # diffusers skips no layers on the negative side; there it would guide away from an unlike text.
    (positive, pooled), (negative, negative_pooled) = told(WORDS), told("")
    stock.scheduler = stock_scheduler(scheduler)
    theirs = stock(
        prompt_embeds=positive,
        pooled_prompt_embeds=pooled,
        negative_prompt_embeds=negative,
        negative_pooled_prompt_embeds=negative_pooled,
        height=128,
        width=128,
        num_inference_steps=8,
        guidance_scale=5.0,
        latents=draw_noise(seeded_generator(5), (1, 4, 16, 16)),
        output_type="latent",
    ).images
    ours = latents_of(model, settled(catalog, scheduler=scheduler, clip_skip=clip_skip))
    assert float((ours - theirs).abs().max()) < 1e-3 * float(theirs.std())


def test_brackets_are_letters_unless_they_are_to_weigh(catalog, model):
    plainly = [latents_of(model, settled(catalog, words)) for words in (WORDS, f"({WORDS}:1.4)")]
    assert not torch.equal(*plainly)  # brackets are read
    heavy = settled(catalog, f"({WORDS}:1.4)", prompt_weighting=True)
    light = settled(catalog, WORDS, prompt_weighting=True)
    weighted = latents_of(model, heavy)
    assert not torch.allclose(weighted, plainly[1], atol=1e-3)
    assert torch.equal(latents_of(model, light), plainly[0])
    assert not torch.allclose(weighted, plainly[0], atol=1e-3)


def test_only_weighting_reads_beyond_77_tokens(catalog, model):
    filler = "dot " * 80
    short, long = filler, filler + WORDS
    plain = [latents_of(model, settled(catalog, words)) for words in (short, long)]
    assert torch.equal(*plain)
    both = [
        latents_of(model, settled(catalog, words, prompt_weighting=True)) for words in (short, long)
    ]
    assert not torch.allclose(*both, atol=1e-3)


@pytest.fixture(scope="module")
def taught(catalog, embedding) -> Catalog:
    file = Weights(name="red_star.safetensors", path=embedding, kind="embedding")
    return Catalog(catalog.checkpoints, [*catalog.loras, file])


@pytest.mark.parametrize("is_weighted", [False, True])
def test_learned_words_stand_for_their_vectors(taught, model, is_weighted):
    words = {"path": "red_star.safetensors", "tokens": ["<s0>", "<s1>"]}
    told = "a large <s0><s1>, blue background"
    ours = settled(taught, told, embeddings=[words], prompt_weighting=is_weighted)
    named = settled(taught, WORDS, prompt_weighting=is_weighted)
    assert torch.equal(latents_of(model, ours), latents_of(model, named))


def test_one_learned_word_stands_for_all_vectors(taught, model):
    words = {"path": "red_star.safetensors", "tokens": ["<it>"]}
    ours = settled(taught, "a large <it>, blue background", embeddings=[words])
    assert torch.equal(latents_of(model, ours), latents_of(model, settled(taught)))


def test_more_words_than_vectors_are_refused(taught, model):
    words = {"path": "red_star.safetensors", "tokens": ["<a>", "<b>", "<c>"]}
    with pytest.raises(InvalidRequest, match=r"studio\.embeddings\.0\.tokens: expected at most 2"):
        latents_of(model, settled(taught, embeddings=[words]))


def test_an_embedding_that_may_not_be_read_is_refused(catalog, embedding, model):
    file = Weights(name="other.pt", path=embedding, kind="embedding")
    known = Catalog(catalog.checkpoints, [file])
    words = {"path": "other.pt"}
    with pytest.raises(ModelIncompatible, match=r"studio\.embeddings\.0\.path: expected a safet"):
        latents_of(model, settled(known, embeddings=[words]))


def test_guidance_of_1_and_less_is_off(catalog, model):
    off = [latents_of(model, settled(catalog, guidance_scale=scale)) for scale in (0, 1)]
    assert torch.equal(*off)
    assert not torch.allclose(off[0], latents_of(model, settled(catalog)), atol=1e-2)


@pytest.fixture(scope="module")
def engine():
    return create(str(ROOT / "models"))


def painted(engine, job):
    engine.admit("job", job, {})
    events = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
    assert not [event for event in events if isinstance(event, Failed)]
    return [event for event in events if isinstance(event, ImageReady)]


def test_latents_come_with_the_last_picture(catalog, engine):
    asked = settled(catalog, debug_latents=True, debug_per_pass_latents=True)
    request = asked.request.model_copy(update={"num_images": 2})
    job = plan(request, Library(catalog=catalog), seed=5)
    first, last = painted(engine, job)
    assert first.extras == {}
    latents = read_tensors(last.extras["latents"])["latents"]
    passes = read_tensors(last.extras["passes"])
    assert latents.shape == (2, 4, 16, 16)
    assert passes["latents"].shape == (2, 8, 4, 16, 16)
    sigmas = passes["sigmas"]
    assert bool((sigmas[1:] < sigmas[:-1]).all())
    noise = passes["latents"][:, 0].std(dim=(1, 2, 3))
    assert np.allclose(noise, torch.sqrt(sigmas[0] ** 2 + 1), rtol=0.1)
    assert [event.seed for event in (first, last)] == [5, 6]


def test_nothing_is_kept_that_was_not_asked_for(catalog, engine):
    (ready,) = painted(engine, settled(catalog))
    assert ready.extras == {}
    (ready,) = painted(engine, settled(catalog, debug_latents=True))
    assert set(ready.extras) == {"latents"}


def pixels(ready) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(ready.data)).convert("RGB"), np.int16)


def test_loras_add_up(catalog, engine):
    def with_dots(*scales):
        loras = [{"path": "pocket_dots.safetensors", "scale": scale} for scale in scales]
        (ready,) = painted(engine, settled(catalog, loras=loras))
        return pixels(ready)

    none, off, whole = with_dots(), with_dots(0), with_dots(1)
    assert np.array_equal(none, off)
    assert np.abs(whole - none).mean() > 5
    assert np.abs(with_dots(0.5, 0.5) - whole).max() <= 2
    assert np.array_equal(with_dots(), none)


def test_jobs_side_by_side_see_nothing_of_each_other(catalog, engine):
    dots = [{"path": "pocket_dots.safetensors", "scale": 1}]
    jobs = {
        "plain": settled(catalog),
        "dots": settled(catalog, loras=dots),
        "other": settled(catalog, "a small green square", seed=9, scheduler="DDIM"),
        "more dots": settled(catalog, "a small green square", seed=9, loras=dots),
    }
    alone = {name: pixels(painted(engine, job)[0]) for name, job in jobs.items()}
    for name, job in jobs.items():
        engine.admit(name, job, {})
    together = {}
    while not engine.idle():
        for name, event in engine.step():
            if isinstance(event, ImageReady):
                together[name] = pixels(event)
    assert set(together) == set(jobs)
    for name, picture in together.items():
        assert np.abs(picture - alone[name]).max() <= 2
