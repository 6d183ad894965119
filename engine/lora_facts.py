"""What a LoRA's file says of itself: its title, its trigger words, what it was trained on, which models it fits.

Read from the safetensors header alone: no weights, no torch. Whatever is in it was written by a stranger, so every text is
cut to a length and nothing in it is an error but that the file is no LoRA.
"""

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from engine.catalog import MAX_HEADER, Checkpoint, read_header
from engine.errors import ModelIncompatible
from engine.families import (
    SD2_CONTEXT,
    SD15_CONTEXT,
    SDXL_CONTEXT,
    Shapes,
    control_family_of,
    family_of,
    text_width,
)

MAX_TEXT = 4000
"""Characters that are kept of a description or of notes."""
MAX_NAME = 200
"""Characters that are kept of a title, an author, a trigger word."""
MAX_WORDS = 32
"""Trigger words that are kept."""
TAGS = 12
"""Tags of the training captions that are told, the most frequent first."""
MAX_THUMBNAIL = 4 * 2**20
"""Longest thumbnail in a header, in characters."""
FOREIGN = 0
"""The text width of what is made for another architecture than Stable Diffusion's UNet."""
_NAMES = {
    SD15_CONTEXT: "Stable Diffusion 1.5",
    SD2_CONTEXT: "Stable Diffusion 2.x",
    1280: "the SDXL refiner",
    SDXL_CONTEXT: "SDXL",
}
"""What people call models by the width of the text that their UNet attends to."""
_LORA_KEY = re.compile(
    r"[._]lora(?:_linear_layer)?\.(?:up|down)\.weight$"
    r"|\.lora_(?:(?:up|down|mid)\.weight|[AB](?:\.[^.]+)?\.weight)$"
    r"|\.hada_(?:w[12]_[ab]|t[12])$|\.lokr_(?:w[12](?:_[ab])?|t2)$"
    r"|\.[ab][12]\.weight$|\.(?:diff|diff_b|w_norm|b_norm|dora_scale)$"
)
"""How the keys of the LoRA family end."""
_CROSS = re.compile(
    r"attn2[._](?:processor[._])?to_[kv](?:_lora|\.lora|\.lora_linear_layer)?"
    r"\.(?P<slot>down|lora_down|lora_A(?:\.[^.]+)?|hada_w1_b|diff)(?:\.weight)?$"
)
"""Keys of attention over text whose second side is the width of the text."""
_KRONECKER = re.compile(
    r"(?P<layer>.*attn2[._]to_[kv])\.lokr_(?P<part>w[12])(?P<side>_b)?(?:\.weight)?$"
)
_ARCHITECTURES = (
    (re.compile(r"flux"), FOREIGN, "Flux"),
    (re.compile(r"stable-diffusion-(?:v)?3|sd3"), FOREIGN, "Stable Diffusion 3"),
    (re.compile(r"stable-diffusion-xl|sdxl|sd_xl"), SDXL_CONTEXT, _NAMES[SDXL_CONTEXT]),
    (re.compile(r"stable-diffusion-v2|sd_v2"), SD2_CONTEXT, _NAMES[SD2_CONTEXT]),
    (re.compile(r"stable-diffusion-v1|sd_v1"), SD15_CONTEXT, _NAMES[SD15_CONTEXT]),
)
"""What the header may call an architecture."""
_FOREIGN_KEYS = (
    (re.compile(r"double_blocks|single_blocks|single_transformer_blocks"), "Flux"),
    (
        re.compile(r"joint_blocks|joint_transformer_blocks|attn[._]add_[qkv]_proj"),
        "Stable Diffusion 3",
    ),
)
_EMBEDDING_KEYS = frozenset({"emb_params", "clip_l", "clip_g"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFacts:
    """What one file says; '' and () where it says nothing."""

    title: str = ""
    author: str = ""
    description: str = ""
    words: tuple[str, ...] = ()
    """Trigger words that its maker names."""
    tags: tuple[tuple[str, int], ...] = ()
    """Most frequent tags of the captions that it was trained with, and how often each occurs."""
    trained_on: str = ""
    """The base model that the trainer names."""
    resolution: str = ""
    """Size of the training pictures, as the trainer writes it."""
    width: int | None = None
    """Width of the text that it attends to, `FOREIGN` for other architectures; None where it doesn't show."""
    made_for: str = ""
    """What people call the models of that width."""
    has_thumbnail: bool = False
    is_lora: bool = True
    """Whether its keys are those of a LoRA or one of its relatives."""


def lora_facts(path: Path) -> LoraFacts:
    """Read what a file says of itself; a file that cannot be read says that it is no LoRA."""
    try:
        facts = path.stat()
        return _facts(path, facts.st_size, facts.st_mtime_ns)
    except (OSError, ModelIncompatible):
        return LoraFacts(is_lora=False)


def require_lora(name: str, shapes: Shapes) -> None:
    """Make sure that a file holds a LoRA or one of its relatives.

    Args:
        name: File name, for the message.
        shapes: Tensor name to shape, as `engine.catalog.read_header` reads them.

    Raises:
        ModelIncompatible: it does not; the sentence says what it is where that is known.
    """
    if not _is_lora(shapes):
        raise ModelIncompatible(f"{name}: expected a LoRA, got {_instead(shapes)}")


def header_thumbnail(path: Path) -> bytes | None:
    """Take the picture out of a file's header; None where there is none. It is not looked at."""
    try:
        text = _read_metadata(path).get("modelspec.thumbnail", "")
    except (OSError, ModelIncompatible):
        return None
    kind, _, data = text.partition(";base64,")
    if not kind.startswith("data:image/") or len(text) > MAX_THUMBNAIL:
        return None
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None


def base_width(base: Checkpoint) -> int | None:
    """Tell how wide the text is that a base model attends to; None where that is not known."""
    if not base.path.exists():
        return SD15_CONTEXT if base.paints_as == "sd15" else SDXL_CONTEXT
    file = base.path / "unet" / "config.json" if base.path.is_dir() else base.path
    try:
        facts = file.stat()
        return _base_width(file, facts.st_size, facts.st_mtime_ns)
    except (OSError, ModelIncompatible):
        return None


def split_words(text: str) -> tuple[str, ...]:
    """Split trigger words at commas and lines, but not inside of brackets; each is told once."""
    words, depth, word = [], 0, ""
    for letter in text[:MAX_TEXT]:
        depth = max(0, depth + (letter in "([{") - (letter in ")]}"))
        if letter in "\r\n" or (letter == "," and not depth):
            words.append(word)
            depth, word = 0, ""
        else:
            word += letter
    return clean_words([*words, word])


def clean_words(words: Iterable[object]) -> tuple[str, ...]:
    """Keep of trigger words what is text, each once."""
    texts = (plain(word, MAX_NAME).strip(" ,") for word in words if isinstance(word, str))
    return tuple(dict.fromkeys(text for text in texts if text))[:MAX_WORDS]


def plain(text: object, most: int) -> str:
    """Keep of a text what can be shown in one line, cut to a length; '' where it is none."""
    if not isinstance(text, str):
        return ""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text[: 2 * most]).strip()[:most]


@lru_cache(maxsize=4096)
def _facts(path: Path, size: int, changed: int) -> LoraFacts:
    """Read a file; anew when its size or the time of its last change differs."""
    shapes, known = read_header(path), _read_metadata(path)
    width, made_for = _made_for(shapes, known)
    return LoraFacts(
        title=plain(known.get("modelspec.title"), MAX_NAME),
        author=plain(known.get("modelspec.author"), MAX_NAME),
        description=plain(
            known.get("modelspec.description") or known.get("pochade.summary"), MAX_TEXT
        ),
        words=split_words(known.get("modelspec.trigger_phrase", "")),
        tags=_tags(known.get("ss_tag_frequency", "")),
        trained_on=plain(
            known.get("ss_sd_model_name") or known.get("ss_base_model_version"), MAX_NAME
        ),
        resolution=plain(known.get("ss_resolution") or known.get("modelspec.resolution"), 40),
        width=width,
        made_for=made_for,
        has_thumbnail=known.get("modelspec.thumbnail", "").startswith("data:image/"),
        is_lora=_is_lora(shapes),
    )


@lru_cache(maxsize=256)
def _base_width(file: Path, size: int, changed: int) -> int | None:
    if file.suffix != ".json":
        return text_width(read_header(file))
    try:
        width = json.loads(file.read_text(encoding="utf-8"))["cross_attention_dim"]
    except (ValueError, KeyError, TypeError):
        return None
    return width if isinstance(width, int) else None


def _read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in a safetensors header.

    Raises:
        ModelIncompatible: it has none that can be read.
        OSError: nor has it a header.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        data = file.read(min(length, MAX_HEADER))
    try:
        known = json.loads(data).get("__metadata__") or {}
        return {key: text for key, text in known.items() if isinstance(text, str)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelIncompatible(f"{path.name}: expected a safetensors file, got {error}") from error


def _is_lora(shapes: Shapes) -> bool:
    return any(_LORA_KEY.search(key) for key in shapes)


def _instead(shapes: Shapes) -> str:
    """Say what a file is that is no LoRA."""
    if control_family_of(shapes) is not None or "lora_controlnet" in shapes:
        return "a ControlNet; it belongs into the controlnet folder"
    if family_of(shapes) is not None:
        return "a whole model; it belongs into the checkpoints folder"
    if shapes and _EMBEDDING_KEYS.issuperset(shapes):
        return "an embedding; it belongs into the embeddings folder"
    if not shapes:
        return "a file without weights"
    return "other weights"


def _made_for(shapes: Shapes, known: Mapping[str, str]) -> tuple[int | None, str]:
    """Tell the text width and the name of the models that a LoRA fits."""
    for pattern, model in _FOREIGN_KEYS:
        if any(pattern.search(key) for key in shapes):
            return FOREIGN, model
    width = _lora_width(shapes)
    if width is not None:
        return width, _NAMES.get(width, plain(known.get("pochade.base"), MAX_NAME))
    said = known.get("modelspec.architecture") or known.get("ss_base_model_version") or ""
    for pattern, width, model in _ARCHITECTURES:
        if pattern.search(said.lower()):
            return width, model
    if any(key.startswith("lora_te2_") for key in shapes):  # only SDXL has a second text encoder
        return SDXL_CONTEXT, _NAMES[SDXL_CONTEXT]
    return None, ""


def _lora_width(shapes: Shapes) -> int | None:
    for key, shape in shapes.items():
        if len(shape) > 1 and _CROSS.search(key):
            return shape[1]
    return _kronecker_width(shapes)


def _kronecker_width(shapes: Shapes) -> int | None:
    """Tell the width of a LoKr: the product of those of its two factors, each whole or as two matrices."""
    widths: dict[str, dict[str, int]] = {}
    for key, shape in shapes.items():
        found = _KRONECKER.search(key)
        if found is not None and len(shape) > 1:
            layer = widths.setdefault(found["layer"], {})
            layer[found["part"]] = shape[1]
            if len(layer) == 2:
                return layer["w1"] * layer["w2"]
    return None


def _tags(text: str) -> tuple[tuple[str, int], ...]:
    """Add up how often each caption tag occurs over all folders of training pictures."""
    try:
        folders = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return ()
    counts: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if type(count) is int and 0 < count < 2**53:
                counts[tag] += count
    most = ((plain(tag, MAX_NAME), count) for tag, count in counts.most_common(2 * TAGS))
    return tuple((tag, count) for tag, count in most if tag)[:TAGS]
