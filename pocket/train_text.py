"""Train the text encoders alone, to say what a caption settles about the scene.

The UNet then starts from conditioning in which shape, colour, place and style already lie apart, and
never changes the encoders. What a caption leaves open is a class of its own.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pocket.captions import Caption, random_caption
from pocket.fit import Run, Trainer
from pocket.parts import POOLED_WIDTH, TEXT_WIDTHS, TOKENS, make_text_encoders
from pocket.team import Team
from pocket.tokens import save_tokenizers
from pocket.world import COLOURS, GROUNDS, PLACES, SHAPES, SIZES, STYLES, Scene, seen_scenes

log = logging.getLogger(__name__)

FIELDS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "background": COLOURS,
    "size": SIZES,
    "place": PLACES,
    "style": STYLES,
    "ground": GROUNDS,
}


class TextEncoders(nn.Module):
    """Both text encoders, as SDXL uses them: joined penultimate states and the second's pooled."""

    def __init__(self, first: CLIPTextModel, second: CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T) tokens to (N, T, C) states and (N, P) pooled."""
        one = self.first(tokens, output_hidden_states=True)
        two = self.second(tokens, output_hidden_states=True)
        states = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
        return states, two.text_embeds


class Readers(nn.Module):
    """Linear readers of every field, from the pooled vector and from the states of each encoder."""

    def __init__(self) -> None:
        super().__init__()
        classes = sum(len(values) + 1 for values in FIELDS.values())
        widths = (POOLED_WIDTH, *TEXT_WIDTHS, sum(TEXT_WIDTHS))
        self.heads = nn.ModuleList(nn.Linear(width, classes) for width in widths)
        self.look = nn.Linear(sum(TEXT_WIDTHS), 1)

    def forward(self, states: Tensor, pooled: Tensor) -> list[Tensor]:
        """One (N, classes) reading for each source."""
        one, two = torch.split(states.mean(1), list(TEXT_WIDTHS), dim=-1)
        seen = (self.look(states).softmax(1) * states).sum(1)
        sources = (pooled, one, two, seen)
        return [head(source) for head, source in zip(self.heads, sources, strict=True)]


class Student(nn.Module):
    """The encoders together with their readers, for the trainer."""

    def __init__(self, encoders: TextEncoders) -> None:
        super().__init__()
        self.encoders = encoders
        self.readers = Readers()


def new_encoders(tokenizer: CLIPTokenizer) -> TextEncoders:
    """Random encoders whose embeddings are large enough to attend to."""
    encoders = TextEncoders(
        *make_text_encoders(
            len(tokenizer), start=tokenizer.bos_token_id, end=tokenizer.eos_token_id
        )
    )
    for name, parameter in encoders.named_parameters():
        if "token_embedding" in name:
            nn.init.normal_(parameter, std=0.5)
        elif "position_embedding" in name:
            nn.init.normal_(parameter, std=0.1)
    return encoders


def load_encoders(folder: Path) -> TextEncoders:
    """The encoders of a diffusers folder."""
    return TextEncoders(
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", dtype=torch.float32),
    )


def tokenize(tokenizer: CLIPTokenizer, texts: list[str], *, full: bool = True) -> Tensor:
    """(N, T) tokens, cut and padded to 77, or only to the longest text."""
    padding = "max_length" if full else "longest"
    tokens: Tensor = tokenizer(
        texts, padding=padding, truncation=True, max_length=TOKENS, return_tensors="pt"
    ).input_ids
    return tokens


def _answers(scenes: list[Scene], captions: list[Caption]) -> Tensor:
    """(N, fields): the class of each field, the last one where the caption leaves it open."""
    rows = []
    for scene, caption in zip(scenes, captions, strict=True):
        rows.append(
            [
                values.index(getattr(scene, field)) if field in caption.named else len(values)
                for field, values in FIELDS.items()
            ]
        )
    return torch.tensor(rows)


def _split(reading: Tensor) -> tuple[Tensor, ...]:
    return torch.split(reading, [len(values) + 1 for values in FIELDS.values()], dim=-1)


def _batch(rng: np.random.Generator, count: int) -> tuple[list[Scene], list[Caption]]:
    source = seen_scenes(rng)
    scenes = [next(source) for _ in range(count)]
    return scenes, [random_caption(rng, scene) for scene in scenes]


@torch.no_grad()
def measure_text(student: Student, tokenizer: CLIPTokenizer) -> dict[str, float]:
    """Share of fresh captions whose field is read rightly from the pooled vector."""
    scenes, captions = _batch(np.random.default_rng(99), 512)
    states, pooled = student.encoders(tokenize(tokenizer, [c.text for c in captions]))
    parts = _split(student.readers(states, pooled)[0])
    answers = _answers(scenes, captions)
    return {
        field: float((part.argmax(-1) == answers[:, i]).float().mean())
        for i, (field, part) in enumerate(zip(FIELDS, parts, strict=True))
    }


@torch.no_grad()
def settle(encoders: TextEncoders, tokenizer: CLIPTokenizer) -> None:
    """Scale what the encoders give to deviation 1, exactly, inside their own weights.

    The residual stream is scaled where it is written; the norms that read it undo that.
    """
    _, captions = _batch(np.random.default_rng(98), 64)
    tokens = tokenize(tokenizer, [caption.text for caption in captions])
    states, pooled = encoders(tokens)
    for encoder, part in zip(
        (encoders.first, encoders.second),
        torch.split(states, list(TEXT_WIDTHS), dim=-1),
        strict=True,
    ):
        spread = float(part.std())
        for name, parameter in encoder.named_parameters():
            if any(writer in name for writer in ("_embedding.", "out_proj.", "fc2.")):
                parameter.mul_(1 / spread)
    encoders.second.text_projection.weight.mul_(1 / float(pooled.std()))


def train_text(team: Team, folder: Path, steps: int, batch: int) -> None:
    """Learn the tokenizers, train both encoders, write them into the folder."""
    if team.leads:
        save_tokenizers(folder)
    team.wait()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    student = Student(new_encoders(tokenizer))
    run = Run("text", steps, 2e-3, batch, ema=0.98, decay=0.01)
    trainer = Trainer(student, run, team, folder)
    trainer.resume()

    def loss(rng: np.random.Generator, step: int) -> Tensor:
        scenes, captions = _batch(rng, batch)
        tokens = tokenize(tokenizer, [c.text for c in captions], full=rng.random() < 0.4)
        answers = _answers(scenes, captions)
        readings = student.readers(*student.encoders(tokens))
        losses = [
            functional.cross_entropy(part, answers[:, i])
            for reading in readings
            for i, part in enumerate(_split(reading))
        ]
        return torch.stack(losses).sum() / len(readings)

    trainer.fit(loss)
    trainer.average.write_to(student)
    if team.leads:
        log.info("text: read rightly %s", measure_text(student, tokenizer))
        settle(student.encoders, tokenizer)
        student.encoders.first.save_pretrained(folder / "text_encoder")
        student.encoders.second.save_pretrained(folder / "text_encoder_2")
