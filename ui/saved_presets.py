"""Presets that are saved on the page: one JSON file each, in a folder of their own.

A name from outside becomes a slug, and nothing outside of the folder is ever written or removed.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

from engine import InvalidRequest, TextRequest
from engine.presets import Preset
from jobs import StorageFailed
from jobs.files import write_whole
from ui.picture_values import PICTURES

MAX_NAME = 60
"""Longest name in characters."""
MAX_PRESETS = 500
"""Most presets that the folder takes."""


def slug(name: str) -> str:
    """Make a file name without its ending: small letters, digits and hyphens.

    A name that has no letter of ours is told from others by its hash.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    return words or f"preset-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def own_presets(folder: Path | None) -> frozenset[str]:
    """List the presets that were saved here, by slug."""
    return frozenset() if folder is None else frozenset(it.stem for it in folder.glob("*.json"))


def save(
    folder: Path, name: str, request: TextRequest, *, taken: Collection[str], replaces: bool
) -> tuple[str, Preset]:
    """Write what is on the form, but for prompt and seed, as a preset.

    Args:
        folder: Holds the presets of this studio's visitors.
        name: As the person gave it.
        request: What is on the form.
        taken: Presets that there are, those of other folders among them.
        replaces: Whether an earlier preset of one's own by this name goes.

    Returns:
        The slug and the preset.

    Raises:
        InvalidRequest: the name is none, or is taken.
        StorageFailed: the file cannot be written.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidRequest(
            "preset", f"expected a name of 1 to {MAX_NAME} letters, got {name!r:.80}"
        )
    key, own = slug(name), own_presets(folder)
    if key in taken and key not in own:
        raise InvalidRequest("preset", f"expected a name that is free, {name!r} comes with Pochade")
    if key in own and not replaces:
        raise InvalidRequest(
            "preset", f"expected a name that is free, there is one called {name!r}"
        )
    if key not in own and len(own) >= MAX_PRESETS:
        raise InvalidRequest("preset", f"expected at most {MAX_PRESETS} presets of your own")
    fields = request.model_dump(mode="json", exclude={"prompt", "seed", *PICTURES})
    preset = Preset(name=name, summary=_summary(request), request=fields)
    content = {"name": preset.name, "summary": preset.summary, "request": fields}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    try:
        write_whole(folder / f"{key}.json", text.encode())
    except OSError as error:
        raise StorageFailed(f"preset: the folder cannot be written ({error.strerror})") from error
    return key, preset


def remove(folder: Path, key: str) -> None:
    """Remove a preset of one's own.

    Raises:
        InvalidRequest: there is none by that slug.
        StorageFailed: the file cannot be removed.
    """
    if key not in own_presets(folder):
        raise InvalidRequest("preset", f"expected one that was saved here, got {key!r:.80}")
    try:
        (folder / f"{key}.json").unlink()
    except OSError as error:
        raise StorageFailed(f"preset: the file cannot be removed ({error.strerror})") from error


def _summary(request: TextRequest) -> str:
    """Say in one line what a preset is."""
    parts = [request.performance, request.aspect_ratio.replace("x", "×")]
    if request.styles:
        parts.append(_counted(len(request.styles), "style"))
    if request.loras:
        parts.append(_counted(len(request.loras), "LoRA"))
    return ", ".join(parts)


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
