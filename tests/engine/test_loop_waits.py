"""The loop never waits for the device: nothing is read from it, and what is sent to it is sent without waiting.

The device is the meta device, from which nothing can be read; a dispatch mode watches what is sent to it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.conditioning.blend import Blend
from engine.conditioning.branch import Branch
from engine.conditioning.controls import Control
from engine.conditioning.image_attention import ImagePrompt, ImageTokens, image_layers
from engine.conditioning.size_ids import SizeIds
from engine.conditioning.text_keys import TextKeys
from engine.geometry import Size
from engine.loop import Denoiser, Running, Setup, step
from engine.models.controlnets import build_controlnet
from engine.models.levers import Levers, pull
from engine.passes import Course, begin
from engine.plan import FreeU, Guidance
from engine.sampling.prediction import model_sampling
from engine.sampling.samplers import SAMPLERS
from engine.sampling.tiling import lay_tiles
from engine.stages.kept_latents import Recorder
from tests.toy_controls import shake, toy_controlnet, toy_union

pytestmark = pytest.mark.torch

DEVICE = torch.device("meta")
SIZE = Size(192, 128)
ADAPTIVE = "dpm_adaptive"
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Waiting(AssertionError):
    """Something waited for the device."""


class Watch(TorchDispatchMode):
    """Refuses copies to the device that wait for it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:
            answer = func.decompose(*args, **kwargs)  # `to` is made of copies
        if answer is not NotImplemented:
            return answer
        answer = func(*args, **kwargs)
        if func in COPIES and answer.device == DEVICE:
            source, patient = (args[1], args[2:]) if func is COPIES[1] else (args[0], ())
            waits = not (kwargs.get("non_blocking") or any(patient))
            if source.device != DEVICE and waits:
                raise Waiting(f"{func}: {tuple(source.shape)} is sent, and waited for")
        return answer


def load(models_dir: Path) -> Any:
    from diffusers import UNet2DConditionModel

    torch.set_num_threads(1)
    folder = models_dir / "checkpoints" / "tiny" / "unet"
    return UNet2DConditionModel.from_pretrained(folder, use_safetensors=True).eval()


@pytest.fixture(scope="module")
def unet(models_dir: Path) -> Any:
    unet = load(models_dir).to(DEVICE)
    pull(Levers(), unet)
    return unet


def on_device(*shape: int) -> Tensor:
    return torch.zeros(shape, device=DEVICE)


def branch(unet: Any) -> Branch:
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    ids = SizeIds((64.0,) * 6, (32.0,) * 6, 0.3)
    return Branch(on_device(1, 7, config.cross_attention_dim), on_device(1, pooled), ids)


def setup(unet: Any, **known: Any) -> Setup:
    denoiser = Denoiser(unet, model_sampling("karras"), TextKeys(unet))
    return Setup(denoiser, branch(unet), branch(unet), **known)


def start(asked: Setup, sampler: str = "euler", **guided: Any) -> Running:
    guidance = Guidance(guidance_scale=4.0, **{"sharpness": 0.0, "adaptive_cfg": 7.0, **guided})
    course = Course(
        sampler=sampler, scheduler="karras", steps=3, strength=1.0, seed=1, guidance=guidance
    )
    cells = SIZE.latent
    return begin(course, asked, torch.zeros(1, 4, cells.height, cells.width))


def run(images: Sequence[Running]) -> None:
    """Paint to the end; the first step may work things out once."""
    with torch.inference_mode(), Watch():
        while going := [image for image in images if not image.is_done]:
            step(going)


def blend(unet: Any) -> dict[str, Any]:
    cells = SIZE.latent
    mask = torch.ones(1, 1, cells.height, cells.width)
    return {"seams": (Blend(torch.zeros(1, 4, *mask.shape[2:]), mask, 1), Recorder())}


def image_prompts(unet: Any) -> dict[str, Any]:
    keys = tuple(on_device(1, 4, width) for width in image_layers(unet).values())
    tokens = ImageTokens(keys, keys)
    cells = SIZE.latent
    mask = torch.ones(cells.height, cells.width)
    prompt = ImagePrompt(positive=tokens, negative=tokens, weight=0.6, stop=0.5, mask=mask)
    return {"image_prompts": [prompt]}


def tiles(unet: Any) -> dict[str, Any]:
    return {"tiles": lay_tiles(SIZE, Size(128, 128), Size(64, 64))}


def freeu(unet: Any) -> dict[str, Any]:
    return {"freeu": FreeU(b1=1.1, b2=1.2, s1=0.9, s2=0.8)}


def addition(unet: Any) -> dict[str, Any]:
    cells = SIZE.latent
    width = unet.config.block_out_channels[0]
    return {"addition": on_device(1, width, cells.height, cells.width)}


def test_no_sampler_waits(unet):
    run([start(setup(unet), sampler) for sampler in SAMPLERS if sampler != ADAPTIVE])


def test_the_adaptive_sampler_waits_since_it_chooses_its_steps_by_what_came_out(unet):
    with pytest.raises(RuntimeError, match="meta"):
        run([start(setup(unet), ADAPTIVE)])


@pytest.mark.parametrize(
    "known", [blend, image_prompts, tiles, freeu, addition], ids=lambda it: it.__name__
)
def test_nothing_that_is_told_makes_it_wait(unet, known: Callable[[Any], dict[str, Any]]):
    run([start(setup(unet, **known(unet))), start(setup(unet))])


def test_controlnets_wait_for_nothing(unet, models_dir):
    known = load(models_dir)
    mask = torch.ones(1, 1, SIZE.height, SIZE.width)
    controls = []
    for network in (toy_controlnet(known), toy_union(known)):
        net = build_controlnet("net", shake(network, 1).state_dict(), known)
        net.network.to(DEVICE)
        net.hint_encoder.to(DEVICE)
        hint = torch.zeros(1, 3, SIZE.height, SIZE.width)
        mode = 0 if net.modes else None
        controls.append(Control(net, hint, softness=0.5, guess=True, mask=mask, mode=mode))
    run([start(setup(unet, controls=controls)), start(setup(unet, controls=controls[:1]))])


def test_sharpness_and_adaptive_guidance_wait_for_nothing(unet):
    run([start(setup(unet), sharpness=2.0, adaptive_cfg=2.0), start(setup(unet))])


class Peek:
    """A seam that looks at the latents in a way that has to wait."""

    def __init__(self, look: Callable[[Tensor], Any]) -> None:
        self.look = look

    def before(self, x: Tensor, sigma: float) -> Tensor:
        self.look(x)
        return x

    def after(self, denoised: Tensor, sigma: float) -> Tensor:
        return denoised


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.mean()),
        lambda x: bool(x.isfinite().all()),
        lambda x: x.cpu(),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: torch.ones(2, 2).to(x),
        lambda x: x.new_empty(2, 2).copy_(torch.ones(2, 2)),
    ],
)
def test_what_waits_is_found(unet, look):
    run([start(setup(unet, seams=(Peek(lambda x: x.mean()),)))])  # what does not wait passes
    with pytest.raises((Waiting, RuntimeError, NotImplementedError, TypeError)):
        run([start(setup(unet, seams=(Peek(look),)))])
