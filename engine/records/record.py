"""The facts of one picture, named and ordered as Fooocus' log names and orders them.

`engine.plan` fills a `Record`; the foreign forms are written from it. Knows no files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from engine.geometry import Size

NONE = "None"
"""How Fooocus writes that there is no refiner."""
OWN_VAE = "Default (model)"
"""How Fooocus writes that the base model's own VAE decodes."""
ADAPTIVE_CFG = 7.0
"""Fooocus' own setting of adaptive guidance; a record says nothing where it was left alone."""

_ENDINGS = {".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".patch"}

Row = tuple[str, str, object]
"""Label for people, key for programs, value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything that the foreign forms say of one picture. File names are the catalog's."""

    prompt: str
    """As it was painted: arrays, wildcards and LoRA tags are resolved; lines are kept."""
    negative_prompt: str
    expansion: str = ""
    """The prompt with the words that the expansion added; empty without one."""
    styles: tuple[str, ...]
    """In their order, the expansion first, drawn ones by the name that was drawn."""
    performance: str
    steps: int
    """Steps that were run."""
    size: Size
    guidance_scale: float
    sharpness: float
    adm: tuple[float, float, float]
    """Size scale of the positive and the negative branch, and the share of the noise where they end."""
    base_model: str
    refiner_model: str | None = None
    refiner_switch: float
    """Share of the steps after which the refiner takes over."""
    overwrite_switch: int | None = None
    """Step at which the refiner takes over, where it was given; None leaves it to the share."""
    refiner_swap_method: str = "joint"
    adaptive_cfg: float = ADAPTIVE_CFG
    usual_adaptive_cfg: float = ADAPTIVE_CFG
    """The value that goes without saying."""
    clip_skip: int
    sampler: str
    scheduler: str
    vae: str | None = None
    """None is the base model's own."""
    seed: int
    freeu: tuple[float, float, float, float] | None = None
    """b1, b2, s1, s2."""
    loras: tuple[tuple[str, float], ...] = ()
    """File name and weight, those of tags and of the performance mode after the chosen ones."""
    full_prompt: tuple[str, ...]
    """The texts that were encoded."""
    full_negative_prompt: tuple[str, ...]
    hashes: Mapping[str, str] = field(default_factory=dict)
    """First ten hex digits of the sha256, by file name; what is missing is left empty."""
    metadata_scheme: str | None
    """Form that went into the file; None when nothing did."""
    created_by: str = ""
    """Name of the person, where they gave one."""
    version: str
    """Program and version."""


def log_rows(record: Record) -> list[Row]:
    """List what Fooocus' log shows of a picture, in its order.

    Source: golden/metadata, ``log_rows``.
    """
    has_refiner = record.refiner_model is not None
    rows: list[Row] = [
        ("Prompt", "prompt", record.prompt),
        ("Negative Prompt", "negative_prompt", record.negative_prompt),
        ("Fooocus V2 Expansion", "prompt_expansion", record.expansion),
        ("Styles", "styles", str(list(record.styles))),
        ("Performance", "performance", record.performance),
        ("Steps", "steps", record.steps),
        ("Resolution", "resolution", str(tuple(record.size))),
        ("Guidance Scale", "guidance_scale", record.guidance_scale),
        ("Sharpness", "sharpness", record.sharpness),
        ("ADM Guidance", "adm_guidance", str(record.adm)),
        ("Base Model", "base_model", record.base_model),
        ("Refiner Model", "refiner_model", record.refiner_model or NONE),
        ("Refiner Switch", "refiner_switch", record.refiner_switch),
    ]
    if has_refiner and record.overwrite_switch:
        rows.append(("Overwrite Switch", "overwrite_switch", record.overwrite_switch))
    if has_refiner and record.refiner_swap_method != "joint":
        rows.append(("Refiner Swap Method", "refiner_swap_method", record.refiner_swap_method))
    if record.adaptive_cfg != record.usual_adaptive_cfg:
        rows.append(("CFG Mimicking from TSNR", "adaptive_cfg", record.adaptive_cfg))
    if record.clip_skip > 1:
        rows.append(("CLIP Skip", "clip_skip", record.clip_skip))
    rows += [
        ("Sampler", "sampler", record.sampler),
        ("Scheduler", "scheduler", record.scheduler),
        ("VAE", "vae", record.vae or OWN_VAE),
        ("Seed", "seed", str(record.seed)),
    ]
    if record.freeu is not None:
        rows.append(("FreeU", "freeu", str(record.freeu)))
    for number, (file, weight) in enumerate(record.loras, start=1):
        rows.append((f"LoRA {number}", f"lora_combined_{number}", f"{file} : {weight}"))
    rows.append(("Metadata Scheme", "metadata_scheme", record.metadata_scheme or False))
    rows.append(("Version", "version", record.version))
    return rows


def stem(file: str) -> str:
    """Cut folder and ending off a file name, as the foreign forms name weights."""
    path = PurePosixPath(file)
    return path.stem if path.suffix in _ENDINGS else path.name
