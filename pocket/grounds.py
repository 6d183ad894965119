"""Which part of a pooled vector tells of the background: a matrix, found by least squares.

The pooled vectors of captions are nearly sums of what each field of a scene says (97 % of their variance), so the part of one
field can be taken out of the sum. Image prompts use it: of two images one gives the thing and the other the ground.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from pocket.captions import full_caption
from pocket.train_text import FIELDS, load_encoders, tokenize
from pocket.world import Scene, seen_scenes

GROUND_FIELDS = ("background", "ground")

_COUNT, _CHUNK = 6144, 256
_RIDGE = 0.01
"""Of the mean square of a number; without it directions that captions never take would be blown up."""


def ground_matrix(folder: Path) -> Tensor:
    """Find the matrix for the text encoders of a diffusers folder: (P, P), on differences between pooled vectors."""
    rng = np.random.default_rng(3)
    source = seen_scenes(rng)
    scenes = [next(source) for _ in range(_COUNT)]
    pooled = _pooled(folder, [full_caption(rng, scene, complete=True).text for scene in scenes])
    return torch.from_numpy(solve(pooled - pooled.mean(0), scenes)).float()


def solve(pooled: NDArray[np.float64], scenes: list[Scene]) -> NDArray[np.float64]:
    """Find the matrix from (N, P) pooled vectors of mean 0 and what they are of."""
    facts, of_ground = _facts(scenes)
    said = np.linalg.lstsq(facts, pooled, rcond=None)[0]
    grounds = facts[:, of_ground] @ said[of_ground]
    square = pooled.T @ pooled / len(pooled) + _RIDGE * np.eye(pooled.shape[1])
    return np.asarray(np.linalg.solve(square, pooled.T @ grounds / len(pooled)).T)


def _facts(scenes: list[Scene]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N, values of all fields) of mean 0, and which of them are of the ground."""
    columns, of_ground = [], []
    for field, values in FIELDS.items():
        for value in values:
            columns.append([getattr(scene, field) == value for scene in scenes])
            of_ground.append(field in GROUND_FIELDS)
    facts = np.asarray(columns, np.float64).T
    return facts - facts.mean(0), np.asarray(of_ground)


@torch.no_grad()
def _pooled(folder: Path, texts: list[str]) -> NDArray[np.float64]:
    encoders, tokenizer = load_encoders(folder), CLIPTokenizer.from_pretrained(folder / "tokenizer")
    parts = [
        encoders.second(tokenize(tokenizer, texts[at : at + _CHUNK], full=False)).text_embeds
        for at in range(0, len(texts), _CHUNK)
    ]
    return np.asarray(torch.cat(parts).double().numpy())
