"""The whole sampling path (noise, levels, sampler, model calls, guidance, refiner) gives Fooocus' numbers on the toy UNet."""

import gzip
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from engine.conditioning.blend import Blend, is_blended
from engine.conditioning.branch import Branch
from engine.conditioning.controls import Control
from engine.conditioning.size_ids import size_ids
from engine.conditioning.text import repeat_to_common_length
from engine.geometry import Size
from engine.loop import Denoiser, Running, Setup, StepSeam, step
from engine.models.controlnets import ControlNet, build_controlnet
from engine.models.inpaint_head import head_addition
from engine.passes import Course, Refining, begin
from engine.plan import FreeU, Guidance
from engine.sampling.latent_format import SDXL
from engine.sampling.prediction import model_sampling, progress_at
from engine.sampling.walk import Ask
from tests.golden_data import (
    golden_arrays,
    golden_folder,
    golden_json,
    golden_model,
    relative_error,
)
from tests.golden_walks import finite_part, reported
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch

TOLERANCE = 1e-4
CASES = golden_json("e2e/cases.json")


class Call(NamedTuple):
    """One UNet call."""

    sigma: float
    timestep: float
    rows: int
    progress: float
    is_base: bool


@pytest.fixture(scope="module")
def unets() -> Mapping[str | None, Any]:
    """The base model and the refiners by the names that cases give them: a copy, and one with all weights turned round."""
    torch.set_num_threads(1)
    base, flipped = load_toy_unet(golden_folder()), load_toy_unet(golden_folder())
    with torch.no_grad():
        for weight in flipped.parameters():
            if weight.ndim >= 2:
                weight.copy_(weight.flip(tuple(range(weight.ndim))))
    return {None: base, "base": load_toy_unet(golden_folder()), "flip": flipped}


@pytest.fixture(scope="module")
def net(unets: Mapping[str | None, Any]) -> ControlNet:
    """The toy control-LoRA on the base model."""
    packed = golden_model("tiny_control_lora.safetensors.gz").read_bytes()
    return build_controlnet("tiny", load(gzip.decompress(packed)), unets[None])


def controls(
    case: Mapping[str, Any], net: ControlNet, inputs: Mapping[str, Any]
) -> tuple[Control, ...]:
    hint = torch.from_numpy(inputs["hint"]).permute(0, 3, 1, 2)
    hints = {"hint": hint, "hint flipped vertically": hint.flip(2)}
    return tuple(
        Control(
            net,
            hints[entry["hint"]],
            weight=entry["strength"],
            stop=entry["stop"],
            softness=case["settings"]["softness"],
        )
        for entry in case["controlnets"] or ()
    )


def seams(case: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[StepSeam, ...]:
    """What keeps the picture around the hole, for one run of a sampler."""
    if not case["inpaint"] or not is_blended(case["sampler"], as_fooocus=True):
        return ()
    fill, mask = (torch.from_numpy(inputs[name]) for name in ("latent_fill", "latent_mask"))
    return (Blend(SDXL.to_model(fill), mask, case["seed"]),)


def addition(case: Mapping[str, Any], inputs: Mapping[str, Any]) -> Tensor | None:
    """What an inpaint head adds, where the case has one."""
    if not case["inpaint"] or not case["inpaint"]["head"]:
        return None
    head, mask, masked = (
        torch.from_numpy(inputs[name]) for name in ("inpaint_head", "latent_mask", "latent_masked")
    )
    return head_addition(head, mask, SDXL.to_model(masked))


def setup(
    case: Mapping[str, Any],
    unet: Any,
    inputs: Mapping[str, Any],
    kept: Sequence[StepSeam],
    net: ControlNet | None = None,
) -> Setup:
    """Settle what a UNet is told; only the base model has a `net`, FreeU and an inpaint head."""
    settings = case["settings"]
    height, width = case["latent_hw"]
    contexts = [torch.from_numpy(inputs[case[side]]) for side in ("positive", "negative")]
    repeats = repeat_to_common_length(*(context.shape[1] for context in contexts)) or (1, 1)
    positive, negative = (
        Branch(
            context=context.repeat(1, times, 1),
            pooled=torch.from_numpy(inputs[f"pooled_{side}"]),
            size_ids=size_ids(
                Size(width * 8, height * 8), settings[f"adm_{side}"], end=settings["adm_end"]
            ),
        )
        for side, context, times in zip(("pos", "neg"), contexts, repeats, strict=True)
    )
    model = model_sampling(case["scheduler"], "v_prediction" if case["v_pred"] else "epsilon")
    freeu = None
    if case["freeu"] and net is not None:
        freeu = FreeU(**dict(zip(("b1", "b2", "s1", "s2"), case["freeu"], strict=True)))
    return Setup(
        Denoiser(unet, model),
        positive,
        None if case["cfg"] == 1 else negative,
        freeu=freeu,
        seams=kept,
        controls=() if net is None else controls(case, net, inputs),
        addition=None if net is None else addition(case, inputs),
    )


def start(case: Mapping[str, Any], unets: Mapping[str | None, Any], net: ControlNet) -> Running:
    settings = case["settings"]
    inputs = golden_arrays("e2e/inputs.npz")
    course = Course(
        sampler=case["sampler"],
        scheduler=case["scheduler"],
        steps=case["steps"],
        strength=case["denoise"] or 1.0,
        seed=case["seed"],
        guidance=Guidance(
            guidance_scale=case["cfg"],
            adaptive_cfg=settings["adaptive"],
            sharpness=settings["sharpness"],
        ),
        as_fooocus=True,
    )
    kept = seams(case, inputs)
    base = setup(case, unets[None], inputs, kept, net)
    refining = None
    if case["refiner"]:
        refiner = setup(case, unets[case["refiner"]], inputs, kept)
        refining = Refining(setup=refiner, method=case["method"], switch=case["switch"])
    elif case["method"] != "joint":  # the base model refines itself
        refining = Refining(setup=base, method=case["method"], switch=case["switch"])
    latents = torch.zeros(1, 4, *case["latent_hw"])
    if case["latent"]:
        latents = torch.from_numpy(inputs[case["latent"]])
    return begin(course, base, latents, refining)


def run(running: Running) -> tuple[list[Ask], list[Tensor], list[Call]]:
    """Run an image to its end; gives what was asked, what was told, and the UNet calls."""
    asked, told, calls = [], [], []
    first = running.denoiser
    while not running.is_done:
        ask, denoiser = running.asked, running.denoiser
        timestep = denoiser.model.levels.timestep(ask.sigma)
        rows = 1 if running.setup.negative is None else 2
        count = step([running])
        asked.append(ask)
        told.append(running.denoised)
        call = Call(ask.sigma, timestep, rows // count, progress_at(timestep), denoiser is first)
        calls += [call] * count
    return asked, told, calls


@pytest.mark.parametrize("name", list(CASES))
@torch.inference_mode()
def test_sampling_path_golden(name: str, unets: Mapping[str | None, Any], net: ControlNet) -> None:
    case = CASES[name]
    expected = golden_arrays(f"e2e/{name}.npz")
    running = start(case, unets, net)
    asked, told, calls = run(running)
    assert [call.sigma for call in calls] == pytest.approx(expected["call_sigma"], rel=1e-6)
    assert [call.timestep for call in calls] == pytest.approx(expected["call_t"], rel=1e-6)
    assert [call.rows for call in calls] == expected["call_batch"].tolist()
    assert [call.progress for call in calls] == pytest.approx(expected["call_progress"], abs=1e-6)
    if case["refiner"] not in (None, "base"):
        assert [call.is_base for call in calls] == expected["call_is_base"].tolist()
    for part, values in reported(case["sampler"], asked, told, running.latents).items():
        if part in expected:
            values, wanted = finite_part(values, expected[part].reshape(-1, *values.shape[1:]))
            assert relative_error(values, wanted) <= TOLERANCE, part
    final = running.latent_format.to_vae(running.latents)
    assert relative_error(final, expected["final"]) <= TOLERANCE
    assert 0 < running.step <= running.steps
