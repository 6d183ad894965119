"""Write the pocket model as a plain diffusers folder of float16 safetensors."""

import json
import shutil
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pocket.lora import FEW_STEPS
from pocket.parts import Pipeline, Unet, library, make_scheduler, make_unet
from pocket.world import BUCKETS, NATIVE_SIZE

CARD = {
    "name": "pocket",
    "native_size": NATIVE_SIZE,
    "buckets": [list(bucket) for bucket in BUCKETS],
    "family": "sdxl",
    "summary": "One coloured shape on a coloured background, in four drawing styles, 128 pixels.",
    "examples": [
        "a large red star on a blue background",
        "a large shaded orange circle on a purple background",
        "a medium yellow heart on the left on a black background, outlined",
        "a large striped green cross at the top on a white background",
        "a large white triangle at the bottom on a red gradient background",
    ],
    "performance_loras": dict.fromkeys(("Extreme Speed", "Lightning", "Hyper-SD"), FEW_STEPS),
    "upscale_strength": 0.15,
}
"""What programs need to know about the folder beyond diffusers' own files."""

SHARD = "12MB"
"""The largest file of weights; hosts of repositories dislike big ones."""

PARTNERS = {
    "ImagePrompt": "controlnet/pocket_image_prompt.safetensors",
    "PyraCanny": "controlnet/pocket_edges",
    "CPDS": "controlnet/pocket_layout",
    "image encoder": "clip_vision/pocket_sight",
    "image negative": "controlnet/pocket_image_negative.safetensors",
}
"""What the model follows images with, by the engine's names of roles."""

_TRAINED = {
    "ImagePrompt": "image_prompt/adapter.safetensors",
    "PyraCanny": "controlnets/edges",
    "CPDS": "controlnets/layout",
    "image encoder": "image_encoder",
    "image negative": "image_prompt/negative.safetensors",
}
"""Where training leaves the same in the work folder."""

_OLD_FORM = ("vocab.json", "merges.txt")


def write_adapters(work: Path, target: Path) -> None:
    """Copy the trained adapters and partners beside the model, where there are any, and write its card."""
    for file in sorted((work / "loras").glob("*.safetensors")):
        (target / "loras").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / "loras" / file.name)
    for role, place in PARTNERS.items():
        _copy(work / _TRAINED[role], target / place)
    card = dict(CARD)
    if not (target / "loras" / FEW_STEPS).exists():
        del card["performance_loras"]
    written = target / "pochade.json"
    partners = (
        json.loads(written.read_text("utf-8")).get("partners", {}) if written.exists() else {}
    )
    known = {role: place for role, place in PARTNERS.items() if (target / place).exists()}
    partners |= {role: place.split("/", 1)[1] for role, place in known.items()}
    if partners:
        card["partners"] = partners
    written.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder of them, if it is there."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def averaged_unet(checkpoint: Path) -> Unet:
    """The moving average of the UNet in a checkpoint."""
    state = torch.load(checkpoint, weights_only=True)
    unet = make_unet()
    prefix = "unet."
    unet.load_state_dict({k.removeprefix(prefix): v for k, v in state["average"].items()})
    return unet


def build_pipeline(work: Path, unet: Unet) -> Pipeline:
    """The stock pipeline around the parts in a work folder."""
    return library.StableDiffusionXLPipeline(
        vae=library.AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(work / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(work / "tokenizer_2"),
        unet=unet,
        scheduler=make_scheduler(),
        add_watermarker=False,
    )


def _drop_repeated(config: Path) -> None:
    """Leave out an entry that diffusers 0.42 writes for `AutoencoderTiny` and warns of on loading."""
    entries = json.loads(config.read_text("utf-8"))
    entries.pop("block_out_channels", None)
    config.write_text(json.dumps(entries, indent=2) + "\n", "utf-8")


def write_folder(work: Path, target: Path) -> None:
    """Write the whole model, with the preview decoder if it is there."""
    pipeline = build_pipeline(work, averaged_unet(work / "unet.ckpt"))
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
        part.half()
    pipeline.save_pretrained(target, safe_serialization=True, max_shard_size=SHARD)
    for name in ("tokenizer", "tokenizer_2"):
        for file in _OLD_FORM:
            shutil.copyfile(work / name / file, target / name / file)
    if (work / "preview").exists():
        preview = library.AutoencoderTiny.from_pretrained(work / "preview")
        preview.half().save_pretrained(target / "preview")
        _drop_repeated(target / "preview" / "config.json")
    for config in target.rglob("config.json"):
        forget_origin(config)
    write_adapters(work, target)


def forget_origin(config: Path) -> None:
    """Take the folder that a part was read from out of its settings: it names a place on this machine."""
    settings = json.loads(config.read_text("utf-8"))
    settings.pop("_name_or_path", None)
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")
