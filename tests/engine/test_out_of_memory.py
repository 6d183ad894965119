"""Where memory runs out the picture still comes; where it always does, one sentence; the next job is right."""

import asyncio
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.autoencoders.vae import Decoder, Encoder
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from engine import Event, Failed, Finished, ImageReady, OutOfMemory, Plan, TextRequest, plan
from engine.engine import Engine, create
from engine.models import checkpoints, memory
from engine.models.memory import Memory, Tier
from engine.models.upscale_nets import Compact, Esrgan
from jobs import Jobs, JobSettings, ThreadWorker
from tests.libraries import library_of
from tests.shortage import ALWAYS, Shortage, shortage
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.torch

MODELS = str(Path(__file__).parent.parent.parent / "models")
STEPS = 3
TEXT = (CLIPTextModel, CLIPTextModelWithProjection)
UPSCALER = (Compact, Esrgan)
SENTENCE = (
    r"^the device has too little memory for this picture; "
    r"ask for a smaller size or choose a smaller base model$"
)
SENTENCE_ON_A_CARD = SENTENCE.replace(" or choose", ", choose").replace(
    "model$", "model or start with --memory streamed$"
)
PLACES = {
    "text encoder": (TEXT, 0, {}),
    "first step": (UNet2DConditionModel, 0, {}),
    "step 3": (UNet2DConditionModel, 2, {}),
    "VAE": (Decoder, 0, {"aspect_ratio": "640x128"}),
    "VAE at the start": (Encoder, 0, {"upscale_or_vary": {"method": "Vary (Subtle)"}}),
    "upscaler": (UPSCALER, 0, {"upscale_or_vary": {"method": "Upscale (Fast 2x)"}}),
}
"""Which network runs out of memory, after how many calls, in what job."""


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A picture that was sent along: its name and its file."""
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "sent.png"
    Image.fromarray(colours).resize((160, 160), Image.Resampling.BICUBIC).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest(), path


def new_engine(memory: str = "auto") -> Engine:
    engine = create(MODELS, device="cpu", memory=memory)
    torch.set_num_threads(1)
    return engine


def new_card() -> Engine:
    """An engine that takes the CPU for a card with memory of its own."""
    engine = new_engine("resident")
    engine._palette.memory._is_apart = True
    return engine


@pytest.fixture(scope="module")
def engine() -> Engine:
    return new_engine()


@pytest.fixture(scope="module")
def job(engine: Engine, picture: tuple[str, Path]) -> Callable[..., Plan]:
    def make(*, seed: int = 7, advanced: Mapping[str, Any] = {}, **fields: Any) -> Plan:
        asked = {
            "prompt": "a large red star on a blue background",
            "styles": (),
            "num_images": 1,
            "aspect_ratio": "128x128",
            "advanced": {"base_model": "pocket", "num_inference_steps": STEPS, **advanced},
            **fields,
        }
        if "upscale_or_vary" in asked:
            asked["upscale_or_vary"] = {**asked["upscale_or_vary"], "image": picture[0]}
        return plan(TextRequest.parse(asked), library_of(engine._palette.catalog), seed=seed)

    return make


@pytest.fixture(scope="module")
def run(picture: tuple[str, Path]) -> Callable[..., dict[str, list[Event]]]:
    sent = dict([picture])

    def go(engine: Engine, *plans: Plan) -> dict[str, list[Event]]:
        told: dict[str, list[Event]] = {str(index): [] for index in range(len(plans))}
        for index, asked in enumerate(plans):
            engine.admit(str(index), asked, sent if asked.start.kind != "noise" else {})
        while not engine.idle():
            for job_id, event in engine.step():
                told[job_id].append(event)
        return told

    return go


def forget_texts(engine: Engine) -> None:
    """Have prompts encoded anew that were encoded before."""
    if engine._palette._model is not None:
        engine._palette.model.encoder.forget()


def pixels(events: list[Event]) -> np.ndarray:
    assert isinstance(events[-1], Finished), events[-1]
    data = [event.data for event in events if isinstance(event, ImageReady)]
    return np.stack([np.asarray(Image.open(io.BytesIO(item)), dtype=np.int16) for item in data])


async def last_event(jobs: Jobs, job_id: str) -> Event:
    return [event async for _, event in jobs.events(job_id, owner="local")][-1]


@pytest.mark.parametrize("place", PLACES)
def test_memory_runs_out(engine, job, run, place):
    """Once: the picture comes. Always: the job fails with one sentence. After that all is as before."""
    kind, first, fields = PLACES[place]
    asked = job(**fields)
    wanted = pixels(run(engine, asked)["0"])
    forget_texts(engine)
    with shortage(kind, first=first) as short:
        made = pixels(run(engine, asked)["0"])
    assert short.failed == 1
    difference = np.abs(made - wanted)
    if kind in (Decoder, Encoder, UPSCALER):  # in tiles, or in smaller ones
        assert difference.mean() < 2
    else:
        assert difference.max() == 0

    forget_texts(engine)
    with shortage(kind, first=first, times=ALWAYS) as short:
        events = run(engine, asked)["0"]
    assert short.failed >= 2
    failures = [event for event in events if isinstance(event, Failed)]
    assert failures == events[-1:]
    assert failures[0].kind == "out_of_memory"
    assert re.search(SENTENCE, failures[0].message), failures[0].message
    assert not any(isinstance(event, ImageReady) for event in events)

    after = run(engine, asked)["0"]
    assert np.array_equal(pixels(after), wanted)
    assert after[-1].notes == ()


def test_the_same_latents_are_decoded_again(engine, job, run):
    """Nothing is sampled anew where the VAE has no room, whole or in tiles."""
    asked = job(aspect_ratio="640x128")
    wanted = pixels(run(engine, asked)["0"])
    before = engine.counters()["unet_calls"]
    with shortage(Decoder, times=2) as short:
        made = pixels(run(engine, asked)["0"])
    assert short.failed == 2
    assert engine.counters()["unet_calls"] - before == STEPS
    assert np.array_equal(made, wanted)  # whole, once the UNet was aside


def test_a_card_steps_down_until_the_picture_comes(engine, job, run):
    card, wanted = new_card(), pixels(run(engine, job())["0"])
    assert card.device.endswith(": all networks stay on it")
    with shortage(UNet2DConditionModel, first=1, times=2) as short:
        events = run(card, job())["0"]
    assert short.failed == 2
    assert np.array_equal(pixels(events), wanted)
    words = Tier.STREAMED.words
    assert events[-1].notes == (f"memory ran out, so it was painted with less: {words}",)
    assert card._palette.tier is Tier.STREAMED
    assert card.device.endswith(f": {words}")
    again = run(card, job())["0"]
    assert np.array_equal(pixels(again), wanted)
    assert again[-1].notes == ()


def test_a_job_of_several_parts_says_it_too(job, run):
    card = new_card()
    with shortage(UNet2DConditionModel, first=1, times=2):
        end = run(card, job(enhance={"upscale_or_vary": "Vary (Subtle)"}))["0"][-1]
    assert isinstance(end, Finished)
    assert end.notes[-1] == f"memory ran out, so it was painted with less: {Tier.STREAMED.words}"


def test_after_a_picture_that_fits_nowhere_all_is_as_before(job, run):
    card = new_card()
    with shortage(UNet2DConditionModel, times=ALWAYS):
        failed = run(card, job())["0"][-1]
    assert isinstance(failed, Failed)
    assert card._palette.tier is Tier.RESIDENT
    assert isinstance(run(card, job())["0"][-1], Finished)
    assert card._palette.tier is Tier.RESIDENT


def test_the_sentence_of_a_card_names_the_flag(job, run):
    card = new_card()
    card._palette.memory = Memory(torch.device("cuda"), "resident")
    told = card._palette.memory.remedy(Tier.RESIDENT)
    assert re.search(
        SENTENCE_ON_A_CARD, f"the device has too little memory for this picture; {told}"
    )


def test_jobs_that_ran_together_come_in_smaller_company(engine, job, run):
    plans = [job(seed=seed, advanced={"deterministic": True}) for seed in range(3)]
    wanted = {name: pixels(events) for name, events in run(engine, *plans).items()}
    rows = engine._room.max_rows
    shared = [job(seed=seed) for seed in range(3)]
    together = run(engine, *shared)
    with shortage(UNet2DConditionModel, first=2, rows=5) as short:
        told = run(engine, *shared)
    assert short.failed == 1
    assert engine._room.max_rows < rows
    for name, events in told.items():
        assert np.abs(pixels(events) - pixels(together[name])).max() <= 2
        assert np.abs(pixels(events) - wanted[name]).max() <= 2
        assert events[-1].notes == ()
    engine._room.max_rows = rows


def test_a_job_that_cannot_start_waits_for_the_others(engine, job, run):
    plans = [
        job(seed=seed, prompt=f"a green {shape}") for seed, shape in enumerate(("ring", "moon"))
    ]
    wanted = {name: pixels(events) for name, events in run(engine, *plans).items()}
    forget_texts(engine)
    with shortage(TEXT, first=2) as short:  # both encoders of the first job had room
        told = run(engine, *plans)
    assert short.failed == 1
    for name, events in told.items():
        assert np.abs(pixels(events) - wanted[name]).max() <= 2


def test_other_models_go_first(tmp_path, run):
    write_tiny_model(tmp_path / "checkpoints" / "one")
    shutil.copytree(tmp_path / "checkpoints" / "one", tmp_path / "checkpoints" / "two")
    engine = create(str(tmp_path), device="cpu", memory="resident", warm_gb=9)
    torch.set_num_threads(1)
    engine._palette.memory._is_apart = True
    jobs = {
        name: plan(
            TextRequest.parse(
                {
                    "prompt": "",
                    "styles": (),
                    "num_images": 1,
                    "aspect_ratio": "64x64",
                    "advanced": {"base_model": name, "num_inference_steps": 2},
                }
            ),
            library_of(engine._palette.catalog),
            seed=1,
        )
        for name in ("one", "two")
    }
    wanted = {name: pixels(run(engine, asked)["0"]) for name, asked in jobs.items()}
    assert all(engine._palette.has_base(asked) for asked in jobs.values())
    with shortage(UNet2DConditionModel):
        made = pixels(run(engine, jobs["two"])["0"])
    assert np.array_equal(made, wanted["two"])
    assert engine._palette.tier is Tier.RESIDENT
    assert not engine._palette.has_base(jobs["one"])


def test_a_model_that_has_no_room_at_the_start_comes_at_a_lower_tier():
    card = new_card()
    with shortage(UNet2DConditionModel) as short:
        card.preload("pocket")
    assert short.failed == 1
    assert card._palette.tier is Tier.TEXT_OFF
    with (
        shortage(UNet2DConditionModel, times=ALWAYS),
        pytest.raises(OutOfMemory, match=r"^pocket: the device has too little memory for it$"),
    ):
        card.preload("pocket")


def test_a_picture_that_needs_no_painting_is_looked_over_again(engine, job, run, monkeypatch):
    asked = job(**PLACES["upscaler"][2])
    wanted = pixels(run(engine, asked)["0"])
    ready, short = engine._finishing.ready, Shortage()

    def look_over(*told: Any) -> ImageReady:
        short.meet(1)
        return ready(*told)

    monkeypatch.setattr(engine._finishing, "ready", look_over)
    assert np.array_equal(pixels(run(engine, asked)["0"]), wanted)
    assert short.failed == 1


def test_a_model_that_could_not_be_loaded_steps_down_from_its_own_tier(monkeypatch):
    """Not from the one that fits while it still lies there in pieces."""
    card = new_engine()
    card._palette.memory._is_apart = True
    free = iter([10**12])
    monkeypatch.setattr(memory, "free_bytes", lambda device: next(free, 0))
    with monkeypatch.context() as broken:
        broken.setattr(checkpoints, "place_vae", raise_out_of_memory)
        with pytest.raises(OutOfMemory):
            card._palette.load("pocket")
    assert card._palette.tier is Tier.RESIDENT


def raise_out_of_memory(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_what_is_known_of_texts_goes_when_memory_is_wanted(engine, job, run):
    run(engine, job())
    model = engine._palette.model
    assert model.texts.nbytes > 0
    engine._room._free()
    assert model.texts.nbytes == 0
    run(engine, job())
    assert model.texts.nbytes > 0
    with model.aside():
        assert model.texts.nbytes == 0


def test_nothing_that_patches_changed_is_remembered_where_they_broke_off(
    engine, job, run, monkeypatch
):
    run(engine, job())
    model = engine._palette.model
    with monkeypatch.context() as broken:
        broken.setattr(model.patcher, "use", raise_out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            engine._palette._use(model, [])
    assert model.texts.nbytes == 0
    assert not model.encoder._known


def test_a_worker_goes_on_after_memory_ran_out(tmp_path, job, run, engine):
    wanted = pixels(run(engine, job())["0"])[0]
    settings = JobSettings(data_dir=tmp_path / "data", output_dir=tmp_path / "outputs")
    jobs = Jobs(settings, lambda: ThreadWorker(new_engine))
    jobs.start()
    try:
        seen = []
        for times in (1, ALWAYS, 0):
            with shortage(UNet2DConditionModel, first=1, times=times):
                name = jobs.submit(job(), owner="local")
                seen.append(asyncio.run(last_event(jobs, name)))
        assert [type(event) for event in seen] == [Finished, Failed, Finished]
        assert re.search(SENTENCE, seen[1].message)
        files = sorted((tmp_path / "outputs").rglob("*.png"))
        assert len(files) == 2
        for file in files:
            assert np.array_equal(np.asarray(Image.open(file), dtype=np.int16), wanted)
    finally:
        jobs.close()
