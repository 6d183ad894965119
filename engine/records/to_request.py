"""From what a foreign record says to fields of a request.

Source: golden/metadata, ``ui_values`` and ``ui_from_dict``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal

from engine.catalog import Catalog, Kind
from engine.errors import InvalidRequest
from engine.geometry import LATENT_FACTOR, Size
from engine.partners import UPSCALE_LORA
from engine.performance import MODES
from engine.prompt.styles import Style, find_style
from engine.records import a1111, fooocus
from engine.records.literals import as_names, as_number, as_numbers, as_text, as_whole
from engine.records.names import Resolve, catalog_resolver
from engine.records.reading import Reading
from engine.records.record import ADAPTIVE_CFG, NONE, OWN_VAE
from engine.requests import MAX_LORAS

LABELS: Mapping[str, str] = {
    "prompt": "Prompt",
    "negative_prompt": "Negative Prompt",
    "prompt_expansion": "Fooocus V2 Expansion",
    "styles": "Styles",
    "performance": "Performance",
    "steps": "Steps",
    "resolution": "Resolution",
    "guidance_scale": "Guidance Scale",
    "sharpness": "Sharpness",
    "adm_guidance": "ADM Guidance",
    "base_model": "Base Model",
    "refiner_model": "Refiner Model",
    "refiner_switch": "Refiner Switch",
    "overwrite_switch": "Overwrite Switch",
    "refiner_swap_method": "Refiner Swap Method",
    "adaptive_cfg": "CFG Mimicking from TSNR",
    "clip_skip": "CLIP Skip",
    "sampler": "Sampler",
    "scheduler": "Scheduler",
    "vae": "VAE",
    "seed": "Seed",
    "freeu": "FreeU",
    "metadata_scheme": "Metadata Scheme",
    "version": "Version",
    "image_number": "Image Number",
    **{f"lora_combined_{number}": f"LoRA {number}" for number in range(1, MAX_LORAS + 1)},
}
"""Key to label; a record may have either."""
_LEFT_OUT: Mapping[str, object] = {
    "refiner_model": NONE,
    "overwrite_switch": -1,
    "refiner_swap_method": "joint",
    "adaptive_cfg": ADAPTIVE_CFG,
    "clip_skip": 1,
}
"""What Fooocus means where its record says nothing."""
_WRITERS = ("Fooocus", "Pochade")
_SIMPLE: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "prompt": ("prompt", as_text),
    "negative_prompt": ("negative_prompt", as_text),
    "styles": ("styles", as_names),
    "guidance_scale": ("guidance_scale", as_number),
    "sharpness": ("sharpness", as_number),
    "refiner_switch": ("refiner_switch", as_number),
    "seed": ("seed", as_whole),
    "refiner_swap_method": ("advanced.refiner_swap_method", as_text),
    "adaptive_cfg": ("advanced.adaptive_cfg", as_number),
    "clip_skip": ("advanced.clip_skip", as_whole),
    "sampler": ("advanced.sampler", as_text),
    "scheduler": ("advanced.scheduler", as_text),
}
"""Key to the request's field and how its value is read."""
_FREEU = ("b1", "b2", "s1", "s2")
_ADM = ("adm_scaler_positive", "adm_scaler_negative", "adm_scaler_end")
_MOST_IMAGES = 32


def settings_from(
    kind: Literal["fooocus", "a1111"], text: str, catalog: Catalog, styles: Mapping[str, Style]
) -> tuple[dict[str, Any], list[str]]:
    """Make fields of a `TextRequest` of a foreign text; see `request_from`.

    Raises:
        InvalidRequest: the text is not of that kind.
    """
    resolve = catalog_resolver(catalog)
    is_json = kind == "fooocus"
    values = fooocus.read(text, resolve) if is_json else a1111.read(text, resolve, styles)
    own = {file for item in catalog.checkpoints for _, file in item.performance_loras}
    brought = {dict(item.partners).get(UPSCALE_LORA, "") for item in catalog.checkpoints}
    return request_from(values, resolve, mode_loras=own, base_loras=brought, styles=styles)


def request_from(
    values: Mapping[str, Any],
    resolve: Resolve,
    *,
    mode_loras: Collection[str] = (),
    base_loras: Collection[str] = (),
    styles: Iterable[str] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Make fields of a `TextRequest` of a record.

    What the record leaves open stays open, but for what Fooocus resets: one image, the mode's own steps, no FreeU and no
    LoRAs.

    Args:
        values: What `fooocus.read` or `a1111.read` returned, or any mapping with Fooocus' keys or labels.
        resolve: Finds installed files.
        styles: Names of all styles; None takes any name.
        mode_loras: File names, besides SDXL's common ones, of LoRAs that performance modes bring themselves.
        base_loras: File names of LoRAs that base models bring themselves, whatever the mode.

    Returns:
        The fields, with ``advanced`` inside, and a sentence for each that was left out.
    """
    if not values:
        return {}, []
    reading = Reading(_whole(values), LABELS)
    for key, (field, read) in _SIMPLE.items():
        reading.take(key, field, read)
    _drop_unknown_styles(reading, styles)
    _take_count(reading)
    _take_steps(reading)
    _take_size(reading)
    _take_rows(reading)
    _take_weights(reading, resolve)
    _take_loras(reading, resolve, mode_loras, base_loras)
    return reading.fields, reading.notes


def _whole(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in what the writer left out because it was off; texts from elsewhere leave it open."""
    version = values.get("version", values.get(LABELS["version"]))
    if not isinstance(version, str) or not version.startswith(_WRITERS):
        return values
    missing = {
        key: value
        for key, value in _LEFT_OUT.items()
        if key not in values and LABELS[key] not in values
    }
    return {**values, **missing}


def _drop_unknown_styles(reading: Reading, known: Iterable[str] | None) -> None:
    if known is None or "styles" not in reading.fields:
        return
    found, names = [], tuple(known)
    for name in reading.fields["styles"]:
        try:
            found.append(find_style(name, names))
        except InvalidRequest as error:
            reading.note("styles", f"{error.problem}; it is left out")
    reading.fields["styles"] = tuple(found)


def _take_count(reading: Reading) -> None:
    reading.put("num_images", 1)
    reading.take(
        "image_number", "num_images", lambda value: min(max(as_whole(value), 1), _MOST_IMAGES)
    )


def _take_steps(reading: Reading) -> None:
    """Settle mode and steps: a number that is the mode's own is no number of one's own.

    Steps without a mode, as A1111 writes them, choose between the two modes that change nothing else.
    """
    reading.take("performance", "performance", as_text)
    reading.put("advanced.num_inference_steps", None)
    try:
        steps = as_whole(reading.find("steps") or -1)
    except ValueError as error:
        reading.note("steps", str(error))
        return
    if steps < 1:
        return
    if "performance" not in reading.fields and reading.find("performance") is None:
        reading.put("performance", "Quality" if steps == MODES["Quality"].steps else "Speed")
    mode = MODES.get(reading.fields.get("performance", ""))
    if mode is None or steps != mode.steps:
        reading.take("steps", "advanced.num_inference_steps", as_whole)


def _take_size(reading: Reading) -> None:
    def read(value: object) -> str:
        asked = Size(*(as_whole(side) for side in as_numbers(value, 2)))
        size = Size(*(side - side % LATENT_FACTOR for side in asked))
        if size != asked:
            reading.note("resolution", f"{asked} is painted as {size}, the latents' own size")
        return str(size)

    reading.take("resolution", "aspect_ratio", read)


def _take_rows(reading: Reading) -> None:
    """Read the values that are several numbers in one; a row counts whole or not at all."""
    scales = reading.find("adm_guidance")
    if scales is not None:
        try:
            for name, scale in zip(_ADM, as_numbers(scales, 3), strict=True):
                reading.put(f"advanced.{name}", scale)
        except ValueError as error:
            reading.note("adm_guidance", str(error))
    reading.put("advanced.freeu", None)
    reading.take(
        "freeu",
        "advanced.freeu",
        lambda value: dict(zip(_FREEU, as_numbers(value, 4), strict=True)),
    )
    reading.take("overwrite_switch", "advanced.refiner_switch_step", _step_or_none)


def _step_or_none(value: object) -> int | None:
    step = as_whole(value)
    return step if step > 0 else None


def _take_weights(reading: Reading, resolve: Resolve) -> None:
    kinds: tuple[tuple[str, Kind, str], ...] = (
        ("base_model", "checkpoint", "advanced.base_model"),
        ("refiner_model", "checkpoint", "refiner_model"),
        ("vae", "vae", "advanced.vae"),
    )
    for key, kind, field in kinds:
        reading.take(key, field, partial(_installed, kind, resolve))


def _installed(kind: Kind, resolve: Resolve, value: object) -> str | None:
    name = as_text(value)
    if kind == "vae" and name in (OWN_VAE, NONE, ""):
        return None
    if name in (NONE, ""):
        return None
    found = resolve(kind, name)
    if found is None:
        raise ValueError(f"{name[:80]!r} is not installed; the one that is chosen stays")
    return found


def _take_loras(
    reading: Reading, resolve: Resolve, mode_loras: Collection[str], base_loras: Collection[str]
) -> None:
    """Read the rows of LoRAs; the performance mode's own is not the person's, nor is the base model's."""
    mode = MODES.get(reading.fields.get("performance", ""))
    own = {PurePosixPath(file).stem for file in base_loras}
    if mode is not None and mode.distilled is not None:
        own |= {PurePosixPath(file).stem for file in (mode.distilled.lora, *mode_loras)}
    rows: list[dict[str, Any]] = []
    for number in range(1, MAX_LORAS + 1):
        key = f"lora_combined_{number}"
        try:
            row = _lora_row(reading.find(key), own, resolve)
            if row is not None:
                reading.put("loras", [row])
                rows.append(row)
        except ValueError as error:
            reading.note(key, str(error))
    reading.put("loras", rows)


def _lora_row(value: object, own: Collection[str], resolve: Resolve) -> dict[str, Any] | None:
    """Read ``name : weight`` or ``True : name : weight``; None where the row holds nothing."""
    if value is None:
        return None
    parts = as_text(value).split(" : ")
    if len(parts) not in (2, 3):
        raise ValueError(f"expected 'name : weight', got {as_text(value)[:80]!r}")
    name, weight = parts[-2], as_number(parts[-1])
    is_off = len(parts) == 3 and parts[0].strip() != "True"
    if is_off or name in (NONE, "") or PurePosixPath(name).stem in own or name in own:
        return None
    found = resolve("lora", name)
    if found is None:
        raise ValueError(f"{name[:80]!r} is not installed; it is left out")
    return {"path": found, "scale": weight}
