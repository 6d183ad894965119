"""Where weights lie, and what is there: from folders to a `Catalog`."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from engine.catalog import (
    ENDINGS,
    FETCHED,
    FOLDERS,
    INDEX,
    POCKET,
    Catalog,
    Checkpoint,
    Kind,
    Offer,
    Weights,
    sized,
)
from engine.errors import InvalidRequest
from engine.geometry import Size

_BESIDE: tuple[Kind, ...] = tuple(kind for kind in FOLDERS if kind != "checkpoint")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The folders that weights are looked for in."""

    models_dir: Path
    """Holds a folder of each kind (`FOLDERS`), and ``pocket/``; what is fetched goes here."""
    more: Mapping[Kind, tuple[Path, ...]] = field(default_factory=dict)
    """Further folders by kind, of another program's installation; read, never written."""

    def folders(self, kind: Kind) -> Sequence[Path]:
        """List the folders of one kind, our own first."""
        return (self.models_dir / FOLDERS[kind], *self.more.get(kind, ()))


def read_catalog(
    places: Places | Path, first: str | None = None, offers: Iterable[Offer] = ()
) -> Catalog:
    """List the weights below some folders.

    Args:
        places: Where they are; a path is the models folder.
        first: Name of the base model that becomes the default, or a hub id that will be fetched when it is loaded;
            None leaves the order by name, the pocket model last.
        offers: What can be fetched where it is missing.

    Raises:
        ModelNotFound: `first` is not there.
    """
    places = Places(models_dir=places) if isinstance(places, Path) else places
    pocket = places.models_dir / POCKET
    own = [item for folder in places.folders("checkpoint") for item in _own(folder)]
    found = [*own, *_pocket(pocket)]
    found.sort(key=lambda item: item.name.startswith(f"{FETCHED}/"))
    files = [
        item
        for kind in _BESIDE
        for folder in (*places.folders(kind), pocket / FOLDERS[kind])
        for item in _files(kind, folder)
    ]
    offered = [_offered(places, offer) for offer in offers]
    if first is None:
        return Catalog(found, files, offered, models_dir=places.models_dir)
    if all(item.name != first for item in found) and _HUB_ID.fullmatch(first):
        path = places.models_dir / FOLDERS["checkpoint"] / first
        found.insert(0, Checkpoint(name=first, path=path, hub_id=first))
        return Catalog(found, files, offered, models_dir=places.models_dir)
    chosen = Catalog(found, (), offered).checkpoint(first)
    others = [item for item in found if item is not chosen]
    return Catalog([chosen, *others], files, offered, models_dir=places.models_dir)


def _offered(places: Places, offer: Offer) -> Checkpoint | Weights:
    parts = PurePosixPath(offer.file).parts
    if ".." in parts or "\\" in offer.file or PurePosixPath(offer.file).is_absolute():
        raise InvalidRequest("weights", f"expected a name below its folder, got {offer.file!r}")
    path = places.models_dir / FOLDERS[offer.kind] / offer.file
    if offer.kind == "checkpoint":
        return Checkpoint(name=offer.file, path=path, source=offer.source)
    return Weights(name=offer.file, path=path, kind=offer.kind, source=offer.source)


def _own(folder: Path) -> Iterable[Checkpoint]:
    """Find diffusers folders, and files that don't lie inside one."""
    folders = [index.parent for index in sorted(folder.rglob(INDEX))]
    files = sorted(folder.rglob("*.safetensors"))
    for path in [*files, *folders]:
        if not _is_arriving(path, folder) and not any(item in folders for item in path.parents):
            yield sized(Checkpoint(name=path.relative_to(folder).as_posix(), path=path))


def _files(kind: Kind, folder: Path) -> Iterable[Weights]:
    """Find files, and diffusers folders of one network, which count as one file."""
    for path in sorted(folder.rglob("*"), key=lambda path: str(path).casefold()):
        if path.suffix in ENDINGS[kind] and path.is_file() and not _is_arriving(path, folder):
            is_pack = kind == "insightface" or (path.parent / "config.json").exists()
            is_part = is_pack and path.parent != folder
            place = path.parent if is_part else path
            yield Weights(name=place.relative_to(folder).as_posix(), path=place, kind=kind)


def _is_arriving(path: Path, folder: Path) -> bool:
    return any(part.endswith(".part") for part in path.relative_to(folder).parts)


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
        performance_loras=tuple(facts.get("performance_loras", {}).items()),
        partners=tuple(facts.get("partners", {}).items()),
        upscale_strength=facts.get("upscale_strength"),
    )
