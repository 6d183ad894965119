"""Whole walks of the toy UNet with two image prompts in the joint formula give Fooocus' numbers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.conditioning.branch import Branch
from engine.conditioning.image_attention import ImagePrompt, ImageTokens
from engine.conditioning.size_ids import size_ids
from engine.conditioning.text import repeat_to_common_length
from engine.geometry import Size
from engine.loop import Denoiser, Running, Setup, step
from engine.passes import Course, Refining, begin
from engine.plan import Guidance
from engine.sampling.prediction import model_sampling
from tests.golden_data import golden_arrays, golden_folder, golden_json, relative_error
from tests.golden_walks import reported
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch

TOLERANCE = 1e-4
FACTS = golden_json("ip_adapter.json").get("e2e", {"cases": {}, "tasks": []})
ARRAYS = golden_arrays("ip_adapter.npz")
SAMPLER, SCHEDULER = "dpmpp_2m_sde_gpu", "karras"
GUIDANCE = {"adaptive_cfg": 7.0, "sharpness": 2.0}
EMPHASIS = {"pos": 1.5, "neg": 0.8}
EMPHASIS_END = 0.3
"""Fooocus' own settings, with which the walks were recorded."""


@pytest.fixture(scope="module")
def unets() -> Mapping[str | None, Any]:
    """The base model, and the refiner: the same with all weights turned round."""
    torch.set_num_threads(1)
    base, flipped = load_toy_unet(golden_folder()), load_toy_unet(golden_folder())
    with torch.no_grad():
        for weight in flipped.parameters():
            if weight.ndim >= 2:
                weight.copy_(weight.flip(tuple(range(weight.ndim))))
    return {None: base, "flip": flipped}


def image_prompts() -> list[ImagePrompt]:
    def tokens(image: int, side: str) -> ImageTokens:
        name = re.compile(rf"e2e_ip{image}_L(\d+)_k_{side}")
        layers = sorted(int(match[1]) for match in map(name.fullmatch, ARRAYS) if match)

        def of(kind: str) -> tuple[Tensor, ...]:
            keys = (f"e2e_ip{image}_L{layer}_{kind}_{side}" for layer in layers)
            return tuple(torch.from_numpy(ARRAYS[key]).float() for key in keys)

        return ImageTokens(of("k"), of("v"))

    return [
        ImagePrompt(positive=tokens(i, "pos"), negative=tokens(i, "neg"), **task)
        for i, task in enumerate(FACTS["tasks"])
    ]


def setup(case: Mapping[str, Any], unet: Any, prompts: Sequence[ImagePrompt] = ()) -> Setup:
    inputs = golden_arrays("e2e/inputs.npz")
    height, width = case["latent_hw"]
    contexts = [torch.from_numpy(inputs[case[side]]) for side in ("positive", "negative")]
    repeats = repeat_to_common_length(*(context.shape[1] for context in contexts)) or (1, 1)
    positive, negative = (
        Branch(
            context=context.repeat(1, times, 1),
            pooled=torch.from_numpy(inputs[f"pooled_{side}"]),
            size_ids=size_ids(Size(width * 8, height * 8), EMPHASIS[side], end=EMPHASIS_END),
        )
        for side, context, times in zip(("pos", "neg"), contexts, repeats, strict=True)
    )
    return Setup(
        Denoiser(unet, model_sampling(SCHEDULER)),
        positive,
        None if case["cfg"] == 1 else negative,
        image_prompts=prompts,
    )


def start(case: Mapping[str, Any], unets: Mapping[str | None, Any]) -> Running:
    """Begin a walk; the refiner takes over without the image prompts."""
    course = Course(
        sampler=SAMPLER,
        scheduler=SCHEDULER,
        steps=case["steps"],
        strength=1.0,
        seed=case["seed"],
        guidance=Guidance(guidance_scale=case["cfg"], **GUIDANCE),
        as_fooocus=True,
    )
    refining = None
    if case["refiner"]:
        refiner = setup(case, unets[case["refiner"]])
        refining = Refining(setup=refiner, method="joint", switch=case["switch"])
    base = setup(case, unets[None], image_prompts())
    return begin(course, base, torch.zeros(1, 4, *case["latent_hw"]), refining)


@pytest.mark.parametrize("name", list(FACTS["cases"]))
@torch.inference_mode()
def test_image_prompts_golden(name: str, unets: Mapping[str | None, Any]) -> None:
    case = FACTS["cases"][name]
    running = start(case, unets)
    asked, told, rows = [], [], []
    while not running.is_done:
        asked.append(running.asked)
        sides = 1 if running.setup.negative is None else 2
        count = step([running])
        rows += [sides // count] * count
        told.append(running.denoised)
    walked = reported(SAMPLER, asked, told, running.latents)["x"]
    assert rows[: len(case["batch_sizes"])] == case["batch_sizes"]
    assert len(rows) == len(ARRAYS[f"e2e_{name}_progress"])
    assert relative_error(walked, ARRAYS[f"e2e_{name}_x"]) <= TOLERANCE
    final = running.latent_format.to_vae(running.latents)
    assert relative_error(final, ARRAYS[f"e2e_{name}_final"]) <= TOLERANCE
