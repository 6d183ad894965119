"""Many jobs on one engine: they share model calls, end within one step when asked, and come out as they would alone."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import (
    Catalog,
    Event,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Plan,
    Progress,
    Stopped,
    TextRequest,
    is_terminal,
    plan,
    plan_from_json,
)
from engine.engine import Engine, create
from engine.plan import only_image
from engine.stages.metadata import read_plan
from tests.libraries import library_of

pytestmark = pytest.mark.torch

SIX: tuple[dict[str, Any], ...] = (
    {"prompt": "a red star", "sampler": "dpmpp_2m_sde_gpu", "num_inference_steps": 6},
    {
        "prompt": "a (blue:1.3) circle",
        "sampler": "euler",
        "num_inference_steps": 9,
        "scheduler": "normal",
    },
    {"prompt": "a heart\non green", "sampler": "euler_ancestral", "num_inference_steps": 4},
    {"prompt": "", "sampler": "dpmpp_2m", "num_inference_steps": 7, "scheduler": "sgm_uniform"},
    {
        "prompt": "a cross",
        "sampler": "euler_ancestral",
        "num_inference_steps": 8,
        "guidance_scale": 1.0,
    },
    {"prompt": "a ring", "sampler": "dpmpp_2m", "num_inference_steps": 5, "guidance_scale": 9.0},
)


@pytest.fixture(scope="module")
def engine(models_dir: Path) -> Engine:
    engine = create(str(models_dir), device="cpu")
    torch.set_num_threads(1)
    return engine


def tiny_plan(catalog: Catalog, *, seed: int = 7, **fields: Any) -> Plan:
    request = {"aspect_ratio": "128x128", "num_images": 1, "guidance_scale": 4.0, "styles": ()}
    advanced = {}
    for name, value in fields.items():
        (request if name in TextRequest.model_fields else advanced)[name] = value
    return plan(
        TextRequest.parse({**request, "advanced": advanced}), library_of(catalog), seed=seed
    )


def run(engine: Engine, plans: Mapping[str, Plan]) -> dict[str, list[Event]]:
    told: dict[str, list[Event]] = {job_id: [] for job_id in plans}
    for job_id, job in plans.items():
        engine.admit(job_id, job, {})
    while not engine.idle():
        for job_id, event in engine.step():
            told[job_id].append(event)
    return told


def pixels(events: list[Event]) -> np.ndarray:
    data = [event.data for event in events if isinstance(event, ImageReady)]
    return np.stack([np.asarray(Image.open(io.BytesIO(item)), dtype=np.int16) for item in data])


def test_six_jobs_share_calls_and_equal_their_solo_runs(
    models_dir: Path, tiny_catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = create(str(models_dir), device="cpu")
    torch.set_num_threads(1)
    plans = {str(i): tiny_plan(tiny_catalog, seed=i, **fields) for i, fields in enumerate(SIX)}
    together = run(engine, plans)
    shared = engine.counters()["unet_calls"]
    assert engine.counters()["unet_rows"] > 3 * shared
    alone = {job_id: run(engine, {job_id: job})[job_id] for job_id, job in plans.items()}
    one_by_one = engine.counters()["unet_calls"] - shared
    with capsys.disabled():
        print(f"\nUNet calls: {shared} shared, {one_by_one} one by one")  # noqa: T201
    assert one_by_one == sum(fields["num_inference_steps"] for fields in SIX)
    assert shared < one_by_one / 2
    for job_id in plans:
        difference = np.abs(pixels(together[job_id]) - pixels(alone[job_id]))
        assert difference.max() <= 2
        assert difference.mean() < 0.05


def test_every_step_is_told_with_a_preview(engine: Engine, tiny_catalog: Catalog) -> None:
    events = run(engine, {"a": tiny_plan(tiny_catalog, num_inference_steps=5)})["a"]
    steps = [event for event in events if isinstance(event, Progress) and event.stage == "sampling"]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5]
    assert [event.fraction for event in steps] == sorted(event.fraction for event in steps)
    previews = {event.preview for event in steps[:-1]}  # the last step shows the picture itself
    assert len(previews) == 4
    assert all(Image.open(io.BytesIO(data or b"")).format == "JPEG" for data in previews)


def test_previews_can_be_off(engine: Engine, tiny_catalog: Catalog) -> None:
    events = run(engine, {"a": tiny_plan(tiny_catalog, num_inference_steps=3, previews=False)})["a"]
    assert all(event.preview is None for event in events if isinstance(event, Progress))


def test_the_same_plan_gives_the_same_bytes(engine: Engine, tiny_catalog: Catalog) -> None:
    job = tiny_plan(tiny_catalog, num_inference_steps=4)
    first, second = (run(engine, {"a": job})["a"] for _ in range(2))
    assert np.array_equal(pixels(first), pixels(second))


def test_a_deterministic_job_is_bit_equal_in_company(engine: Engine, tiny_catalog: Catalog) -> None:
    job = tiny_plan(tiny_catalog, num_inference_steps=4, deterministic=True)
    other = tiny_plan(tiny_catalog, num_inference_steps=6, seed=99)
    alone = run(engine, {"a": job})["a"]
    together = run(engine, {"b": other, "a": job})["a"]
    assert np.array_equal(pixels(alone), pixels(together))


def test_images_of_a_job_come_from_successive_seeds(engine: Engine, tiny_catalog: Catalog) -> None:
    pair = run(
        engine, {"a": tiny_plan(tiny_catalog, seed=40, num_images=2, num_inference_steps=3)}
    )["a"]
    single = run(engine, {"a": tiny_plan(tiny_catalog, seed=41, num_inference_steps=3)})["a"]
    assert [event.seed for event in pair if isinstance(event, ImageReady)] == [40, 41]
    assert np.abs(pixels(pair)[1] - pixels(single)[0]).max() <= 2
    assert np.abs(pixels(pair)[0] - pixels(pair)[1]).mean() > 1


def test_skip_ends_one_image_within_a_step(engine: Engine, tiny_catalog: Catalog) -> None:
    engine.admit("a", tiny_plan(tiny_catalog, num_images=2, num_inference_steps=20), {})
    while not any(isinstance(event, Progress) and event.step == 3 for _, event in engine.step()):
        pass
    engine.skip("a")
    assert ("a", ImageSkipped(0)) in engine.step()
    rest = [event for event in iter_events(engine) if not isinstance(event, Progress)]
    assert [type(event) for event in rest] == [ImageReady, Finished]
    assert rest[0].index == 1


def test_stop_ends_the_job_within_a_step(engine: Engine, tiny_catalog: Catalog) -> None:
    engine.admit("a", tiny_plan(tiny_catalog, num_inference_steps=20), {})
    while not any(isinstance(event, Progress) and event.step == 2 for _, event in engine.step()):
        pass
    calls = engine.counters()["unet_calls"]
    engine.cancel("a")
    assert engine.step() == [("a", Stopped())]
    assert engine.idle()
    assert engine.counters()["unet_calls"] == calls
    engine.cancel("a")
    engine.skip("a")
    assert engine.step() == []


def test_each_story_has_one_end(engine: Engine, tiny_catalog: Catalog) -> None:
    plans = {
        str(i): tiny_plan(tiny_catalog, seed=i, num_images=3, num_inference_steps=3)
        for i in range(4)
    }
    for events in run(engine, plans).values():
        assert [is_terminal(event) for event in events].count(True) == 1
        assert is_terminal(events[-1])
        assert sum(isinstance(event, ImageReady) for event in events) == 3


def test_a_picture_carries_the_plan_that_made_it(engine: Engine, tiny_catalog: Catalog) -> None:
    for output_format in ("png", "jpeg", "webp"):
        job = tiny_plan(tiny_catalog, num_inference_steps=2, output_format=output_format)
        ready = next(e for e in run(engine, {"a": job})["a"] if isinstance(e, ImageReady))
        picture = Image.open(io.BytesIO(ready.data))
        painted = read_plan(picture)
        assert painted is not None
        assert [name for name, _ in painted.hashes] == [job.base_model]
        assert replace(painted, hashes=()) == only_image(job, 0)
        assert plan_from_json(ready.plan or "") == painted
        assert ready.content_type == f"image/{output_format}" == Image.MIME[picture.format or ""]
        assert picture.size == job.size


def test_a_small_job_is_not_kept_waiting_by_a_large_one(
    engine: Engine, tiny_catalog: Catalog
) -> None:
    large = tiny_plan(tiny_catalog, num_images=8, num_inference_steps=6)
    small = tiny_plan(tiny_catalog, num_inference_steps=6, seed=1)
    engine.admit("large", large, {})
    engine.admit("small", small, {})
    order = []
    while not engine.idle():
        order += [job_id for job_id, event in engine.step() if isinstance(event, ImageReady)]
    assert order.index("small") < 4


def test_a_record_too_long_for_exif_is_left_out(engine: Engine, tiny_catalog: Catalog) -> None:
    long = tiny_plan(
        tiny_catalog,
        prompt="é" * 9999,
        negative_prompt="é" * 9999,
        guidance_scale=1,
        num_inference_steps=1,
        output_format="jpeg",
    )
    (ready,) = (e for e in run(engine, {"a": long})["a"] if isinstance(e, ImageReady))
    assert read_plan(Image.open(io.BytesIO(ready.data))) is None


def test_timings_name_the_stages(engine: Engine, tiny_catalog: Catalog) -> None:
    end = run(engine, {"a": tiny_plan(tiny_catalog, num_inference_steps=2)})["a"][-1]
    assert isinstance(end, Finished)
    assert set(end.timings) == {"load", "encode", "sample", "decode", "total"}
    assert end.timings["total"] >= end.timings["sample"] > 0


def test_a_checkpoint_of_another_kind_fails_with_a_sentence(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "checkpoints").mkdir()
    weights = {
        "cond_stage_model.x": np.zeros(1),
        "model.diffusion_model.input_blocks.0.0.weight": np.zeros((4, 4)),
    }
    save_file(weights, tmp_path / "checkpoints" / "old.safetensors")
    engine = create(str(tmp_path), device="cpu")
    catalog = engine._palette.catalog
    end = run(engine, {"a": tiny_plan(catalog)})["a"][-1]
    assert end == Failed(
        kind="model_incompatible",
        message="old.safetensors: expected an SDXL or Stable Diffusion 1.5 base checkpoint, "
        "got a Stable Diffusion 2.x model",
    )


def iter_events(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
    return events
