"""All that a request may name, read from the disk once: weights, presets, styles, wildcards.

No torch and no weights, so that the web process can plan with it. A library never changes; reading it again gives a new one.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.catalog import Catalog, Offer, Places, Source, read_catalog
from engine.fooocus_dir import read_fooocus_dir
from engine.performance import MODES
from engine.presets import Preset, read_presets
from engine.prompt.expansion import expand
from engine.prompt.styles import Style, read_styles
from engine.prompt.wildcards import read_wildcards

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
"""Holds what ships with the studio: presets, styles, wildcards."""
_FEW_STEPS = {
    "sdxl_lcm_lora.safetensors": "https://huggingface.co/lllyasviel/misc/resolve/main/",
    "sdxl_lightning_4step_lora.safetensors": "https://huggingface.co/mashb1t/misc/resolve/main/",
    "sdxl_hyper_sd_4step_lora.safetensors": "https://huggingface.co/mashb1t/misc/resolve/main/",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What requests are planned with."""

    catalog: Catalog
    presets: Mapping[str, Preset] = field(default_factory=dict)
    styles: Mapping[str, Style] = field(default_factory=dict)
    wildcards: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    expand: Callable[[str, int], str] | None = expand
    """Adds words for *Fooocus V2*; None leaves that to an expansion model in the worker."""
    defaults: Mapping[str, Any] | None = None
    """Fields of a request that a person's Fooocus folder starts with; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelves:
    """The folders that a library is read from, besides what ships with the studio."""

    models_dir: Path
    fooocus_dir: Path | None = None
    """A Fooocus installation, whose models, presets, styles and wildcards are found in place."""
    presets_dirs: tuple[Path, ...] = ()
    """A person's own presets; of two with one name the last counts."""
    styles_dirs: tuple[Path, ...] = ()
    wildcards_dirs: tuple[Path, ...] = ()


def read_library(
    shelves: Shelves,
    first: str | None = None,
    *,
    expand: Callable[[str, int], str] | None = expand,
) -> Library:
    """Read everything.

    Args:
        shelves: Where things are.
        first: Name of the base model that becomes the default; see `read_catalog`.
        expand: Adds words for *Fooocus V2*.

    Raises:
        ModelNotFound: `first` is not there.
        InvalidRequest: a preset is not one.
    """
    presets = dict(read_presets(ROOT / "presets"))
    styles_dirs, wildcards_dirs = [ROOT / "styles"], [*shelves.wildcards_dirs]
    places, defaults = Places(models_dir=shelves.models_dir), None
    if shelves.fooocus_dir is not None:
        fooocus = read_fooocus_dir(shelves.fooocus_dir)
        for note in fooocus.notes:
            log.warning("%s: %s", shelves.fooocus_dir, note)
        places = Places(models_dir=shelves.models_dir, more=fooocus.weights)
        presets |= {f"fooocus/{name}": preset for name, preset in fooocus.presets.items()}
        styles_dirs += [fooocus.styles_dir] if fooocus.styles_dir else []
        wildcards_dirs += fooocus.folders.get("wildcards", ())
        defaults = fooocus.defaults
    for folder in shelves.presets_dirs:
        presets |= read_presets(folder)
    return Library(
        catalog=read_catalog(places, first, [*_offers(presets), *few_step_offers()]),
        presets=presets,
        styles=read_styles([*styles_dirs, *shelves.styles_dirs]),
        wildcards=read_wildcards([*wildcards_dirs, ROOT / "wildcards"]),
        expand=expand,
        defaults=defaults,
    )


def few_step_offers() -> Iterator[Offer]:
    """List the LoRAs of the performance modes, as they can be fetched."""
    for mode in MODES.values():
        if mode.distilled:
            url = _FEW_STEPS[mode.distilled.lora] + mode.distilled.lora
            yield Offer(file=mode.distilled.lora, kind="lora", source=Source(url=url))


def _offers(presets: Mapping[str, Preset]) -> Iterator[Offer]:
    for preset in presets.values():
        yield from preset.weights
