"""Begin a work folder from a finished model, where the checkpoints of its training are gone."""

import logging
import shutil
from pathlib import Path

from transformers import CLIPTextModel, CLIPTextModelWithProjection

from pocket.parts import library

log = logging.getLogger(__name__)

_PARTS = {
    "vae": library.AutoencoderKL,
    "unet": library.UNet2DConditionModel,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "preview": library.AutoencoderTiny,
}


def unpack(model: Path, work: Path) -> None:
    """Copy the parts that the work folder lacks, in float32; what is there is kept."""
    if not (model / "model_index.json").is_file():
        raise FileNotFoundError(f"{model}: expected a diffusers folder with model_index.json")
    for name, kind in _PARTS.items():
        if (model / name).is_dir() and not (work / name).exists():
            kind.from_pretrained(model / name).float().save_pretrained(work / name)
            log.info("%s: taken from the finished model", name)
    for name in ("tokenizer", "tokenizer_2"):
        if not (work / name).exists():
            shutil.copytree(model / name, work / name)
