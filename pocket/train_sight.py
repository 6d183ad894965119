"""Train the image encoder of image prompts, against the scenes and the captions of the drawings.

It learns to name every field of a scene, to agree with the text encoder's pooled vector of the
drawing's caption (Radford et al. 2021, https://arxiv.org/abs/2103.00020), to tell that vector itself, and
to keep each patch's colours. What image prompts read, the states before its last layer, answers as well as its projection.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer, CLIPVisionModelWithProjection

from pocket.captions import full_caption
from pocket.draw import draw
from pocket.export import forget_origin
from pocket.fit import Run, Trainer
from pocket.parts import POOLED_WIDTH
from pocket.sight import PATCH, SIDE, WIDTH, make_image_encoder, quick_thumbnails, shown
from pocket.team import Team
from pocket.train_text import FIELDS, load_encoders, tokenize
from pocket.train_unet import bucket_of
from pocket.world import BUCKETS, Scene, seen_scenes

log = logging.getLogger(__name__)

FOLDER = "image_encoder"
"""Name of the finished encoder in the work folder."""

POOLED = "pooled_proj.safetensors"
"""Beside it: what the pooled vector of a complete caption has more than that of no words at all."""

_CELLS = SIDE // PATCH
_PATCH_COLOURS = 3 * 2 * 2


class Onlooker(nn.Module):
    """The image encoder together with what reads its answers, for the trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder: CLIPVisionModelWithProjection = make_image_encoder()
        classes = sum(len(values) for values in FIELDS.values())
        self.heads = nn.ModuleList(nn.Linear(width, classes) for width in (POOLED_WIDTH, WIDTH))
        self.look = nn.Linear(WIDTH, 1)
        self.colours = nn.Linear(WIDTH, _PATCH_COLOURS)
        self.pooled = nn.Linear(POOLED_WIDTH, POOLED_WIDTH)
        self.sharpness = nn.Parameter(torch.tensor(2.3))

    def forward(self, seen: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """(N, 3, SIDE, SIDE) to (projection, readings of the fields, colours of the patches)."""
        answer = self.encoder(seen, output_hidden_states=True)
        states = answer.hidden_states[-2]
        pooled = (self.look(states).softmax(1) * states).sum(1)
        readings = [self.heads[0](answer.image_embeds), self.heads[1](pooled)]
        return answer.image_embeds, readings, self.colours(states[:, 1:])


def _patch_colours(seen: Tensor) -> Tensor:
    """(N, patches, 12): the mean colours of each patch's quarters."""
    small = functional.avg_pool2d(seen, PATCH // 2)
    cells = small.reshape(len(seen), 3, _CELLS, 2, _CELLS, 2)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(len(seen), _CELLS**2, _PATCH_COLOURS)


def answers(scenes: list[Scene]) -> Tensor:
    """(N, fields): the class of each field."""
    rows = [[values.index(getattr(s, field)) for field, values in FIELDS.items()] for s in scenes]
    return torch.tensor(rows)


def _parts(reading: Tensor) -> tuple[Tensor, ...]:
    return torch.split(reading, [len(values) for values in FIELDS.values()], dim=-1)


def reading_loss(readings: list[Tensor], scenes: list[Scene]) -> Tensor:
    """Cross-entropy of every field, over both readings."""
    wanted = answers(scenes)
    losses = [
        functional.cross_entropy(part.float(), wanted[:, i])
        for reading in readings
        for i, part in enumerate(_parts(reading))
    ]
    return torch.stack(losses).sum() / len(readings)


def agreement_loss(images: Tensor, texts: Tensor, sharpness: Tensor) -> Tensor:
    """Each image picks its own caption of the batch, and each caption its image."""
    pairs = functional.normalize(images, dim=-1) @ functional.normalize(texts, dim=-1).T
    logits = pairs * sharpness.clamp(max=4.0).exp()
    own = torch.arange(len(images))
    one, other = functional.cross_entropy(logits, own), functional.cross_entropy(logits.T, own)
    return (one + other) / 2


def _drawings(rng: np.random.Generator, count: int, bucket: int) -> tuple[list[Scene], Tensor]:
    """Fresh drawings, a little noisy and blurred at times, as the encoder sees them."""
    source = seen_scenes(rng)
    scenes = [next(source) for _ in range(count)]
    width, height = BUCKETS[bucket]
    seen = shown(quick_thumbnails(draw(scenes, rng, width=width, height=height)))
    noise = torch.from_numpy(rng.standard_normal(seen.shape).astype(np.float32))
    return scenes, seen + noise * float(rng.choice([0.0, 0.05, 0.15]))


@torch.no_grad()
def measure_sight(onlooker: Onlooker) -> dict[str, float]:
    """Share of fresh drawings whose field is read rightly from the states before the last layer."""
    scenes, seen = _drawings(np.random.default_rng(99), 512, 0)
    parts, wanted = _parts(onlooker(seen)[1][1]), answers(scenes)
    return {
        field: float((part.argmax(-1) == wanted[:, i]).float().mean())
        for i, (field, part) in enumerate(zip(FIELDS, parts, strict=True))
    }


def train_sight(team: Team, folder: Path, run: Run) -> None:
    """Train, or go on from the checkpoint; writes the encoder into the work folder."""
    torch.manual_seed(0)
    onlooker = Onlooker()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    texts = load_encoders(folder).requires_grad_(requires_grad=False)
    trainer = Trainer(onlooker, run, team, folder)
    trainer.resume()
    with torch.no_grad():
        nothing = texts.second(tokenize(tokenizer, [""])).text_embeds

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        scenes, seen = _drawings(rng, run.batch, bucket_of(run.seed, step))
        told = [full_caption(rng, scene, complete=True).text for scene in scenes]
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                pooled = texts.second(tokenize(tokenizer, told, full=False)).text_embeds
            images, readings, colours = onlooker(seen)
        kept = functional.mse_loss(colours, _patch_colours(seen))
        told_apart = functional.mse_loss(onlooker.pooled(images.float()), pooled.float() - nothing)
        agreement = agreement_loss(images.float(), pooled.float(), onlooker.sharpness)
        return reading_loss(readings, scenes) + 0.5 * agreement + 2 * told_apart + kept

    trainer.fit(loss)
    trainer.average.write_to(onlooker)
    if team.leads:
        log.info("sight: read rightly %s", measure_sight(onlooker))
        onlooker.encoder.half().save_pretrained(folder / FOLDER)
        forget_origin(folder / FOLDER / "config.json")
        save_file(onlooker.pooled.state_dict(), folder / POOLED)


def load_sight(folder: Path) -> CLIPVisionModelWithProjection:
    """The finished encoder of a work folder, in float32, not to be trained further."""
    encoder: CLIPVisionModelWithProjection = CLIPVisionModelWithProjection.from_pretrained(
        folder / FOLDER, dtype=torch.float32
    )
    encoder.eval().requires_grad_(requires_grad=False)
    return encoder
