"""What there is to choose from, as the page's scripts read it. Pure functions from the library to JSON."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from engine import Checkpoint, EngineError, Library
from engine.catalog import Kind
from engine.performance import MODES
from engine.prompt.styles import SPECIAL_STYLES
from ui.helpers import helpers

FAMILY = 7
"""So many styles whose names begin with one word are a group of their own."""
OTHERS = "More"
"""The group of all other styles."""
_SPECIAL = {
    "Fooocus V2": "Adds fitting words to the prompt, by the seed.",
    "Random Style": "Takes another style for each picture.",
}


def lists(library: Library, own_presets: Iterable[str]) -> dict[str, Any]:
    """Write the files and presets that can be chosen.

    Args:
        library: What there is.
        own_presets: Presets that may be replaced and deleted on the page.
    """
    catalog, own = library.catalog, frozenset(own_presets)
    return {
        "studio": catalog.default().name,
        "models": [
            *map(_model, catalog.checkpoints),
            *map(_model, map(catalog.checkpoint, _fetchable(library, "checkpoint"))),
        ],
        "helpers": helpers(library),
        "loras": _files(library, "lora", [item.name for item in catalog.loras]),
        "vaes": _files(library, "vae", [item.name for item in catalog.vaes]),
        "embeddings": _files(library, "embedding", [item.name for item in catalog.embeddings]),
        "controls": _files(library, "controlnet", [item.name for item in catalog.controls]),
        "encoders": _files(library, "clip_vision", catalog.names("clip_vision")),
        "unets": _files(library, "unet", catalog.names("unet")),
        "ic_lights": _files(library, "ic_light", catalog.names("ic_light")),
        "presets": [
            {
                "id": key,
                "name": preset.name,
                "summary": preset.summary,
                "own": key in own,
                "missing": [offer.file for offer in preset.missing(catalog)],
            }
            for key, preset in library.presets.items()
        ],
    }


def style_groups(library: Library) -> list[dict[str, Any]]:
    """Write the styles by family, the two special ones first: those whose names begin alike stand together."""
    firsts = Counter(name.partition(" ")[0] for name in library.styles)
    groups: dict[str, list[dict[str, str]]] = {}
    for style in library.styles.values():
        first = style.name.partition(" ")[0]
        facts = {"name": style.name, "prompt": style.prompt, "negative": style.negative_prompt}
        groups.setdefault(first if firsts[first] >= FAMILY else OTHERS, []).append(facts)
    special = [{"name": name, "prompt": _SPECIAL[name], "negative": ""} for name in SPECIAL_STYLES]
    named = [{"name": name, "styles": items} for name, items in groups.items() if name != OTHERS]
    others = [{"name": OTHERS, "styles": groups[OTHERS]}] if OTHERS in groups else []
    return [{"name": "", "styles": special}, *named, *others]


def modes() -> list[dict[str, Any]]:
    """Write the performance modes, slowest first."""
    return [
        {"name": name, "steps": mode.steps, "distilled": mode.distilled is not None}
        for name, mode in MODES.items()
    ]


def _model(item: Checkpoint) -> dict[str, Any]:
    return {
        "name": item.name,
        "there": item.source is None and item.hub_id is None,
        "sizes": [str(size) for size in item.sizes],
        "size": str(item.default_size),
        "family": _family(item),
    }


def _family(item: Checkpoint) -> str | None:
    """Name what a base model is, which a file that is gone or broken does not tell."""
    try:
        return item.family
    except (EngineError, OSError):
        return None


def _files(library: Library, kind: Kind, there: Iterable[str]) -> list[dict[str, Any]]:
    names: Mapping[str, bool] = {
        **dict.fromkeys(_fetchable(library, kind), False),
        **dict.fromkeys(there, True),
    }
    order = sorted(names, key=lambda name: (not names[name], name.casefold()))
    return [{"name": name, "there": names[name]} for name in order]


def _fetchable(library: Library, kind: Kind) -> list[str]:
    """List the files that presets need and that are not there yet."""
    offers = (offer for preset in library.presets.values() for offer in preset.weights)
    files = (it.file for it in offers if it.kind == kind and not library.catalog.has(kind, it.file))
    return list(dict.fromkeys(files))
