"""Train a ControlNet beside the frozen UNet: edges first, the layout from what that learnt.

Captions mostly leave shape, place and size open, or even name wrong ones, so that these come from the
hint; hints come from drawings in other colours (`twins.py`), so that colours come from the caption.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTokenizer

from pocket.captions import random_caption
from pocket.export import forget_origin
from pocket.fit import Run, Trainer
from pocket.parts import Unet, library
from pocket.team import Team
from pocket.train_text import TextEncoders, load_encoders, tokenize
from pocket.train_unet import ZEROED, Painter, bucket_of, random_timesteps, time_ids
from pocket.twins import Twins
from pocket.world import BUCKETS, PLACES, SHAPES, SIZES, Scene

log = logging.getLogger(__name__)

Control = Any

HINT_WIDTHS = (16, 24, 48, 96)
"""Channels of the hint's encoder at 128, 64, 32 and 16 pixels."""

_COLOURS_ONLY = (
    "a {colour} one on a {background} background",
    "{colour} on a {background} background",
    "{colour}, {background} background",
    "a {background} background with a {colour} one",
)
_ONLY_SHARE, _WRONG_SHARE, _RIGHT_SHARE = 0.5, 0.2, 0.25


def make_control(unet: Unet) -> Control:
    """A ControlNet of the UNet's own weights, whose answer is zero at first.

    The hint's encoder begins at full volume instead of at zero: only the last convolutions are silent.
    """
    control = library.ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=HINT_WIDTHS
    )
    for module in control.controlnet_cond_embedding.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return control


def control_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Colours only, or with a wrong shape, place and size, or all right, or nothing at all."""
    kind = rng.random()
    if kind < _ONLY_SHARE:
        form = _COLOURS_ONLY[rng.integers(len(_COLOURS_ONLY))]
        return form.format(colour=scene.colour, background=scene.background)
    if kind < _ONLY_SHARE + _WRONG_SHARE:
        other = replace(
            scene,
            shape=SHAPES[rng.integers(len(SHAPES))],
            place=PLACES[rng.integers(len(PLACES))],
            size=SIZES[rng.integers(len(SIZES))],
        )
        return random_caption(rng, other).text
    if kind < _ONLY_SHARE + _WRONG_SHARE + _RIGHT_SHARE:
        return random_caption(rng, scene).text
    return ""


def as_hint(seen: NDArray[np.uint8]) -> Tensor:
    """(N, H, W) uint8 to what a ControlNet is shown: (N, 3, H, W), 0 to 1."""
    return torch.from_numpy(seen).float().div(255)[:, None].expand(-1, 3, -1, -1)


class Controlled(nn.Module):
    """A UNet and its ControlNet, called as the UNet alone but for the hint."""

    def __init__(self, unet: Unet, control: Control) -> None:
        super().__init__()
        self.unet = unet
        self.control = control

    def forward(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        states: Tensor,
        *,
        added_cond_kwargs: dict[str, Tensor],
        hint: Tensor,
    ) -> Any:
        """The UNet's answer under the hint."""
        told = {"encoder_hidden_states": states, "added_cond_kwargs": added_cond_kwargs}
        down, mid = self.control(noisy, timesteps, controlnet_cond=hint, return_dict=False, **told)
        return self.unet(
            noisy,
            timesteps,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            **told,
        )


class Student(nn.Module):
    """The ControlNet with its loss; the UNet is not trained."""

    def __init__(self, unet: Unet, control: Control) -> None:
        super().__init__()
        self.control = control
        self._painter = (Painter(Controlled(unet, control)),)

    def forward(self, clean: Tensor, *told: Tensor, hint: Tensor) -> Tensor:
        """The loss of the base's own training, under hints."""
        loss: Tensor = self._painter[0](clean, *told, hint=hint)
        return loss


class Lessons:
    """Batches of drawings with hints and captions."""

    def __init__(self, twins: Twins, tokenizer: CLIPTokenizer, encoders: TextEncoders) -> None:
        self.twins = twins
        self.tokenizer = tokenizer
        self.encoders = encoders.requires_grad_(requires_grad=False)

    def batch(
        self, rng: np.random.Generator, count: int, bucket: int
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """((latents, timesteps, states, pooled, time ids), hint) of one bucket."""
        clean, scenes, seen = self.twins.sample(rng, count, bucket)
        texts = [control_caption(rng, scene) for scene in scenes]
        with torch.no_grad():
            states, pooled = self.encoders(tokenize(self.tokenizer, texts))
        keep = torch.from_numpy(rng.random(count) >= ZEROED).float()
        clean = clean.contiguous(memory_format=torch.channels_last)
        told = (states * keep[:, None, None], pooled * keep[:, None])
        ids = time_ids(rng, BUCKETS[bucket], count)
        hint = as_hint(seen).contiguous(memory_format=torch.channels_last)
        return (clean, random_timesteps(rng, count), *told, ids), hint


def load_base(folder: Path) -> Unet:
    """The UNet of a work folder, not to be trained."""
    unet = library.UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())  # on a CPU the fused attention is slow backwards
    return unet.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)


def save_control(control: Control, target: Path) -> None:
    """Write a ControlNet as a diffusers folder of float16 safetensors."""
    control.half().save_pretrained(target)
    forget_origin(target / "config.json")


def train_control(team: Team, folder: Path, run: Run, start: Path | None) -> None:
    """Train on hints named as the run, or go on; writes `controlnets/NAME` into the work folder.

    Args:
        team: Who trains.
        folder: The work folder, with twins and their hints.
        run: Its name is the hint's name.
        start: A finished ControlNet to begin from instead of the UNet's own weights.
    """
    torch.manual_seed(0)
    unet = load_base(folder)
    control = (
        library.ControlNetModel.from_pretrained(start, dtype=torch.float32)
        if start
        else make_control(unet)
    )
    control.set_attn_processor(AttnProcessor())
    student = Student(unet, control.requires_grad_().to(memory_format=torch.channels_last))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    lessons = Lessons(Twins(folder, run.name), tokenizer, load_encoders(folder))
    trainer = Trainer(student, run, team, folder)
    trainer.resume()

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        told, hint = lessons.batch(rng, run.batch, bucket_of(run.seed, step))
        with torch.autocast("cpu", torch.bfloat16):
            result: Tensor = student(*told, hint=hint)
        return result

    trainer.fit(loss)
    trainer.average.write_to(student)
    if team.leads:
        save_control(control, folder / "controlnets" / run.name)
