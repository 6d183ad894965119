"""Presets: partial requests by name, one JSON file each, with the weights they need.

A file holds ``{"name", "summary", "request"}`` and maybe ``"weights"`` and ``"substitutes"``; the keys under ``request`` are
fields of `TextRequest`, checked by it.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.catalog import FOLDERS, Catalog, Offer, Source
from engine.errors import InvalidRequest
from engine.requests import TextRequest

log = logging.getLogger(__name__)

_NEEDED = {"name", "summary", "request"}
_ALLOWED = {*_NEEDED, "weights", "substitutes"}
_WEIGHTS = {"file", "kind", "url", "sha256"}


@dataclass(frozen=True, slots=True)
class Preset:
    """A starting point for the page."""

    name: str
    summary: str
    """One sentence on what it is for."""
    request: Mapping[str, Any]
    """Fields of `TextRequest` that differ from its own defaults."""
    weights: tuple[Offer, ...] = ()
    """Files that it needs, and where they can be fetched."""
    substitutes: tuple[str, ...] = ()
    """Earlier versions of its base model, any of which will do."""

    def starting_point(self, catalog: Catalog) -> dict[str, Any]:
        """Write the request for the weights that are there: an earlier version of the base model where only that is."""
        request = dict(self.request)
        more = dict(request.get("advanced", {}))
        wanted = more.get("base_model")
        if wanted and not catalog.has("checkpoint", wanted):
            there = (name for name in self.substitutes if catalog.has("checkpoint", name))
            more["base_model"] = next(there, wanted)
            request["advanced"] = more
        return request

    def for_own_model(self, catalog: Catalog) -> dict[str, Any]:
        """Write the request for whichever base model the studio has, with nothing that would have to be fetched."""
        more = {k: v for k, v in self.request.get("advanced", {}).items() if k != "base_model"}
        loras = [
            item for item in self.request.get("loras", ()) if catalog.has("lora", item["path"])
        ]
        return {**self.request, "loras": loras, "advanced": more}

    def missing(self, catalog: Catalog) -> tuple[Offer, ...]:
        """List the weights that would have to be fetched."""
        request = self.starting_point(catalog)
        more = request.get("advanced", {})
        named = {more.get("base_model"), more.get("vae"), request.get("refiner_model")}
        named |= {item["path"] for item in request.get("loras", ())}
        return tuple(
            offer
            for offer in self.weights
            if offer.file in named and not catalog.has(offer.kind, offer.file)
        )


def read_presets(folder: Path) -> Mapping[str, Preset]:
    """Read every preset, by file name without its ending.

    Raises:
        InvalidRequest: a file is not a preset; the message names the file and the key.
    """
    return {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}


def read_own_presets(folder: Path) -> Mapping[str, Preset]:
    """Read a person's own presets; a file that is none is left out with a line in the log."""
    presets = {}
    for path in sorted(folder.glob("*.json")):
        try:
            presets[path.stem] = _read(path)
        except (InvalidRequest, OSError) as error:
            log.warning("preset left out: %s", error)
    return presets


def _read(path: Path) -> Preset:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidRequest(path.name, f"expected JSON, got {error}") from error
    if not isinstance(data, dict) or not _NEEDED <= set(data) <= _ALLOWED:
        got = sorted(data) if isinstance(data, dict) else type(data).__name__
        expected = f"{sorted(_NEEDED)} and maybe {sorted(_ALLOWED - _NEEDED)}"
        raise InvalidRequest(path.name, f"expected the keys {expected}, got {got}")
    try:
        TextRequest.parse(data["request"])
    except InvalidRequest as error:
        raise InvalidRequest(f"{path.name}: request.{error.field}", error.problem) from error
    return Preset(
        name=data["name"],
        summary=data["summary"],
        request=data["request"],
        weights=tuple(_offer(path.name, item) for item in data.get("weights", ())),
        substitutes=tuple(data.get("substitutes", ())),
    )


def _offer(file: str, item: object) -> Offer:
    if not isinstance(item, dict) or set(item) != _WEIGHTS or item["kind"] not in FOLDERS:
        expected = f"{sorted(_WEIGHTS)}, kind one of {', '.join(FOLDERS)}"
        raise InvalidRequest(f"{file}: weights", f"expected the keys {expected}, got {item!r:.80}")
    source = Source(url=item["url"], sha256=item["sha256"])
    return Offer(file=item["file"], kind=item["kind"], source=source)
