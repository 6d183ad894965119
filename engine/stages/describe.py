"""Putting a picture into words, for a prompt.

The networks are read for one picture and let go: painting needs their memory. Sizes, thresholds and the order of tags are Fooocus'.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from engine.catalog import Catalog
from engine.models.describers import load_captioner, load_own_reader, load_tagger
from engine.models.image_encoders import load_image_encoder
from engine.partners import partner
from engine.plan import DescribePicture
from engine.stages.pixels import Pixels, size_of

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the colours that CLIP was trained on. Source: https://github.com/openai/CLIP"""
_FIELD = "describe.kinds"


def describe(
    start: DescribePicture, catalog: Catalog, picture: Pixels, device: torch.device, *, seed: int
) -> str:
    """Put a picture into words as a plan asks for it.

    Args:
        start: Of the plan.
        catalog: Knows the networks.
        picture: (H, W, 3).
        device: Where networks of torch run.
        seed: Of the words that are drawn.

    Raises:
        ModelNotFound: a network is not there, or what runs it.
        ModelIncompatible: a file holds another network.
    """
    texts = []
    if start.reader is not None:
        texts.append(_read_by_itself(start.reader, catalog, picture))
    if start.captioner is not None:
        path = catalog.weights("describer", start.captioner, _FIELD).path
        captioner = load_captioner(path, device)
        texts.append(captioner.run(to_values(picture, captioner.side), seed))
        del captioner
    if start.tagger is not None:
        paths = (
            catalog.weights("describer", name or "", _FIELD).path
            for name in (start.tagger, start.tags)
        )
        tagger = load_tagger(*paths)
        texts.append(as_words(tagger.run(on_white(picture, tagger.side))))
    return ", ".join(text for text in texts if text)


def to_values(picture: Pixels, side: int) -> Tensor:
    """Bring a picture to what a captioner sees: (1, 3, side, side); like Fooocus without smoothing what becomes smaller."""
    shares = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    small = functional.interpolate(shares, (side, side), mode="bicubic", align_corners=False)
    mean, deviation = (torch.tensor(it).view(1, 3, 1, 1) for it in (_MEAN, _DEVIATION))
    return (small - mean) / deviation


def on_white(picture: Pixels, side: int) -> NDArray[np.float32]:
    """Bring a picture to what a tagger sees: (1, side, side, 3), blue first, 0 to 255, in the middle of a white square."""
    own = size_of(picture)
    scale = side / max(own)
    width, height = (max(1, int(length * scale)) for length in own)
    small = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(small, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)[..., ::-1].astype(np.float32)[None]


def as_words(tags: list[str]) -> str:
    """Write tags as a prompt."""
    joined = ", ".join(tags)
    return joined.replace("(", "\\(").replace(")", "\\)").replace("_", " ")


def _read_by_itself(name: str, catalog: Catalog, picture: Pixels) -> str:
    base = catalog.checkpoint(name)
    encoder = partner("image encoder", base, catalog, _FIELD)
    loaded = load_image_encoder(encoder.path, torch.device("cpu"))
    return load_own_reader(base.name, base.path, base.words, loaded).run(picture)
