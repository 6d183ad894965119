"""The whole sampling path (noise, levels, sampler, model calls, guidance) gives Fooocus' numbers on the toy UNet."""

from typing import Any

import pytest
import torch

from engine.conditioning.branch import Branch
from engine.conditioning.size_ids import size_ids
from engine.conditioning.text import repeat_to_common_length
from engine.geometry import Size
from engine.loop import Denoiser, Running, step
from engine.plan import Guidance
from engine.sampling.noise import brownian_noise, draw_noise, independent_noise, seeded_generator
from engine.sampling.prediction import model_sampling
from engine.sampling.samplers import SAMPLERS
from engine.sampling.schedules import SCHEDULES, initial_latents, schedule
from tests.golden_data import golden_arrays, golden_folder, golden_json, relative_error
from tests.toy_unet import load_toy_unet

TOLERANCE = 1e-4
CASES = golden_json("e2e/cases.json")


def missing_feature(case: dict[str, Any]) -> str | None:
    """Name what a case needs that the engine does not have yet."""
    needs = {
        "inpaint": case["inpaint"],
        "ControlNet": case["controlnets"],
        "FreeU": case["freeu"],
        "refiner": case["refiner"] or case["method"] != "joint" or case["switch"] >= 0,
        f"sampler {case['sampler']}": case["sampler"] not in SAMPLERS,
        f"scheduler {case['scheduler']}": case["scheduler"] not in SCHEDULES,
    }
    return next((name for name, needed in needs.items() if needed), None)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser(load_toy_unet(golden_folder()), model_sampling("karras"))


def branches(case: dict[str, Any], inputs: Any) -> tuple[Branch, Branch | None]:
    settings = case["settings"]
    height, width = case["latent_hw"]
    contexts = [torch.from_numpy(inputs[case[side]]) for side in ("positive", "negative")]
    repeats = repeat_to_common_length(*(context.shape[1] for context in contexts)) or (1, 1)
    made = [
        Branch(
            context=context.repeat(1, times, 1),
            pooled=torch.from_numpy(inputs[f"pooled_{side}"]),
            size_ids=size_ids(
                Size(width * 8, height * 8), settings[f"adm_{side}"], end=settings["adm_end"]
            ),
        )
        for side, context, times in zip(("pos", "neg"), contexts, repeats, strict=True)
    ]
    return made[0], None if case["cfg"] == 1 else made[1]


@pytest.mark.torch
@pytest.mark.parametrize("name", list(CASES))
@torch.inference_mode()
def test_sampling_path_golden(name: str, denoiser: Denoiser) -> None:
    case = CASES[name]
    if missing := missing_feature(case):
        pytest.skip(f"not built yet: {missing}")
    torch.set_num_threads(1)
    inputs, expected = golden_arrays("e2e/inputs.npz"), golden_arrays(f"e2e/{name}.npz")
    model = model_sampling(case["scheduler"], "v_prediction" if case["v_pred"] else "epsilon")
    denoiser = Denoiser(denoiser.unet, model)
    levels = model.levels
    shape = (1, 4, *case["latent_hw"])
    sigmas = schedule(
        case["scheduler"],
        levels,
        case["steps"],
        strength=case["denoise"] or 1.0,
        as_fooocus=True,
    )
    assert sigmas == pytest.approx(expected["sigmas"].tolist(), rel=2e-6)
    generator = seeded_generator(case["seed"])
    noise = draw_noise(generator, shape)
    assert torch.equal(noise, torch.from_numpy(expected["noise"]))
    latents = torch.from_numpy(inputs[case["latent"]]) if case["latent"] else torch.zeros(shape)
    latents = model.latent_format.to_model(latents)
    sampler = SAMPLERS[case["sampler"]]
    source = independent_noise(generator, shape)
    if sampler.noise == "brownian":
        source = brownian_noise(case["seed"], shape, tuple(case["brownian_interval"]))
    positive, negative = branches(case, inputs)
    settings = case["settings"]
    running = Running(
        denoiser=denoiser,
        sampling=sampler.run(
            initial_latents(noise, latents, sigmas[0], levels), sigmas, source, levels
        ),
        positive=positive,
        negative=negative,
        guidance=Guidance(
            guidance_scale=case["cfg"],
            adaptive_cfg=settings["adaptive"],
            sharpness=settings["sharpness"],
        ),
    )
    estimates = []
    while not running.is_done:
        opens_step = running.asked.step is not None
        step([running])
        if opens_step:
            estimates.append(running.denoised)
    # tcd reports what it noises again, not the estimate.
    if "x0" in expected and case["sampler"] != "tcd":
        assert (
            relative_error(torch.cat(estimates), expected["x0"].reshape(-1, *shape[1:]))
            <= TOLERANCE
        )
    final = model.latent_format.to_vae(running.latents)
    assert relative_error(final, expected["final"]) <= TOLERANCE
