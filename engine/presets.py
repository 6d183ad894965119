"""Presets: partial requests by name, one JSON file each.

A file holds ``{"name", "summary", "request"}``; the keys under ``request`` are fields of `TextRequest`, checked by it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InvalidRequest
from engine.requests import TextRequest

_KEYS = {"name", "summary", "request"}


@dataclass(frozen=True, slots=True)
class Preset:
    """A starting point for the page."""

    name: str
    summary: str
    """One sentence on what it is for."""
    request: Mapping[str, Any]
    """Fields of `TextRequest` that differ from its own defaults."""


def read_presets(folder: Path) -> Mapping[str, Preset]:
    """Read every preset, by file name without its ending.

    Raises:
        InvalidRequest: a file is not a preset; the message names the file and the key.
    """
    return {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}


def _read(path: Path) -> Preset:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidRequest(path.name, f"expected JSON, got {error}") from error
    if not isinstance(data, dict) or set(data) != _KEYS:
        got = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise InvalidRequest(path.name, f"expected the keys {sorted(_KEYS)}, got {got}")
    try:
        TextRequest.parse(data["request"])
    except InvalidRequest as error:
        raise InvalidRequest(f"{path.name}: request.{error.field}", error.problem) from error
    return Preset(data["name"], data["summary"], data["request"])
