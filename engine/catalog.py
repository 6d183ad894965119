"""The weights that are in the models folder, by name.

Reads folder listings and safetensors headers only: no weights, no torch, so that the web process can plan with it.
A name from outside is looked up here and never becomes a path.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelIncompatible, ModelNotFound
from engine.geometry import Size, parse_size

_SDXL_SIZES = (
    "704x1408 704x1344 768x1344 768x1280 832x1216 832x1152 896x1152 896x1088 960x1088 960x1024 "
    "1024x1024 1024x960 1088x960 1088x896 1152x896 1152x832 1216x832 1280x768 1344x768 1344x704 "
    "1408x704 1472x704 1536x640 1600x640 1664x576 1728x576"
)
SDXL_SIZES: tuple[Size, ...] = tuple(map(parse_size, _SDXL_SIZES.split()))
"""The sizes that SDXL paints well, in Fooocus' order."""
SDXL_NATIVE = 1024
MAX_HEADER = 64 * 2**20
"""Longest safetensors header that is read, in bytes; real SDXL checkpoints stay below 1 MB."""
POCKET = "pocket"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A base model that can paint."""

    name: str
    """What a request calls it: file name without folder, or folder name."""
    path: Path
    """A diffusers folder or a single safetensors file."""
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
    hub_id: str | None = None
    """Repository on the Hugging Face hub that it is fetched from first; None when it is there."""

    @property
    def is_pocket(self) -> bool:
        """Whether this is the model that ships with the studio."""
        return self.name == POCKET

    @property
    def default_size(self) -> Size:
        """The size that the page starts from."""
        wanted = Size(1152, 896)
        return wanted if wanted in self.sizes else self.sizes[0]


class Catalog:
    """The base models below one folder, read once."""

    def __init__(self, checkpoints: Iterable[Checkpoint]) -> None:
        self._checkpoints: Mapping[str, Checkpoint] = {item.name: item for item in checkpoints}

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All base models; a person's own come before the pocket model."""
        return tuple(self._checkpoints.values())

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

    def checkpoint(self, name: str | None) -> Checkpoint:
        """Find a base model by name; None is the default one.

        Raises:
            ModelNotFound: no base model has that name; the message names the closest.
        """
        if name is None:
            return self.default()
        if name in self._checkpoints:
            return self._checkpoints[name]
        close = difflib.get_close_matches(name, self._checkpoints, n=2, cutoff=0.4)
        hint = f"; closest are {', '.join(map(repr, close))}" if close else ""
        raise ModelNotFound(f"base_model: no base model named {name[:80]!r}{hint}")


def read_catalog(models_dir: Path, first: str | None = None) -> Catalog:
    """List the base models below `models_dir`.

    Args:
        models_dir: Holds ``checkpoints/`` (files and folders of one's own) and ``pocket/``.
        first: Name of the base model that becomes the default, or a hub id that will be fetched when it is loaded;
            None leaves the order by name, the pocket model last.

    Raises:
        ModelNotFound: `first` is not there.
    """
    found = [*_own(models_dir / "checkpoints"), *_pocket(models_dir / POCKET)]
    if first is None:
        return Catalog(found)
    if all(item.name != first for item in found) and _HUB_ID.fullmatch(first):
        path = models_dir / "checkpoints" / first
        return Catalog([Checkpoint(name=first, path=path, hub_id=first), *found])
    chosen = Catalog(found).checkpoint(first)
    return Catalog([chosen, *(item for item in found if item is not chosen)])


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


def _own(folder: Path) -> Iterable[Checkpoint]:
    """Find diffusers folders, and files that don't lie inside one."""
    folders = [index.parent for index in sorted(folder.rglob("model_index.json"))]
    files = sorted(folder.rglob("*.safetensors"))
    for path in [*files, *folders]:
        arriving = any(part.endswith(".part") for part in path.relative_to(folder).parts)
        if not arriving and not any(parent in folders for parent in path.parents):
            yield Checkpoint(name=path.relative_to(folder).as_posix(), path=path)


def _pocket(folder: Path) -> Iterable[Checkpoint]:
    card = folder / "pochade.json"
    if not card.exists():
        return
    facts = json.loads(card.read_text(encoding="utf-8"))
    buckets = tuple(Size(*pair) for pair in facts["buckets"])
    yield Checkpoint(
        name=POCKET,
        path=folder,
        native_size=facts["native_size"],
        buckets=buckets,
        sizes=tuple(Size(4 * bucket.width, 4 * bucket.height) for bucket in buckets),
        summary=facts["summary"],
        examples=tuple(facts["examples"]),
    )
