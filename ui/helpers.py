"""What a base model needs beside itself to work with pictures, and what of it is missing. Pure functions to JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import Checkpoint, Library
from engine.errors import ModelNotFound
from engine.partners import Role, partner

_FOLLOWING: tuple[Role, ...] = ("image encoder", "image negative")
NEEDS: Mapping[str, tuple[Role, ...]] = {
    "ImagePrompt": ("ImagePrompt", *_FOLLOWING),
    "FaceSwap": ("FaceSwap", *_FOLLOWING, "face detector"),
    "PyraCanny": ("PyraCanny",),
    "CPDS": ("CPDS",),
    "inpaint": ("inpaint head", "inpaint v2.6", "upscaler"),
    "improve": ("upscaler",),
    "enlarge": ("upscaler",),
}
"""Roles by use: the types of image prompts, repainting with the usual engine and without one, making larger."""
COMMON = ""
"""Stands for every base model that has no helpers of its own."""


def helpers(library: Library) -> dict[str, dict[str, Any]]:
    """Write what is missing, by base model and use: the files that are to be fetched, or why they cannot be had."""
    own = [it for it in library.catalog.checkpoints if it.partners or it.is_pocket]
    usual = Checkpoint(name=COMMON, path=Path())
    return {base.name: _missing(library, base) for base in (usual, *own)}


def _missing(library: Library, base: Checkpoint) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for use, roles in NEEDS.items():
        try:
            needed = [partner(role, base, library.catalog, use) for role in roles]
        except ModelNotFound:
            found[use] = {"none": True}
            continue
        files = [it.name for it in needed if not library.catalog.has(it.kind, it.name)]
        if files:
            found[use] = {"files": files}
    return found
