"""The weights that are in the models folders, by name, and those that can be fetched.

Reads folder listings and safetensors headers only: no weights, no torch, so that the web process can plan with it.
A name from outside is looked up here and never becomes a path.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from engine.errors import ModelIncompatible, ModelNotFound
from engine.families import (
    PIPELINES,
    BaseFamily,
    ControlFamily,
    Family,
    control_family_of,
    family_of,
)
from engine.geometry import Size, parse_size

_SDXL_SIZES = (
    "704x1408 704x1344 768x1344 768x1280 832x1216 832x1152 896x1152 896x1088 960x1088 960x1024 "
    "1024x1024 1024x960 1088x960 1088x896 1152x896 1152x832 1216x832 1280x768 1344x768 1344x704 "
    "1408x704 1472x704 1536x640 1600x640 1664x576 1728x576"
)
SDXL_SIZES: tuple[Size, ...] = tuple(map(parse_size, _SDXL_SIZES.split()))
"""The sizes that SDXL paints well, in Fooocus' order."""
SDXL_NATIVE = 1024
_SD15_SIZES = (
    "512x512 512x896 512x832 512x768 512x704 576x768 512x640 640x768 512x576 640x640 768x768 "
    "576x512 768x640 640x512 768x576 704x512 768x512 832x512 896x512"
)
SD15_SIZES: tuple[Size, ...] = tuple(map(parse_size, _SD15_SIZES.split()))
"""The sizes that SD 1.5 paints well: from its own 512x512 to where things begin to appear twice."""
SD15_NATIVE = 512
MAX_HEADER = 64 * 2**20
"""Longest safetensors header that is read, in bytes; real SDXL checkpoints stay below 1 MB."""
POCKET = "pocket"
ANNOTATORS = "annotators"
"""Folder of the weights that draw further drawings; controlnet-aux finds its own there."""
INDEX = "model_index.json"
"""File that makes a folder one of diffusers."""
WORDS = "describe.json"
"""File with the words that a base model has for pictures."""
FETCHED = "fetched"
"""Folder of the weights that requests named by their address or by a repository."""
Kind = Literal[
    "checkpoint",
    "lora",
    "vae",
    "embedding",
    "vae_approx",
    "safety_checker",
    "controlnet",
    "clip_vision",
    "upscaler",
    "inpaint",
    "segmenter",
    "describer",
    "unet",
    "ic_light",
    "insightface",
]
"""What a file of weights is for."""
FOLDERS: Mapping[Kind, str] = {
    "checkpoint": "checkpoints",
    "lora": "loras",
    "vae": "vae",
    "embedding": "embeddings",
    "vae_approx": "vae_approx",
    "safety_checker": "safety_checker",
    "controlnet": "controlnet",
    "clip_vision": "clip_vision",
    "upscaler": "upscale_models",
    "inpaint": "inpaint",
    "segmenter": "segmenters",
    "describer": "describers",
    "unet": "unet",
    "ic_light": "ic_light",
    "insightface": "insightface",
}
"""Name of the folder of each kind below the models folder."""
ENDINGS: Mapping[Kind, tuple[str, ...]] = {
    "checkpoint": (".safetensors",),
    "lora": (".safetensors",),
    "vae": (".safetensors",),
    "embedding": (".safetensors", ".pt", ".bin"),
    "vae_approx": (".safetensors",),
    "safety_checker": (".safetensors", ".bin"),
    "controlnet": (".safetensors", ".bin", ".pth"),
    "clip_vision": (".safetensors", ".bin"),
    "upscaler": (".safetensors", ".bin", ".pth"),
    "inpaint": (".safetensors", ".pth", ".patch", ".onnx"),
    "segmenter": (".safetensors",),
    "describer": (".safetensors", ".onnx", ".csv"),
    "unet": (".safetensors",),
    "ic_light": (".safetensors",),
    "insightface": (".onnx",),
}
_WORDS: Mapping[Kind, str] = {
    "checkpoint": "base model",
    "lora": "LoRA",
    "vae": "VAE",
    "embedding": "embedding",
    "vae_approx": "latent converter",
    "safety_checker": "safety checker",
    "controlnet": "control",
    "clip_vision": "image encoder",
    "upscaler": "upscaler",
    "inpaint": "inpaint model",
    "segmenter": "segmenter",
    "describer": "describer",
    "unet": "UNet",
    "ic_light": "IC-Light model",
    "insightface": "face recognition pack",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of a repository on the hub is wanted, or what goes beside a file."""

    form: Literal["file", "network", "pipeline"]
    """One file; a folder of one network with its ``config.json``; a folder of diffusers."""
    usual: str | None = None
    """What files of its kind are called where no name was given, without ending."""
    endings: tuple[str, ...] = (".safetensors",)
    """How names of weights may end, the best first."""
    revision: str = "main"
    folders: tuple[str, ...] = ("",)
    """Where to look in the repository; the first one that holds such weights counts."""
    file: str | None = None
    """Name of the file of weights, where it was given."""
    variant: str | None = None
    """Which of several files of the same weights, such as ``fp16``."""
    config_url: str | None = None
    """Address of a ``config.json`` that is taken in place of the repository's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a file can be fetched from."""

    url: str
    sha256: str | None = None
    """Hash of the file in hex, where it is known."""
    is_asked: bool = False
    """Whether a request named the address, so that it is fetched with care (design D11)."""
    hub_id: str | None = None
    """Repository on the Hugging Face hub that it is taken from; `url` is its page."""
    wanted: Wanted | None = None
    """What of it, where a request named it; None is all that a network of transformers needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A file of weights that can be fetched; a preset or a performance mode names it."""

    file: str
    kind: Kind
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A file of weights that is no base model, such as a LoRA, a VAE or an embedding."""

    name: str
    """What a request calls it: its path below the folder of its kind, with the ending."""
    path: Path
    kind: Kind
    source: Source | None = None
    """Where it is fetched from first; None when it is there."""

    @property
    def stem(self) -> str:
        """File name without folder and ending: what ``<lora:stem:1>`` names."""
        return PurePosixPath(self.name).stem

    @property
    def control_family(self) -> ControlFamily | None:
        """What kind of ControlNet for SDXL it is, read from its header; None where it is none, or does not say."""
        file = self.path
        if file.is_dir():
            file = next(iter(sorted(file.glob("*.safetensors"))), file)
        if file.suffix != ".safetensors" or not file.is_file():
            return None
        facts = file.stat()
        return _control_family(file, facts.st_size, facts.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A base model that can paint, or a refiner."""

    name: str
    """What a request calls it: its path below the checkpoints folder."""
    path: Path
    """A diffusers folder or a single safetensors file."""
    paints_as: BaseFamily = "sdxl"
    """What it is taken for as base model: its sizes, and the helpers that fit it, follow from that."""
    native_size: int = SDXL_NATIVE
    """Side in pixels of the squares it was trained on (design D12)."""
    buckets: tuple[Size, ...] = SDXL_SIZES
    """The sizes it samples at."""
    sizes: tuple[Size, ...] = SDXL_SIZES
    """The sizes that the page offers."""
    summary: str = ""
    """One sentence on what it paints."""
    examples: tuple[str, ...] = ()
    """Prompts that show what it can do."""
    performance_loras: tuple[tuple[str, str], ...] = ()
    """Its own step-distilled LoRAs: performance mode and file name; SDXL's common ones where a mode is missing."""
    partners: tuple[tuple[str, str], ...] = ()
    """Its own helpers (`engine.partners`): role and name; SDXL's common ones where a role is missing."""
    upscale_strength: float | None = None
    """Share of the noise with which it paints what is enlarged; None is that of SDXL."""
    hub_id: str | None = None
    """Repository on the Hugging Face hub that it is fetched from first; None when it is there."""
    source: Source | None = None
    """Where its file is fetched from first; None when it is there."""

    @property
    def words(self) -> Path:
        """Where a folder has the words for what its own encoders see in a picture."""
        return self.path / WORDS

    @property
    def is_pocket(self) -> bool:
        """Whether this is the model that ships with the studio."""
        return self.name == POCKET

    @property
    def default_size(self) -> Size:
        """The size that the page starts from."""
        wanted = Size(1152, 896)
        return wanted if wanted in self.sizes else self.sizes[0]

    @property
    def family(self) -> Family | None:
        """What it is, read from a file's header or a folder's index; what is still to be fetched counts as SDXL.

        Raises:
            ModelIncompatible: the file is no safetensors file.
        """
        if not self.path.exists() and (self.source or self.hub_id):
            return "sdxl"
        if self.path.is_dir():
            return _folder_family(self.path)
        facts = self.path.stat()
        return _family(self.path, facts.st_size, facts.st_mtime_ns)


Entry = TypeVar("Entry", Checkpoint, Weights)


class Catalog:
    """The weights that can be asked for by name, read once."""

    def __init__(
        self,
        checkpoints: Iterable[Checkpoint],
        files: Iterable[Weights] = (),
        offers: Iterable[Checkpoint | Weights] = (),
        *,
        models_dir: Path = Path(),
    ) -> None:
        """Keep what is there, and what can be fetched.

        Args:
            checkpoints: Base models, the default one first.
            files: LoRAs, VAEs and embeddings; of two with one name the first counts.
            offers: What can be fetched, by the same names; left out where it is there already.
            models_dir: Where files go that a request names by their address.
        """
        self._models_dir = models_dir
        self._checkpoints: dict[str, Checkpoint] = {}
        self._files: dict[Kind, dict[str, Weights]] = {kind: {} for kind in FOLDERS}
        self._offers: dict[Kind, dict[str, Any]] = {kind: {} for kind in FOLDERS}
        for item in checkpoints:
            self._checkpoints.setdefault(item.name, item)
        for file in files:
            self._files[file.kind].setdefault(file.name, file)
        for offer in offers:
            self._offers[_kind(offer)].setdefault(offer.name, offer)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All base models and refiners that are there; a person's own come first, then the pocket model, then what requests named."""
        return tuple(self._checkpoints.values())

    @property
    def loras(self) -> tuple[Weights, ...]:
        """All LoRAs that are there."""
        return tuple(self._files["lora"].values())

    @property
    def vaes(self) -> tuple[Weights, ...]:
        """All VAEs that are there."""
        return tuple(self._files["vae"].values())

    @property
    def embeddings(self) -> tuple[Weights, ...]:
        """All embeddings that are there."""
        return tuple(self._files["embedding"].values())

    @property
    def controls(self) -> tuple[Weights, ...]:
        """All files that are there of ControlNets, and of what else lies in their folder."""
        return tuple(self._files["controlnet"].values())

    @property
    def annotators(self) -> Path:
        """Folder of the weights that draw further drawings."""
        return self._models_dir / ANNOTATORS

    @property
    def safety_checkers(self) -> tuple[Weights, ...]:
        """All safety checkers that are there, those in safetensors first."""
        found = self._files["safety_checker"].values()
        return tuple(sorted(found, key=lambda item: item.path.suffix != ".safetensors"))

    @property
    def safety_offer(self) -> Weights | None:
        """The safety checker that can be fetched; None where there is none."""
        return next(iter(self._offers["safety_checker"].values()), None)

    def default(self) -> Checkpoint:
        """The base model that paints when none is named.

        Raises:
            ModelNotFound: the folder holds no base model at all.
        """
        if not self._checkpoints:
            raise ModelNotFound(
                "models: expected at least one base model in the models folder, found none"
            )
        return next(iter(self._checkpoints.values()))

    def checkpoint(self, name: str | None, field: str = "base_model") -> Checkpoint:
        """Find a checkpoint by name; None is the default one.

        Args:
            name: As a request gives it.
            field: The request's field, for the message.

        Raises:
            ModelNotFound: no checkpoint has that name; the message names the closest.
        """
        if name is None:
            return self.default()
        return self._find(self._checkpoints, "checkpoint", name, field)

    def lora(self, name: str, field: str = "loras") -> Weights:
        """Find a LoRA by name, or by its stem where only one has it.

        Raises:
            ModelNotFound: no LoRA has that name; the message names the closest.
        """
        return self._find(self._files["lora"], "lora", name, field)

    def place(self, kind: Kind, name: str) -> Path:
        """Say where weights go that are fetched under a name of ours."""
        return self._models_dir / FOLDERS[kind] / name

    def vae(self, name: str, field: str = "advanced.vae") -> Weights:
        """Find a VAE, as `lora` finds a LoRA."""
        return self._find(self._files["vae"], "vae", name, field)

    def weights(self, kind: Kind, name: str, field: str) -> Weights:
        """Find a file of any kind but checkpoints, as `lora` finds a LoRA."""
        return self._find(self._files[kind], kind, name, field)

    def names(self, kind: Kind) -> tuple[str, ...]:
        """List the files of a kind that are there, but for checkpoints."""
        return tuple(self._files[kind])

    def embedding(self, stem: str) -> Weights | None:
        """Find an embedding by name or stem; None when there is none."""
        return _by_name(self._files["embedding"], stem)

    @property
    def has_arrivals(self) -> bool:
        """Whether a file that was to be fetched is there by now, so that it is worth to look again."""
        offers = (offer for by_name in self._offers.values() for offer in by_name.values())
        files = [offer.path for offer in offers if not self.has(_kind(offer), offer.name)]
        fetched = [item.path for item in self._checkpoints.values() if item.hub_id is not None]
        return any(path.exists() for path in (*files, *(path / INDEX for path in fetched)))

    def has(self, kind: Kind, name: str) -> bool:
        """Whether a file of that name is there, and need not be fetched."""
        return name in (self._checkpoints if kind == "checkpoint" else self._files[kind])

    def _find(self, there: Mapping[str, Entry], kind: Kind, name: str, field: str) -> Entry:
        offers: Mapping[str, Entry] = self._offers[kind]
        found = _by_name(there, name) or _by_name(offers, name)
        if found is not None:
            return found
        close = difflib.get_close_matches(name, there, n=2, cutoff=0.4)
        hint = f"; closest are {', '.join(map(repr, close))}" if close else ""
        raise ModelNotFound(f"{field}: no {_WORDS[kind]} named {name[:80]!r}{hint}")


def fetched_name(key: str, stem: str) -> str:
    """Name what a request had fetched, without ending: a hash of how it asked, and something readable."""
    readable = re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII)[:80].lstrip(".")
    return f"{FETCHED}/{hashlib.sha256(key.encode()).hexdigest()[:12]}-{readable}"


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the tensor names and shapes of a safetensors file without its weights.

    Raises:
        ModelIncompatible: the header is not that of a safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, path.stat().st_size - 8):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {key: tuple(int(side) for side in item["shape"]) for key, item in header.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelIncompatible(f"{path.name}: expected a safetensors file, got {error}") from error


@lru_cache(maxsize=256)
def _family(path: Path, size: int, changed: int) -> Family | None:
    """Read what a file is; anew when its size or the time of its last change differs."""
    return family_of(read_header(path))


@lru_cache(maxsize=256)
def _control_family(path: Path, size: int, changed: int) -> ControlFamily | None:
    """Read what a file is, as `_family` does; a broken one is none."""
    try:
        return control_family_of(read_header(path))
    except ModelIncompatible:
        return None


def _folder_family(path: Path) -> Family | None:
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        return PIPELINES.get(index["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelIncompatible(f"{path.name}: expected a diffusers folder, got {error}") from error


def _by_name(there: Mapping[str, Entry], name: str) -> Entry | None:
    """Find by full name, else a LoRA, VAE or embedding by the stem where exactly one has it."""
    if name in there:
        return there[name]
    same = [item for item in there.values() if name == getattr(item, "stem", None)]
    return same[0] if len(same) == 1 else None


def _kind(item: Checkpoint | Weights) -> Kind:
    return item.kind if isinstance(item, Weights) else "checkpoint"


def sized(item: Checkpoint) -> Checkpoint:
    """Give a checkpoint the sizes of its family; what cannot be read says so when it is asked for."""
    try:
        is_sd15 = item.family == "sd15"
    except (ModelIncompatible, OSError):
        return item
    if not is_sd15:
        return item
    return replace(
        item,
        paints_as="sd15",
        native_size=SD15_NATIVE,
        buckets=SD15_SIZES,
        sizes=SD15_SIZES,
    )
