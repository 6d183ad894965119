"""What a person's Fooocus folder holds: where its files lie, what its settings are, its presets.

Everything is read in place and nothing is written. Values that cannot be used are said, not fatal. Source: reference of
Fooocus 2.5.5; golden/metadata, ``preset_to_metadata``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from engine.catalog import FOLDERS, Kind, Offer, Source
from engine.errors import InvalidRequest
from engine.geometry import parse_size
from engine.presets import Preset
from engine.records.literals import as_number, as_text, as_whole, json_object
from engine.records.reading import Reading
from engine.records.record import NONE, OWN_VAE
from engine.requests import MAX_LORAS

_PATHS: Mapping[str, tuple[str, str]] = {
    "path_checkpoints": ("checkpoints", "models/checkpoints"),
    "path_loras": ("loras", "models/loras"),
    "path_embeddings": ("embeddings", "models/embeddings"),
    "path_vae_approx": ("vae_approx", "models/vae_approx"),
    "path_vae": ("vae", "models/vae"),
    "path_upscale_models": ("upscale_models", "models/upscale_models"),
    "path_inpaint": ("inpaint", "models/inpaint"),
    "path_controlnet": ("controlnet", "models/controlnet"),
    "path_clip_vision": ("clip_vision", "models/clip_vision"),
    "path_fooocus_expansion": ("expansion", "models/prompt_expansion/fooocus_expansion"),
    "path_wildcards": ("wildcards", "wildcards"),
    "path_safety_checker": ("safety_checker", "models/safety_checker"),
    "path_sam": ("sam", "models/sam"),
    "path_outputs": ("outputs", "outputs"),
}
"""Key of ``config.txt`` to what is in the folder, and where it is by default."""
_OLD_PATHS: Mapping[str, str] = {
    "modelfile_path": "path_checkpoints",
    "lorafile_path": "path_loras",
    "embeddings_path": "path_embeddings",
    "vae_approx_path": "path_vae_approx",
    "upscale_models_path": "path_upscale_models",
    "inpaint_models_path": "path_inpaint",
    "controlnet_models_path": "path_controlnet",
    "clip_vision_models_path": "path_clip_vision",
    "fooocus_expansion_path": "path_fooocus_expansion",
    "temp_outputs_path": "path_outputs",
}
_STYLES = "sdxl_styles"
_MARKS = ("models", "presets", _STYLES, "config.txt")
"""What a Fooocus folder has, one of it at least."""
_DOWNLOADS: Mapping[str, Kind] = {
    "checkpoint_downloads": "checkpoint",
    "lora_downloads": "lora",
    "vae_downloads": "vae",
    "embeddings_downloads": "embedding",
}
_FIRST_PRESET = "default"
_EVERYWHERE_OFF = "default_save_metadata_to_images"
"""Fooocus' presets carry it, but it does nothing there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FooocusFolder:
    """A Fooocus installation, as far as it is of use here."""

    path: Path
    folders: Mapping[str, tuple[Path, ...]]
    """Folders that are there, by the name of their content: checkpoints, loras, wildcards, outputs and so on."""
    styles_dir: Path | None
    defaults: Mapping[str, Any]
    """Fields of `TextRequest` that the program starts with."""
    presets: Mapping[str, Preset]
    """By file name without its ending; each holds the defaults where it says nothing."""
    notes: tuple[str, ...]
    """A sentence for each value that could not be used."""

    @property
    def weights(self) -> Mapping[Kind, tuple[Path, ...]]:
        """The folders that the catalog reads, as `Places.more` wants them."""
        return {kind: self.folders.get(name, ()) for kind, name in FOLDERS.items()}


def read_fooocus_dir(path: Path) -> FooocusFolder:
    """Read ``config.txt``, the presets and where everything lies.

    Later values win: the default preset, ``config.txt``, a preset's own.

    Args:
        path: The folder with ``models`` and ``presets`` in it, or the one around it that Windows users unpack.

    Raises:
        InvalidRequest: it is no folder, or none of Fooocus'.
    """
    root = _root(path)
    notes: list[str] = []
    config = _config(root, notes)
    files = {file.stem: _json(file, notes) for file in sorted((root / "presets").glob("*.json"))}
    first = {**files.get(_FIRST_PRESET, {})}
    first.pop(_EVERYWHERE_OFF, None)
    start = {**first, **config}
    defaults, found = request_from_fooocus_config(start)
    notes += found
    presets = {name: _preset(name, values, start, notes) for name, values in files.items()}
    styles = root / _STYLES
    return FooocusFolder(
        path=root,
        folders=_folders(root, config, notes),
        styles_dir=styles if styles.is_dir() else None,
        defaults=defaults,
        presets=presets,
        notes=tuple(dict.fromkeys(notes)),
    )


def request_from_fooocus_config(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Make fields of a `TextRequest` of the ``default_*`` keys of a preset or of ``config.txt``.

    Keys without a meaning here are passed over.

    Returns:
        The fields, with ``advanced`` inside, and a sentence for each value that could not be used.
    """
    reading = Reading(values, {})
    for key, (field, read) in _FIELDS.items():
        if values.get(key) is not None:
            reading.take(key, field, read)
    if isinstance(values.get("default_loras"), list):
        _take_loras(reading)
    if not reading.fields.get("prompt", "x"):
        del reading.fields["prompt"]
    return reading.fields, reading.notes


def _take_loras(reading: Reading) -> None:
    rows: list[dict[str, Any]] = []
    for row in reading.values["default_loras"]:
        try:
            lora = _lora(row)
            if lora is not None:
                reading.put("loras", [lora])
                rows.append(lora)
        except ValueError as error:
            reading.note("default_loras", str(error))
    reading.put("loras", rows[:MAX_LORAS])


def _lora(row: object) -> dict[str, Any] | None:
    """Read ``[name, weight]`` or ``[is on, name, weight]``; None where the row holds nothing."""
    if not isinstance(row, list) or len(row) not in (2, 3):
        raise ValueError(f"expected [name, weight], got {row!r:.80}")
    is_on = len(row) == 2 or row[0] is True
    name = _name_or_none(row[-2])
    return {"path": name, "scale": as_number(row[-1])} if is_on and name else None


def _name_or_none(value: object) -> str | None:
    name = as_text(value).replace("\\", "/")
    return None if name in (NONE, "", OWN_VAE) else name


def _count_or_none(value: object) -> int | None:
    count = as_whole(value)
    return count if count > 0 else None


def _size(value: object) -> str:
    return str(parse_size(as_text(value)))


def _as_it_is(value: object) -> object:
    return value


_FIELDS: Mapping[str, tuple[str, Any]] = {
    "default_model": ("advanced.base_model", _name_or_none),
    "default_refiner": ("refiner_model", _name_or_none),
    "default_refiner_switch": ("refiner_switch", as_number),
    "default_cfg_scale": ("guidance_scale", as_number),
    "default_sample_sharpness": ("sharpness", as_number),
    "default_cfg_tsnr": ("advanced.adaptive_cfg", as_number),
    "default_clip_skip": ("advanced.clip_skip", as_whole),
    "default_sampler": ("advanced.sampler", as_text),
    "default_scheduler": ("advanced.scheduler", as_text),
    "default_vae": ("advanced.vae", _name_or_none),
    "default_overwrite_step": ("advanced.num_inference_steps", _count_or_none),
    "default_overwrite_switch": ("advanced.refiner_switch_step", _count_or_none),
    "default_performance": ("performance", as_text),
    "default_image_number": ("num_images", as_whole),
    "default_prompt": ("prompt", as_text),
    "default_prompt_negative": ("negative_prompt", as_text),
    "default_styles": ("styles", _as_it_is),
    "default_aspect_ratio": ("aspect_ratio", _size),
    "default_output_format": ("output_format", as_text),
    _EVERYWHERE_OFF: ("advanced.save_metadata", _as_it_is),
    "default_metadata_scheme": ("advanced.metadata_scheme", as_text),
}
"""Key of a preset or of ``config.txt`` to the request's field and how its value is read."""


def _root(path: Path) -> Path:
    for root in (path, path / "Fooocus"):
        if any((root / mark).exists() for mark in _MARKS):
            return root
    problem = f"expected Fooocus' folder, with {', '.join(_MARKS)} in it, got {str(path)!r}"
    raise InvalidRequest("fooocus_dir", problem)


def _config(root: Path, notes: list[str]) -> Mapping[str, Any]:
    """Read ``config.txt``, and the file that older versions had; that one wins, as it does there."""
    config: dict[str, Any] = {}
    for name in ("config.txt", "user_path_config.txt"):
        if (root / name).exists():
            config |= _json(root / name, notes)
    return {_OLD_PATHS.get(key, key): value for key, value in config.items()}


def _json(path: Path, notes: list[str]) -> Mapping[str, Any]:
    try:
        values = json_object(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        notes.append(f"{path.name}: expected a text file, got {error}")
        return {}
    if values is None:
        notes.append(f"{path.name}: expected a JSON object; nothing of it is used")
    return values or {}


def _folders(
    root: Path, config: Mapping[str, Any], notes: list[str]
) -> Mapping[str, tuple[Path, ...]]:
    folders = {}
    for key, (content, usual) in _PATHS.items():
        named = config.get(key, [])
        wanted = named if isinstance(named, list) else [named]
        there = [folder for item in wanted for folder in _folder(root, key, item, notes)]
        default = root / usual
        folders[content] = tuple(there or ([default] if default.is_dir() else []))
    return {content: paths for content, paths in folders.items() if paths}


def _folder(root: Path, key: str, named: object, notes: list[str]) -> Iterator[Path]:
    """Find one folder of ``config.txt``; its path counts from Fooocus' own folder."""
    try:
        folder = (root / as_text(named)).resolve()
        if not folder.is_dir():
            raise ValueError(f"expected a folder, got {named!r}")
        yield folder
    except (ValueError, OSError) as error:
        notes.append(f"{key}: {error}; the usual place is taken")


def _preset(
    name: str, values: Mapping[str, Any], start: Mapping[str, Any], notes: list[str]
) -> Preset:
    own = {key: value for key, value in values.items() if key != _EVERYWHERE_OFF}
    whole = {**start, **own}
    request, _ = request_from_fooocus_config(whole)
    notes += (f"{name}.json: {note}" for note in request_from_fooocus_config(own)[1])
    model = request.get("advanced", {}).get("base_model")
    paints = f", paints with {PurePosixPath(model).stem}" if model else ""
    of_model = own if "default_model" in own else whole
    earlier = of_model.get("previous_default_models")
    return Preset(
        name=name,
        summary=f"From the Fooocus folder{paints}.",
        request=request,
        weights=tuple(_offers(of_model)),
        substitutes=tuple(filter(_is_text, earlier)) if isinstance(earlier, list) else (),
    )


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _offers(values: Mapping[str, Any]) -> Iterator[Offer]:
    """List what a preset can fetch: plain file names from web addresses."""
    for key, kind in _DOWNLOADS.items():
        files = values.get(key)
        for file, url in files.items() if isinstance(files, dict) else ():
            is_plain = _is_plain(file)
            if is_plain and isinstance(url, str) and url.startswith(("https://", "http://")):
                yield Offer(file=file, kind=kind, source=Source(url=url))


def _is_plain(file: str) -> bool:
    """Whether a name stays below its folder."""
    path = PurePosixPath(file)
    return bool(file) and not path.is_absolute() and ".." not in path.parts and "\\" not in file
