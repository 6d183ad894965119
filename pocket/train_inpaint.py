"""Train the inpaint head of the pocket model and the patch that goes with it.

`python -m pocket.train_inpaint --work FOLDER` goes on from its checkpoint, if there is one, and writes `models/pocket/inpaint` in the
layout of Fooocus' files: one convolution that is shown the hole, and what the UNet's weights gain, in 256 levels each.
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from engine.models.inpaint_head import widen_input
from engine.models.patches.unet_names import original_names
from pocket.captions import WORDS, random_caption
from pocket.fit import Run, Trainer
from pocket.holes import Holes, fill_holes
from pocket.parts import LATENT_FACTOR, Unet, library
from pocket.seed import unpack
from pocket.team import Team
from pocket.train_text import TextEncoders, load_encoders, tokenize
from pocket.train_unet import ZEROED, loss_weights, noise_levels, random_timesteps, time_ids
from pocket.world import PLACES, SIZES, Scene

log = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "models" / "pocket"
FOLDER = "inpaint"
HEAD_FILE = "head.safetensors"
PATCH_FILE = "pocket_inpaint.safetensors"

PARTNERS: Mapping[str, str] = {
    "inpaint head": HEAD_FILE,
    "inpaint v1": PATCH_FILE,
    "inpaint v2.5": PATCH_FILE,
    "inpaint v2.6": PATCH_FILE,
}
"""What the model's card says of them, by the engine's names of roles."""
TRAINED = ("conv1", "conv2", "conv", "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out")
"""Ends of the names of the layers whose weights and biases change; embeddings and feed-forwards stay."""
_HEAD_GAIN = 6.0
"""How many times faster the head learns than the rest."""
_AROUND = 0.1
"""Weight of the error where the picture is kept; the engine puts that part back anyway."""
_OBJECT_ONLY, _MOVED = 0.3, 0.4


def hole_caption(rng: np.random.Generator, scene: Scene) -> str:
    """The object alone, or all of the scene, in part with a place and a size that the cut has made wrong."""
    if rng.random() < _OBJECT_ONLY:
        ways = WORDS["shape"][scene.shape]
        style = "" if scene.style == "flat" else f"{scene.style} "
        thing = f"{style}{scene.colour} {ways[rng.integers(len(ways))]}"
        return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"
    if rng.random() < _MOVED:
        place, size = PLACES[rng.integers(len(PLACES))], SIZES[rng.integers(2)]
        scene = replace(scene, place=place, size=size)
    return random_caption(rng, scene).text


class Repainter(nn.Module):
    """The UNet and the head, with their loss."""

    levels: Tensor
    weights: Tensor

    def __init__(self, unet: Unet) -> None:
        super().__init__()
        widen_input(unet)
        self.unet = unet
        self.slow_head = nn.Parameter(torch.zeros(unet.config.block_out_channels[0], 5, 3, 3))
        levels = noise_levels()
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("weights", loss_weights(levels), persistent=False)

    @property
    def head(self) -> Tensor:
        """(channels, 5, 3, 3): as files have it."""
        return self.slow_head * _HEAD_GAIN

    def forward(self, clean: Tensor, masked: Tensor, mask: Tensor, *told: Tensor) -> Tensor:
        """The loss of a batch; `told` is timesteps, states, pooled and time ids."""
        timesteps, states, pooled, ids = told
        noise = torch.randn_like(clean)
        level = self.levels[timesteps][:, None, None, None]
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        shown = functional.pad(torch.cat([mask, masked], 1), (1, 1, 1, 1), mode="replicate")
        wide = torch.cat([noisy, functional.conv2d(shown, self.head)], 1)
        told_sizes = {"text_embeds": pooled, "time_ids": ids}
        guess = self.unet(wide, timesteps, states, added_cond_kwargs=told_sizes).sample
        share = mask + _AROUND * (1 - mask)
        error = ((guess.float() - noise).square() * share).mean((1, 2, 3)) / share.mean((1, 2, 3))
        loss: Tensor = (self.weights[timesteps] * error).mean()
        return loss


class Lessons:
    """Batches of drawings with holes, and captions."""

    def __init__(self, holes: Holes, tokenizer: CLIPTokenizer, encoders: TextEncoders) -> None:
        self.holes = holes
        self.tokenizer = tokenizer
        self.encoders = encoders.requires_grad_(requires_grad=False)

    def batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, ...]:
        """What `Repainter` is called with."""
        given = self.holes.sample(rng, count)
        texts = [hole_caption(rng, scene) for scene in given.scenes]
        with torch.no_grad():
            states, pooled = self.encoders(tokenize(self.tokenizer, texts))
        keep = torch.from_numpy(rng.random(count) >= ZEROED).float()
        height, width = (LATENT_FACTOR * side for side in given.latents.shape[2:])
        return (
            given.latents.contiguous(memory_format=torch.channels_last),
            given.masked,
            given.masks,
            random_timesteps(rng, count),
            states * keep[:, None, None],
            pooled * keep[:, None],
            time_ids(rng, (width, height), count),
        )


def load_repainter(folder: Path) -> Repainter:
    """The UNet of a work folder with a silent head; what is not `TRAINED` stays as it is."""
    unet = library.UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())  # on a CPU the fused attention is slow backwards
    unet.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    repainter = Repainter(unet)
    for name, module in unet.named_modules():
        if name.endswith(TRAINED):
            module.requires_grad_()
    return repainter


def quantise(difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A difference in 256 levels: (levels, lowest, highest)."""
    low, high = difference.amin(), difference.amax()
    levels = ((difference - low) / (high - low).clamp_min(1e-12) * 255).round()
    return levels.to(torch.uint8), low, high


def patch_tensors(base: Unet, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What weights gain, by the names that Fooocus' files have: ``diffusion_model.….weight|q``, ``|lo`` and ``|hi``.

    Args:
        base: The UNet as it was.
        trained: Its parameters as they are, by name.
    """
    before = dict(base.named_parameters())
    modules = {name.rpartition(".")[0] for name in before}
    names = original_names(base.config, modules)
    tensors = {}
    for name, weight in trained.items():
        module, _, kind = name.rpartition(".")
        difference = (weight - before[name]).detach().float().contiguous()
        if difference.any():
            key = f"diffusion_model.{names[module]}.{kind}"
            for part, tensor in zip(("q", "lo", "hi"), quantise(difference), strict=True):
                tensors[f"{key}|{part}"] = tensor
    return tensors


def write_inpaint(repainter: Repainter, base: Unet, target: Path) -> None:
    """Write head and patch into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    head = repainter.head.detach().half().contiguous()
    save_file({"head": head}, target / HEAD_FILE, metadata={"format": "pt"})
    tensors = patch_tensors(base, dict(repainter.unet.named_parameters()))
    save_file(tensors, target / PATCH_FILE, metadata={"format": "pt"})


def name_partners(card: Path) -> None:
    """Let a model's card name head and patch; what else it says stays."""
    said = json.loads(card.read_text("utf-8"))
    said["partners"] = said.get("partners", {}) | dict(PARTNERS)
    card.write_text(json.dumps(said, indent=2) + "\n", "utf-8")


def train_inpaint(team: Team, folder: Path, run: Run) -> Repainter:
    """Train from the work folder's UNet, or go on; returns the average over the last steps."""
    torch.manual_seed(0)
    repainter = load_repainter(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    lessons = Lessons(Holes(folder), tokenizer, load_encoders(folder))
    trainer = Trainer(repainter, run, team, folder)
    trainer.resume()

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        given = lessons.batch(rng, run.batch)
        with torch.autocast("cpu", torch.bfloat16):
            result: Tensor = repainter(*given)
        return result

    trainer.fit(loss)
    trainer.average.write_to(repainter)
    return repainter


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of data and checkpoint")
    parser.add_argument("--model", type=Path, default=MODEL, help="what begins, and where to write")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--drawings", type=int, default=6144)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    unpack(options.model, options.work)
    fill_holes(options.work, options.drawings)
    run = Run(
        "inpaint",
        options.steps,
        options.rate,
        options.batch,
        warmup=50,
        ema=0.99,
        cooldown=0.5,
        log_steps=25,
        save_seconds=90,
    )
    repainter = train_inpaint(Team(), options.work, run)
    base = library.UNet2DConditionModel.from_pretrained(options.model / "unet", dtype=torch.float32)
    write_inpaint(repainter, base, options.model / FOLDER)
    name_partners(options.model / "pochade.json")


if __name__ == "__main__":
    main()
