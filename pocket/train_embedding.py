"""Train a textual inversion: `python -m pocket.train_embedding`, a minute on one thread.

Four vectors for each text encoder stand for words that a prompt then need not say: here, for a purple gradient as the
background and stripes on the object. They are trained against the text encoders alone: with them a prompt has to become
what it would be with the words, in the pooled vector and in the states behind the text. Nothing is painted meanwhile.
Source: Gal et al. 2022, https://arxiv.org/abs/2208.01618
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from pocket.captions import WORDS
from pocket.parts import TEXT_WIDTHS, TOKENS
from pocket.train_text import TextEncoders, load_encoders
from pocket.train_upscaler import MODEL
from pocket.world import Scene, seen_scenes

log = logging.getLogger(__name__)

FILE = Path("embeddings") / "pocket_dusk.safetensors"
"""Where the finished vectors lie in the model's folder."""
SAYS = {"background": "purple", "ground": "gradient", "style": "striped"}
"""What they stand for."""
VECTORS = 4

_WORDS = "on a purple gradient background, striped"
_ALONE_SHARE = 0.1
_MARK = -1
"""Where a vector goes, among the numbers of tokens."""


class Inversion(nn.Module):
    """The vectors, in the names of the file."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.clip_l = nn.Parameter(torch.randn(VECTORS, TEXT_WIDTHS[0]) * 0.02)
        self.clip_g = nn.Parameter(torch.randn(VECTORS, TEXT_WIDTHS[1]) * 0.02)


@contextmanager
def _spliced(encoders: TextEncoders, inversion: Inversion, rows: Tensor) -> Iterator[Tensor]:
    """Put the vectors where the rows are marked; gives the rows for the encoders."""
    where = rows == _MARK
    count = int(where.sum()) // VECTORS

    def into(vectors: Tensor) -> Any:
        def splice(module: nn.Module, inputs: tuple[Tensor, ...], found: Tensor) -> Tensor:
            return found.masked_scatter(where[:, :, None], vectors.repeat(count, 1).to(found))

        return splice

    sides = ((encoders.first, inversion.clip_l), (encoders.second, inversion.clip_g))
    hooks = [
        encoder.get_input_embeddings().register_forward_hook(into(vectors))
        for encoder, vectors in sides
    ]
    try:
        yield rows.clamp(min=0)
    finally:
        for hook in hooks:
            hook.remove()


def _things(rng: np.random.Generator, count: int) -> list[str]:
    """What prompts say of the object; a few say nothing."""
    source = seen_scenes(rng)
    return [_thing(rng, next(source)) for _ in range(count)]


def _thing(rng: np.random.Generator, scene: Scene) -> str:
    if rng.random() < _ALONE_SHARE:
        return ""
    scene = replace(scene, background="purple")
    said = {
        field: WORDS[field].get(value, (value,))
        for field in ("size", "colour", "shape", "place")
        for value in [getattr(scene, field)]
    }
    words = [said[field][rng.integers(len(said[field]))] for field in ("colour", "shape")]
    if rng.random() < 0.6:
        words.insert(0, said["size"][rng.integers(len(said["size"]))])
    if rng.random() < 0.6:
        words.append(said["place"][rng.integers(len(said["place"]))])
    return f"a {' '.join(words)}"


def _rows(tokenizer: CLIPTokenizer, texts: Sequence[str], behind: Sequence[int]) -> Tensor:
    """(N, 77) tokens of texts with the same tokens behind each."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    rows = []
    for text in texts:
        row = [start, *tokenizer(text, add_special_tokens=False).input_ids, *behind]
        rows.append([*row, *[end] * (TOKENS - len(row))])
    return torch.tensor(rows)


def train_embedding(model: Path, steps: int, batch: int = 32) -> Inversion:
    """Train the vectors for a model's text encoders."""
    encoders = load_encoders(model).requires_grad_(requires_grad=False).eval()
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    words = tokenizer(_WORDS, add_special_tokens=False).input_ids
    inversion, rng = Inversion(), np.random.default_rng(5)
    optimiser = torch.optim.Adam(inversion.parameters(), lr=0.02)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(1, steps + 1):
        texts = _things(rng, batch)
        with torch.no_grad():
            states, pooled = encoders(_rows(tokenizer, texts, words))
        marked = _rows(tokenizer, texts, [_MARK] * VECTORS)
        with _spliced(encoders, inversion, marked) as rows:
            ours = encoders(rows)
        tail = slice(-TOKENS // 2, None)
        loss = functional.mse_loss(ours[1], pooled)
        loss = loss + functional.mse_loss(ours[0][:, tail], states[:, tail])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        rates.step()
        if step % 50 == 0:
            log.info("embedding: step %d of %d, loss %.4f", step, steps, float(loss))
    return inversion


def write_embedding(inversion: Inversion, target: Path) -> None:
    """Write the vectors in half precision."""
    target.parent.mkdir(parents=True, exist_ok=True)
    vectors = {name: value.detach().half() for name, value in inversion.named_parameters()}
    save_file(vectors, target, metadata={"format": "pt"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="whose encoders, and where to")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    write_embedding(train_embedding(options.model, options.steps), options.model / FILE)


if __name__ == "__main__":
    main()
