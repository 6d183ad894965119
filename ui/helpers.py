"""What a base model needs beside itself, for pictures and for few steps, and what of it is missing. Pure functions to JSON."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from engine import Catalog, Checkpoint, Library
from engine.catalog import Offer, Weights
from engine.errors import ModelNotFound
from engine.image_inputs import FURTHER, FurtherType
from engine.partners import (
    AUX_INSTALL,
    CAPTIONER,
    DETECTOR,
    MASK_NETWORKS,
    SAM,
    TAGGER,
    TAGS,
    Role,
    has_aux,
    partner,
)
from engine.performance import MODES
from ui.download_sizes import SIZES

_FOLLOWING: tuple[Role, ...] = ("image encoder", "image negative")
NEEDS: Mapping[str, tuple[Role, ...]] = {
    "ImagePrompt": ("ImagePrompt", *_FOLLOWING),
    "FaceSwap": ("FaceSwap", *_FOLLOWING, "face detector"),
    "PyraCanny": ("PyraCanny",),
    "CPDS": ("CPDS",),
    **{it: (it,) for it in get_args(FurtherType)},
    "inpaint": ("inpaint head", "inpaint v2.6", "upscaler"),
    "improve": ("upscaler",),
    "enlarge": ("upscaler",),
}
"""Roles by use: the types of image prompts, repainting with the usual engine and without one, making larger."""
COMMON = ""
"""Stands for every SDXL model that has no helpers of its own."""
MASK_WORDS = "mask words"
"""The use of what finds what words name, for a mask."""


_DESCRIBERS: Mapping[str, tuple[Offer, ...]] = {
    "describe Photograph": (CAPTIONER,),
    "describe Art/Anime": (TAGGER, TAGS),
}
"""What puts pictures into words, by use."""


def helpers(library: Library) -> dict[str, dict[str, Any]]:
    """Write what is missing, by base model and use.

    Returns:
        Of each use that misses something: ``files``, which can be fetched, each with its kind, name, host and bytes (None
        where nobody knows); ``install``, what a person has to do as well; or ``none``, where there is nothing to be had.
    """
    own = [
        it
        for it in library.catalog.checkpoints
        if it.partners or it.is_pocket or it.paints_as != "sdxl"
    ]
    usual = Checkpoint(name=COMMON, path=Path())
    masks = dict(_missing_for_masks(library.catalog))
    words = dict(_missing_for_words(library.catalog))
    return {
        base.name: {
            **_missing(library, base),
            **dict(_missing_for_modes(library.catalog, base)),
            **masks,
            **words,
        }
        for base in (usual, *own)
    }


def mask_uses(model: str, sam_model: str, *, boxes_only: bool) -> list[str]:
    """Name the uses of `helpers` that a search for a mask has, by the fields of `MaskFrom`."""
    if model in MASK_NETWORKS:
        return [f"mask {model}"]
    return [MASK_WORDS] if boxes_only else [MASK_WORDS, f"mask {sam_model}"]


def describe_uses(kinds: Iterable[str]) -> list[str]:
    """Name the uses of `helpers` that a description has, by the kinds of `Describe`."""
    return [f"describe {kind}" for kind in kinds if f"describe {kind}" in _DESCRIBERS]


def _missing(library: Library, base: Checkpoint) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for use, roles in NEEDS.items():
        try:
            needed = [partner(role, base, library.catalog, use) for role in roles]
        except ModelNotFound:
            found[use] = {"none": True}
            continue
        what: dict[str, Any] = {}
        if files := _files(library.catalog, *needed):
            what["files"] = files
        if use in FURTHER and not has_aux():
            what["install"] = AUX_INSTALL
        if what:
            found[use] = what
    return found


def _missing_for_modes(catalog: Catalog, base: Checkpoint) -> Iterator[tuple[str, Any]]:
    """Find the LoRAs of the performance modes that would be fetched."""
    own = dict(base.performance_loras)
    for name, mode in MODES.items():
        if mode.distilled is None:
            continue
        try:
            files = _files(catalog, catalog.lora(own.get(name, mode.distilled.lora)))
        except ModelNotFound:
            continue
        if files:
            yield f"performance {name}", {"files": files}


def _missing_for_masks(catalog: Catalog) -> Iterator[tuple[str, Any]]:
    """Find the networks for masks that would be fetched."""
    offers = {f"mask {name}": it for name, it in (*MASK_NETWORKS.items(), *SAM.items())}
    for use, offer in {MASK_WORDS: DETECTOR, **offers}.items():
        try:
            network = catalog.weights(offer.kind, offer.file, "mask_from.model")
        except ModelNotFound:
            continue
        if files := _files(catalog, network):
            yield use, {"files": files}


def _missing_for_words(catalog: Catalog) -> Iterator[tuple[str, Any]]:
    """Find what puts pictures into words and would be fetched."""
    for use, offers in _DESCRIBERS.items():
        try:
            needed = [catalog.weights(it.kind, it.file, "describe.kinds") for it in offers]
        except ModelNotFound:
            continue
        if files := _files(catalog, *needed):
            yield use, {"files": files}


def _files(catalog: Catalog, *needed: Weights) -> list[dict[str, Any]]:
    """Write those that would be fetched."""
    return [
        {
            "kind": it.kind,
            "name": it.name,
            "host": urlsplit(it.source.url).hostname,
            "size": SIZES.get(it.name),
        }
        for it in needed
        if it.source is not None and not catalog.has(it.kind, it.name)
    ]
