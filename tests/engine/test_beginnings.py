"""Jobs that start from pictures, through the engine: what they come out as, what they share, and what they leave behind."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engine import (
    Event,
    Failed,
    Finished,
    ImageReady,
    InvalidRequest,
    Plan,
    Progress,
    Stopped,
    TextRequest,
    plan,
    plan_from_json,
)
from engine.engine import Engine, create
from engine.models.control_layouts import original_modules
from engine.models.upscale_nets import Compact
from engine.plan import request_of
from engine.stages.pictures import read_picture
from tests.libraries import library_of
from tests.tiny_model import write_tiny_model
from tests.toy_controls import HINT_WIDTHS, control_lora, shake

pytestmark = pytest.mark.torch

SIDE = 64
STEPS = 5
PATCHED = "mid_block.resnets.0.conv1.weight"
PARTNERS = {
    "PyraCanny": "edges",
    "CPDS": "layout.safetensors",
    "upscaler": "repeats.safetensors",
    "inpaint head": "head.safetensors",
    "inpaint v2.6": "patch.safetensors",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder whose tiny model paints 64 pixels, with helpers of its own."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "pocket")
    card = {"native_size": SIDE, "buckets": [[SIDE, SIDE]], "partners": PARTNERS}
    card |= {"summary": "", "examples": []}
    (folder / "pocket" / "pochade.json").write_text(json.dumps(card))
    write_tiny_model(folder / "checkpoints" / "other", seed=1)
    write_controls(folder)
    for name in ("upscale_models", "inpaint", "loras"):
        (folder / name).mkdir()
    net = Compact(filters=1, layers=1, scale=2)
    repeats = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    save_file(repeats, folder / "upscale_models" / "repeats.safetensors")
    drawn = torch.Generator().manual_seed(3)
    head = torch.randn(32, 5, 3, 3, generator=drawn) / 10
    save_file({"head": head}, folder / "inpaint" / "head.safetensors")
    patch = {
        f"{PATCHED}|q": torch.randint(0, 256, (64, 64, 3, 3), generator=drawn, dtype=torch.uint8),
        f"{PATCHED}|lo": torch.tensor(-0.1),
        f"{PATCHED}|hi": torch.tensor(0.1),
    }
    save_file(
        {f"diffusion_model.{key}": value for key, value in patch.items()},
        folder / "inpaint" / "patch.safetensors",
    )
    vae = load_file(folder / "pocket" / "vae" / "diffusion_pytorch_model.safetensors")
    (folder / "vae").mkdir()
    save_file(
        vae | {"quant_conv.bias": vae["quant_conv.bias"] + 2},
        folder / "vae" / "shifted.safetensors",
    )
    place = "lora_unet_mid_block_resnets_0_conv1"
    lora = {
        f"{place}.lora_down.weight": torch.randn(2, 64, 3, 3, generator=drawn),
        f"{place}.lora_up.weight": torch.randn(64, 2, 1, 1, generator=drawn) / 20,
    }
    save_file(lora, folder / "loras" / "ink.safetensors")
    return folder


def write_controls(folder: Path) -> None:
    """Write a ControlNet in diffusers' form, and one as Stability's control-LoRAs are."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "pocket" / "unet", use_safetensors=True)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_WIDTHS)
    shake(net).save_pretrained(folder / "controlnet" / "edges")
    weights = net.state_dict()
    names = original_modules(unet.config, {key.rpartition(".")[0] for key in weights})
    original = {}
    for key, value in weights.items():
        module, _, kind = key.rpartition(".")
        original[f"{names.get(module, module)}.{kind}"] = value
    save_file(control_lora(original, rank=2), folder / "controlnet" / "layout.safetensors")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    made = create(str(folder), model="pocket", device="cpu")
    torch.set_num_threads(1)
    return made


@pytest.fixture(scope="module")
def send(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], str]:
    """Keep a picture as a job's file, and give its name; `send.files` has all."""
    folder = tmp_path_factory.mktemp("sent")
    files: dict[str, Path] = {}

    def sent(pixels: Any) -> str:
        data = io.BytesIO()
        Image.fromarray(np.asarray(pixels, np.uint8)).save(data, "PNG")
        name = hashlib.sha256(data.getvalue()).hexdigest()
        files[name] = folder / name
        files[name].write_bytes(data.getvalue())
        return name

    sent.files = files  # type: ignore[attr-defined]
    return sent


def picture(width: int = SIDE, height: int = SIDE, seed: int = 0) -> Any:
    """A few soft spots of colour."""
    rng = np.random.default_rng(seed)
    spots = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(spots.resize((width, height), Image.Resampling.BICUBIC))


def hole(width: int = SIDE, height: int = SIDE) -> Any:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    return mask


def job(engine: Engine, *, seed: int = 7, **fields: Any) -> Plan:
    request = {"aspect_ratio": "64x64", "num_images": 1, "styles": (), "prompt": "a star"}
    advanced = {"num_inference_steps": STEPS, "sampler": "euler", "previews": False}
    advanced |= fields.pop("advanced", {})
    asked = TextRequest.parse({**request, **fields, "advanced": advanced})
    return plan(asked, library_of(engine._palette.catalog), seed=seed)


def run(engine: Engine, plans: Mapping[str, Plan], pictures: Any) -> dict[str, list[Event]]:
    told: dict[str, list[Event]] = {job_id: [] for job_id in plans}
    for job_id, planned in plans.items():
        engine.admit(job_id, planned, getattr(pictures, "files", pictures))
    while not engine.idle():
        for job_id, event in engine.step():
            told[job_id].append(event)
    return told


def painted(engine: Engine, planned: Plan, pictures: Any) -> Any:
    """Run one job, and give its picture."""
    events = run(engine, {"a": planned}, pictures)["a"]
    assert isinstance(events[-1], Finished), events[-1]
    return pixels(events)


def pixels(events: list[Event]) -> Any:
    (data,) = (event.data for event in events if isinstance(event, ImageReady))
    return np.asarray(Image.open(io.BytesIO(data)), dtype=np.int16)


def weights_of(engine: Engine) -> str:
    """The sha256 of all weights of the UNet."""
    digest = hashlib.sha256()
    for name, weight in engine._palette.model.loaded.unet.state_dict().items():
        digest.update(name.encode() + weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def test_less_strength_keeps_more_of_the_picture(engine: Engine, send: Any) -> None:
    image = send(picture(90, 50))

    def spread(strength: float) -> float:
        asked = {"image": image, "method": "Vary (Subtle)", "strength": strength}
        two = [
            painted(engine, job(engine, seed=seed, upscale_or_vary=asked), send) for seed in (1, 2)
        ]
        assert two[0].shape == (50, 90, 3)
        return float(np.abs(two[0] - two[1]).mean())

    assert spread(0.05) < spread(0.5) < spread(1.0)


def test_the_vae_that_was_asked_for_encodes_too(engine: Engine, send: Any) -> None:
    asked = {"image": send(picture()), "method": "Vary (Subtle)", "strength": 0.05}
    own, other = (
        painted(engine, job(engine, upscale_or_vary=asked, advanced={"vae": name}), send)
        for name in (None, "shifted.safetensors")
    )
    assert np.abs(own - other).mean() > 1  # they decode alike


def test_a_slot_of_weight_0_equals_no_slot(engine: Engine, send: Any) -> None:
    slot = {"image": send(picture()), "type": "PyraCanny", "weight": 0}
    plain, off, on = (
        painted(engine, job(engine, image_prompts=slots), send)
        for slots in ([], [slot], [slot | {"weight": 2, "stop_at": 1}])
    )
    np.testing.assert_array_equal(off, plain)
    assert np.abs(on - plain).max() > 0


def test_jobs_with_other_controls_share_calls(engine: Engine, send: Any) -> None:
    plans = {
        kind: job(
            engine,
            seed=number,
            image_prompts=[{"image": send(picture(seed=number)), "type": kind, "stop_at": 1}],
        )
        for number, kind in enumerate(("PyraCanny", "CPDS"))
    }
    alone = {kind: painted(engine, planned, send) for kind, planned in plans.items()}
    before = engine.counters()["unet_calls"]
    together = run(engine, plans, send)
    assert engine.counters()["unet_calls"] - before == STEPS
    for kind, events in together.items():
        difference = np.abs(pixels(events) - alone[kind])
        assert difference.max() <= 2
        assert difference.mean() < 0.05


def test_the_end_of_a_repainted_picture_is_without_the_patch(engine: Engine, send: Any) -> None:
    plain_job = job(engine, advanced={"deterministic": True})
    plain, before = painted(engine, plain_job, send), weights_of(engine)
    asked = {"image": send(picture()), "mask": send(hole())}
    planned = job(engine, inpaint=asked, advanced={"num_inference_steps": 10})
    assert planned.refiner is not None
    assert planned.refiner.switch == 8
    engine.admit("a", planned, send.files)
    by_patched, events = [], []
    while not engine.idle():
        events += [event for _, event in engine.step()]
        model, work = engine._palette.model, engine._works.get("a")
        for image in work.running.values() if work else ():
            by_patched.append(image.denoiser.unet is model.loaded.unet)
            base, twin = (
                dict(net.named_parameters()) for net in (model.loaded.unet, model.unpatched)
            )
            unlike = {name for name, weight in base.items() if twin[name] is not weight}
            assert unlike == {PATCHED}
            assert not torch.equal(base[PATCHED], twin[PATCHED])
    # the picture is asked for before each of 10 calls; after the ninth answer the other UNet goes on
    assert by_patched == [True] * 8 + [False]
    assert isinstance(events[-1], Finished)
    np.testing.assert_array_equal(painted(engine, plain_job, send), plain)
    assert weights_of(engine) == before
    assert engine._palette.model.unpatched is None
    assert engine._palette.model.refiner is None


def test_what_is_far_from_the_mask_stays(engine: Engine, send: Any) -> None:
    image = picture(100, 80)
    made = painted(
        engine, job(engine, inpaint={"image": send(image), "mask": send(hole(100, 80))}), send
    )
    changed = np.abs(made - image.astype(np.int16)).any(2)
    assert changed[20:40, 25:50].any()
    changed[18:42, 23:52] = False  # the feather is 2 pixels at this size
    assert not changed.any()


def test_outpainting_needs_no_mask(engine: Engine, send: Any) -> None:
    image = picture(60, 50)
    asked = {"image": send(image), "outpaint": ["Left", "Top"]}
    made = painted(engine, job(engine, inpaint=asked), send)
    assert made.shape == (50 + 15, 60 + 18, 3)
    np.testing.assert_array_equal(made[15 + 2 :, 18 + 2 :], image[2:, 2:])


def test_a_control_lora_follows_loras_and_the_patch(engine: Engine, send: Any) -> None:
    slot = {"image": send(picture()), "type": "CPDS", "stop_at": 1}
    asked = {"image": send(picture(seed=4)), "mask": send(hole())}

    def merged() -> Any:
        (net,) = (net for net in engine._palette.model.guides._weights._nets.values() if net.merged)
        (item,) = (
            item
            for item in net.merged
            if item.base is engine._palette.model.loaded.unet.get_parameter(PATCHED)
        )
        whole = item.base.detach().clone(memory_format=torch.contiguous_format)
        item.change.add_to(whole, 1.0)
        torch.testing.assert_close(item.weight, whole)
        return item.weight.clone()

    loras = [{"path": "ink.safetensors", "scale": 1}]
    stages = ({}, {"loras": loras}, {"inpaint": asked}, {"loras": loras, "inpaint": asked}, {})
    seen = []
    for fields in stages:
        painted(engine, job(engine, image_prompts=[slot], **fields), send)
        seen.append(merged())
    assert torch.equal(seen[0], seen[-1])
    for one in range(4):
        for other in range(one):
            assert not torch.equal(seen[one], seen[other])


def test_the_fast_way_paints_nothing(engine: Engine, send: Any) -> None:
    image, before = picture(70, 40), engine.counters()["unet_calls"]
    asked = {"image": send(image), "method": "Upscale (Fast 2x)"}
    planned = job(engine, upscale_or_vary=asked, num_images=3)
    assert len(planned.images) == 1
    made = painted(engine, planned, send)
    assert engine.counters()["unet_calls"] == before
    assert np.abs(made - image.repeat(2, 0).repeat(2, 1)).max() <= 1


def test_enlarging_is_told_and_ends_when_asked(engine: Engine, send: Any) -> None:
    asked = {"image": send(picture(700, 260)), "method": "Upscale (Fast 2x)"}
    planned = job(engine, upscale_or_vary=asked)
    told = [
        event for event in run(engine, {"a": planned}, send)["a"] if isinstance(event, Progress)
    ]
    shares = [event.step for event in told if event.stage == "enlarging"]
    assert len(shares) > 3
    assert shares == sorted(shares)
    assert shares[-1] == 100
    engine.admit("a", planned, send.files)
    while not any(isinstance(event, Progress) for _, event in engine.step()):
        pass
    engine.cancel("a")
    assert engine.step() == [("a", Stopped())]
    assert engine.idle()


def test_others_are_painted_while_a_picture_is_enlarged(engine: Engine, send: Any) -> None:
    large = {"image": send(picture(1500, 500)), "method": "Upscale (Fast 2x)"}
    plans = {
        "large": job(engine, upscale_or_vary=large),
        "small": job(engine, advanced={"num_inference_steps": 2}),
    }
    order = []
    for job_id, planned in plans.items():
        engine.admit(job_id, planned, send.files)
    while not engine.idle():
        order += [job_id for job_id, event in engine.step() if isinstance(event, Finished)]
    assert order == ["small", "large"]


def test_other_weights_may_come_between_two_looks(engine: Engine, send: Any) -> None:
    asked = {"image": send(picture(150, 40)), "method": "Upscale (2x)"}
    planned = job(engine, upscale_or_vary=asked)
    undisturbed = painted(engine, planned, send)
    engine.admit("a", planned, send.files)
    while not (work := engine._works["a"]).looking:
        engine.step()
    engine._palette.bring(job(engine, advanced={"base_model": "other"}))
    events = []
    while not engine.idle():
        events += [event for _, event in engine.step()]
    assert work.is_over
    assert engine._palette.serves(planned)
    np.testing.assert_array_equal(pixels(events), undisturbed)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"upscale_or_vary": {"image": "0" * 64}}, "upscale_or_vary.image"),
        ({"inpaint": {"image": "0" * 64, "outpaint": ["Top"]}}, "inpaint.image"),
        ({"image_prompts": [{"image": "0" * 64, "type": "CPDS"}]}, "image_prompts"),
    ],
    ids=["vary", "inpaint", "control"],
)
def test_a_picture_that_did_not_come_fails_its_job_alone(
    fields: dict[str, Any], field: str, engine: Engine
) -> None:
    told = run(engine, {"a": job(engine, **fields), "b": job(engine)}, {})
    end = told["a"][-1]
    assert isinstance(end, Failed)
    assert (end.kind, end.field) == ("invalid_request", field)
    assert isinstance(told["b"][-1], Finished)


def refused(engine: Engine, send: Any, **fields: Any) -> Failed:
    end = run(engine, {"a": job(engine, **fields)}, send)["a"][-1]
    assert isinstance(end, Failed)
    assert end.kind == "invalid_request"
    return end


def test_pictures_that_cannot_become_a_result_are_refused(engine: Engine, send: Any) -> None:
    one = send(picture(1, 1))
    assert (
        refused(engine, send, inpaint={"image": one, "outpaint": ["Top"]}).field
        == "inpaint.outpaint"
    )
    dark = send(np.zeros((8, 8), np.uint8))
    assert refused(engine, send, inpaint={"image": one, "mask": dark}).field == "inpaint.mask"
    thin = send(np.zeros((1, 5000, 3), np.uint8))
    asked = {"image": thin, "method": "Upscale (2x)"}
    assert refused(engine, send, upscale_or_vary=asked).field == "upscale_or_vary.image"
    long = {"image": send(np.zeros((2, 9000, 3), np.uint8)), "method": "Upscale (Fast 2x)"}
    end = refused(engine, send, upscale_or_vary=long, output_format="webp")
    assert "16383" in end.message
    needle = send(np.zeros((1, 10**6, 3), np.uint8))
    slots = [{"image": needle, "type": "CPDS"}]
    assert refused(engine, send, image_prompts=slots).field == "image_prompts"


def test_one_pixel_can_be_changed_in_every_way(engine: Engine, send: Any) -> None:
    one, light = send(picture(1, 1)), send(np.full((3, 2), 255, np.uint8))
    sizes = {
        "Vary (Subtle)": (1, 1),
        "Upscale (1.5x)": (SIDE, SIDE),
        "Upscale (Fast 2x)": (SIDE, SIDE),
    }
    for method, size in sizes.items():
        made = painted(engine, job(engine, upscale_or_vary={"image": one, "method": method}), send)
        assert made.shape[:2] == size
    made = painted(engine, job(engine, inpaint={"image": one, "mask": light}), send)
    assert made.shape[:2] == (1, 1)


def test_a_picture_that_is_used_again_asks_for_the_same(engine: Engine, send: Any) -> None:
    asked = {
        "image": send(picture()),
        "mask": send(hole()),
        "additional_prompt": "an eye",
        "engine": "None",
    }
    events = run(engine, {"a": job(engine, inpaint=asked)}, send)["a"]
    (ready,) = (event for event in events if isinstance(event, ImageReady))
    made = plan_from_json(ready.plan or "")
    assert made.size == (SIDE, SIDE)
    again = plan(TextRequest.parse(request_of(made)), library_of(engine._palette.catalog), seed=99)
    assert again.images[0].positive == made.images[0].positive == ("an eye", "a star")
    np.testing.assert_array_equal(painted(engine, again, send), pixels(events))


def test_the_largest_pictures_are_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (8000, 8000)).save(path)
    assert read_picture(path, "inpaint.mask").nbytes == 64_000_000
    Image.new("1", (8000, 8001)).save(path)
    with pytest.raises(InvalidRequest, match="8000x8001"):
        read_picture(path, "inpaint.mask")
