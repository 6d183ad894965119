"""All that a request may name, read from the disk once: weights, presets, styles, wildcards.

No torch and no weights, so that the web process can plan with it. A library never changes; reading it again gives a new one.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from engine.catalog import Catalog, Offer, Source
from engine.errors import EngineError
from engine.fooocus_dir import FooocusFolder, read_fooocus_dir
from engine.partners import partner_offers
from engine.performance import MODES
from engine.places import Places, read_catalog
from engine.presets import Preset, read_own_presets, read_presets
from engine.prompt.expansion import expand
from engine.prompt.styles import Style, find_style, read_styles
from engine.prompt.wildcards import read_wildcards

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
"""Holds what ships with the studio: presets, styles, wildcards."""
INTERPOSER = Offer(
    file="xl-to-v1_interposer-v4.0.safetensors",
    kind="vae_approx",
    source=Source(
        url="https://huggingface.co/mashb1t/misc/resolve/main/xl-to-v1_interposer-v4.0.safetensors"
    ),
)
"""Turns SDXL's latents into those of SD 1.5, for refiners of that family."""
SAFETY_CHECKER = Offer(
    file="model.safetensors",
    kind="safety_checker",
    source=Source(
        url="https://huggingface.co/CompVis/stable-diffusion-safety-checker/resolve/main/model.safetensors"
    ),
)
"""Looks over finished pictures; fetched only where the owner requires it (1.2 GB)."""
_FEW_STEPS = {
    "sdxl_lcm_lora.safetensors": "https://huggingface.co/lllyasviel/misc/resolve/main/",
    "sdxl_lightning_4step_lora.safetensors": "https://huggingface.co/mashb1t/misc/resolve/main/",
    "sdxl_hyper_sd_4step_lora.safetensors": "https://huggingface.co/mashb1t/misc/resolve/main/",
}


def _nowhere(url: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What requests are planned with."""

    catalog: Catalog
    presets: Mapping[str, Preset] = field(default_factory=dict)
    styles: Mapping[str, Style] = field(default_factory=dict)
    wildcards: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    expand: Callable[[str, int], str] | None = expand
    """Adds words for *Fooocus V2*; None leaves that to an expansion model in the worker."""
    may_fetch: Callable[[str], bool] = _nowhere
    """Whether weights may be fetched from an address that a request names."""
    defaults: Mapping[str, Any] | None = None
    """Fields of a request that a person's Fooocus folder starts with; None without one."""

    def usable(self, request: Mapping[str, Any], *, with_base: bool = True) -> dict[str, Any]:
        """Leave out of a request what is not there, with a line in the log for each.

        Args:
            request: Fields of `TextRequest`, of another program's settings.
            with_base: Whether it may name the base model.
        """
        more, catalog = dict(request.get("advanced", {})), self.catalog

        def is_there(find: Callable[[], object]) -> bool:
            try:
                find()
            except EngineError as error:
                log.warning("left out of the settings: %s", error)
                return False
            return True

        base, vae = more.get("base_model"), more.get("vae")
        if base and not (with_base and is_there(lambda: catalog.checkpoint(base))):
            del more["base_model"]
        if vae and not is_there(lambda: catalog.vae(vae)):
            del more["vae"]
        kept: dict[str, Any] = {**request, "advanced": more}
        refiner = kept.get("refiner_model")
        if refiner and not is_there(lambda: catalog.checkpoint(refiner, "refiner_model")):
            del kept["refiner_model"]
        for name, find in (
            ("loras", lambda item: catalog.lora(item["path"])),
            ("styles", lambda item: find_style(item, self.styles)),
        ):
            if name in kept:
                kept[name] = [item for item in kept[name] if is_there(partial(find, item))]
        return kept


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
    may_fetch: Callable[[str], bool] = _nowhere,
) -> Library:
    """Read everything.

    Args:
        shelves: Where things are.
        first: Name of the base model that becomes the default; see `read_catalog`.
        expand: Adds words for *Fooocus V2*.
        may_fetch: Whether weights may be fetched from an address that a request names.

    Raises:
        ModelNotFound: `first` is not there.
        InvalidRequest: a preset is not one.
    """
    fooocus = _fooocus(shelves)
    styles_dirs, wildcards_dirs = [ROOT / "styles"], [*shelves.wildcards_dirs]
    presets = _presets(shelves, fooocus)
    defaults = None
    if fooocus is not None:
        for note in fooocus.notes:
            log.warning("%s: %s", fooocus.path, note)
        styles_dirs += [fooocus.styles_dir] if fooocus.styles_dir else []
        wildcards_dirs += fooocus.folders.get("wildcards", ())
        defaults = fooocus.defaults
    return Library(
        catalog=_catalog(shelves, first, presets, fooocus),
        presets=presets,
        styles=read_styles([*styles_dirs, *shelves.styles_dirs]),
        wildcards=read_wildcards([*wildcards_dirs, ROOT / "wildcards"]),
        expand=expand,
        may_fetch=may_fetch,
        defaults=defaults,
    )


def read_weights(shelves: Shelves, first: str | None = None) -> Catalog:
    """Read the catalog of `read_library` alone: all that a worker needs.

    Raises:
        ModelNotFound: `first` is not there.
    """
    fooocus = _fooocus(shelves)
    return _catalog(shelves, first, _presets(shelves, fooocus), fooocus)


def _fooocus(shelves: Shelves) -> FooocusFolder | None:
    return None if shelves.fooocus_dir is None else read_fooocus_dir(shelves.fooocus_dir)


def _presets(shelves: Shelves, fooocus: FooocusFolder | None) -> dict[str, Preset]:
    presets = dict(read_presets(ROOT / "presets"))
    if fooocus is not None:
        presets |= {f"fooocus/{name}": preset for name, preset in fooocus.presets.items()}
    for folder in shelves.presets_dirs:
        presets |= read_own_presets(folder)
    return presets


def _catalog(
    shelves: Shelves,
    first: str | None,
    presets: Mapping[str, Preset],
    fooocus: FooocusFolder | None,
) -> Catalog:
    places = Places(models_dir=shelves.models_dir, more=fooocus.weights if fooocus else {})
    offers = [*_offers(presets), *few_step_offers(), *partner_offers(), INTERPOSER, SAFETY_CHECKER]
    return read_catalog(places, first, offers)


def few_step_offers() -> Iterator[Offer]:
    """List the LoRAs of the performance modes, as they can be fetched."""
    for mode in MODES.values():
        if mode.distilled:
            url = _FEW_STEPS[mode.distilled.lora] + mode.distilled.lora
            yield Offer(file=mode.distilled.lora, kind="lora", source=Source(url=url))


def _offers(presets: Mapping[str, Preset]) -> Iterator[Offer]:
    for preset in presets.values():
        yield from preset.weights
