"""The small image encoder of image prompts: its size, what it is shown and how that is prepared.

A `CLIPVisionModelWithProjection` like the large ones of IP-Adapter, with CLIP's own mean and deviation.
Knows nothing of training.
"""

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pocket.parts import POOLED_WIDTH

SIDE = 64
"""Side of the square that the encoder sees; whatever it is shown is stretched to it."""

WIDTH = 128
PATCH = 8

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's; source: https://github.com/openai/CLIP"""


def make_image_encoder() -> CLIPVisionModelWithProjection:
    """A random image encoder of the pocket size."""
    settings: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": WIDTH // 32,
        "image_size": SIDE,
        "patch_size": PATCH,
        "projection_dim": POOLED_WIDTH,
        "hidden_act": "gelu",
    }
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**settings))


def thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) stretched to the encoder's square."""
    from PIL import Image

    small = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small, np.uint8)


def quick_thumbnails(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) averaged to the encoder's square: for training, where time counts."""
    return np.stack([cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in pictures])


def shown(thumbnails: NDArray[np.uint8]) -> Tensor:
    """(N, SIDE, SIDE, 3) uint8 to what the encoder reads: (N, 3, SIDE, SIDE), normalised."""
    values = torch.from_numpy(thumbnails).float().div(255)
    return ((values - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).permute(0, 3, 1, 2)
