"""What the form shows at first, and what a preset makes of it. Pure functions; values go by dotted field name."""

from collections.abc import Mapping
from typing import Any

from engine import Library, TextRequest
from engine.presets import Preset
from ui.form import flat
from ui.picture_values import PICTURES

UNTOUCHED = ("prompt", "seed", *PICTURES)
"""Fields that a preset leaves alone unless it names them."""
FAL_SIZE = "1024x1024"
"""What fal's LoRA endpoint paints unless it is told otherwise."""
_SHARED = (
    "advanced.base_model",
    "advanced.save_metadata",
    "advanced.metadata_scheme",
    "advanced.picture_grid",
    "advanced.previews",
    "advanced.deterministic",
    "enable_safety_checker",
    "output_format",
)
"""Fields that both forms start alike with."""


def start_of(library: Library, preset: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the partial request that the page starts from.

    Raises:
        InvalidRequest: it breaks a field's rule.
        ModelNotFound: it names a base model that is neither there nor to be fetched.
    """
    start = dict(flat(TextRequest.parse(preset).model_dump(mode="json")))
    base = library.catalog.checkpoint(start["advanced.base_model"])
    if preset.get("aspect_ratio") not in {str(size) for size in base.sizes}:
        start["aspect_ratio"] = str(base.default_size)
    return start


def lora_start_of(library: Library, start: Mapping[str, Any]) -> dict[str, Any]:
    """Write what the form of the LoRA studio shows at first: fal's defaults, and of the page's own what suits both.

    Args:
        library: What there is.
        start: What the page starts from, by `start_of`.
    """
    base = library.catalog.checkpoint(start["advanced.base_model"])
    size = FAL_SIZE if FAL_SIZE in {str(it) for it in base.sizes} else str(base.default_size)
    return {**{name: start[name] for name in _SHARED}, "aspect_ratio": size, "num_images": 1}


def after_preset(library: Library, start: Mapping[str, Any], preset: Preset) -> dict[str, Any]:
    """Write what the form shows once a preset is chosen; what it does not name is as at the start.

    Raises:
        ModelNotFound: its base model is neither there nor to be fetched.
    """
    named = dict(flat(preset.starting_point(library.catalog)))
    base = library.catalog.checkpoint(named.get("advanced.base_model"))
    if "aspect_ratio" not in named and start["aspect_ratio"] not in {str(it) for it in base.sizes}:
        named["aspect_ratio"] = str(base.default_size)
    rest = {
        name: value
        for name, value in start.items()
        if name not in UNTOUCHED and not any(_overlap(name, other) for other in named)
    }
    return {**rest, **named}


def _overlap(name: str, other: str) -> bool:
    """Whether two names speak of one part: ``advanced.freeu`` is none, or has an ``advanced.freeu.b1``."""
    return name == other or name.startswith(f"{other}.") or other.startswith(f"{name}.")
