"""The text that A1111 made common: prompt, negative prompt, and a last line of settings.

Fooocus writes such texts with keys of its own. Read here are both; written is Fooocus' form, by default with three keys
more, for what it leaves out: the styles, the sampler's own name and the refiner's share. Source: golden/metadata.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from engine.prompt.styles import Style
from engine.records.literals import as_names, require_length
from engine.records.names import Resolve
from engine.records.record import OWN_VAE, Record, stem
from engine.records.samplers import SCHEDULES, display_name, from_display
from engine.records.styles_in_text import styles_in_text
from engine.requests import Compat

_NEGATIVE = "Negative prompt:"
_KEYS = {
    "Steps": "steps",
    "Sampler": "sampler",
    "Seed": "seed",
    "Size": "resolution",
    "CFG scale": "guidance_scale",
    "Sharpness": "sharpness",
    "ADM Guidance": "adm_guidance",
    "Model": "base_model",
    "Model hash": "base_model_hash",
    "Performance": "performance",
    "Scheduler": "scheduler",
    "VAE": "vae",
    "Raw prompt": "raw_prompt",
    "Raw negative prompt": "raw_negative_prompt",
    "Refiner": "refiner_model",
    "Refiner hash": "refiner_model_hash",
    "Adaptive CFG": "adaptive_cfg",
    "Clip skip": "clip_skip",
    "Overwrite Switch": "overwrite_switch",
    "Refiner Swap Method": "refiner_swap_method",
    "FreeU": "freeu",
    "Lora hashes": "lora_hashes",
    "Lora weights": "lora_weights",
    "Version": "version",
    "User": "created_by",
    "Refiner switch at": "refiner_switch",
    "Schedule type": "schedule_type",
    "Styles": "styles",
    "Sampler name": "sampler_name",
}
"""A1111's and Fooocus' labels, and the last two of our own."""
_PAIR = re.compile(r'\s*([A-Za-z][\w /.-]{0,40}):\s*("(?:[^"\\]|\\.)*"|\{[^{}]*\}|[^,]*)(?:,|$)')
_SETTINGS = re.compile(r"\s*Steps: *\d+ *,")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_FILE_HASH = re.compile(r" \[[0-9a-f]{8,12}\]$")
_NO_VAE = {"automatic", "none", OWN_VAE.casefold()}


def write(record: Record, *, compat: Compat = "pochade") -> str:
    """Write a record as a text of A1111's form.

    Args:
        record: What is written.
        compat: ``fooocus`` writes Fooocus' text to the letter: ``Karras`` after every sampler, and no more keys.
    """
    lines = [", ".join(record.full_prompt)]
    negative = ", ".join(record.full_negative_prompt)
    if negative:
        lines.append(f"{_NEGATIVE} {negative}")
    pairs = (f"{key}: {_quoted(str(value))}" for key, value in _settings(record, compat))
    lines.append(", ".join(pairs))
    return "\n".join(lines).strip()


def read(text: str, resolve: Resolve, styles: Mapping[str, Style]) -> dict[str, Any]:
    """Read a text of A1111's form, as written by A1111, Fooocus or us.

    Args:
        text: Prompt, negative prompt and settings; without settings all of it is prompt.
        resolve: Finds installed files; a name that it doesn't know stays as it is.
        styles: Template texts by style name, to find the styles that Fooocus doesn't write.

    Returns:
        Fooocus' keys, with what was found for each as text.

    Raises:
        InvalidRequest: the text is longer than any record.
    """
    require_length(text)
    positive, negative, settings = _split(text)
    pairs = {_KEYS[label]: value for label, value in _pairs(settings) if label in _KEYS}
    values: dict[str, Any] = {key: value for key, value in pairs.items() if key in _AS_THEY_ARE}
    values["prompt"] = pairs.get("raw_prompt", positive)
    values["negative_prompt"] = pairs.get("raw_negative_prompt", negative)
    if "raw_prompt" in pairs or "styles" in pairs:
        values["styles"] = _styles(pairs, (positive, negative), styles)
    size = _SIZE.fullmatch(pairs.get("resolution", ""))
    if size:
        values["resolution"] = str(size.groups())
    values |= _sampler(pairs) | _weights(pairs, resolve)
    values |= _loras(pairs, values["prompt"], resolve)
    return values


def has_settings(text: str) -> bool:
    """Say whether a text ends in a line of settings, so that it is no ordinary prompt."""
    last = text.rstrip().rpartition("\n")[2]
    if not _SETTINGS.match(last):
        return False
    labels = {label for label, _ in _pairs(last)}
    return len(labels & {"Sampler", "Seed", "Size", "CFG scale", "Model"}) > 0


_AS_THEY_ARE = {
    "steps",
    "seed",
    "guidance_scale",
    "sharpness",
    "adm_guidance",
    "base_model_hash",
    "performance",
    "scheduler",
    "raw_prompt",
    "raw_negative_prompt",
    "refiner_model_hash",
    "refiner_switch",
    "adaptive_cfg",
    "clip_skip",
    "overwrite_switch",
    "refiner_swap_method",
    "freeu",
    "lora_hashes",
    "lora_weights",
    "version",
    "created_by",
}


def _settings(record: Record, compat: Compat) -> Iterator[tuple[str, object]]:
    is_fooocus = compat == "fooocus"
    yield "Steps", record.steps
    yield "Sampler", display_name(record.sampler, record.scheduler, every_karras=is_fooocus)
    yield "Seed", record.seed
    yield "Size", record.size
    yield "CFG scale", record.guidance_scale
    yield "Sharpness", record.sharpness
    yield "ADM Guidance", record.adm
    yield "Model", stem(record.base_model)
    yield "Model hash", record.hashes.get(record.base_model, "")
    yield "Performance", record.performance
    yield "Scheduler", record.scheduler
    yield "VAE", stem(record.vae) if record.vae else OWN_VAE
    yield "Raw prompt", record.prompt
    yield "Raw negative prompt", record.negative_prompt
    if not is_fooocus:
        yield "Sampler name", record.sampler
        yield "Styles", list(record.styles)
    yield from _where_used(record, is_fooocus=is_fooocus)
    yield "Version", record.version
    if record.created_by:
        yield "User", record.created_by


def _where_used(record: Record, *, is_fooocus: bool) -> Iterator[tuple[str, object]]:
    has_refiner = record.refiner_model is not None
    if record.refiner_model is not None:
        yield "Refiner", stem(record.refiner_model)
        yield "Refiner hash", record.hashes.get(record.refiner_model, "")
        if not is_fooocus:
            yield "Refiner switch at", record.refiner_switch
    if record.adaptive_cfg != record.usual_adaptive_cfg:
        yield "Adaptive CFG", record.adaptive_cfg
    if record.clip_skip > 1:
        yield "Clip skip", record.clip_skip
    if has_refiner and record.overwrite_switch:
        yield "Overwrite Switch", record.overwrite_switch
    if has_refiner and record.refiner_swap_method != "joint":
        yield "Refiner Swap Method", record.refiner_swap_method
    if record.freeu is not None:
        yield "FreeU", record.freeu
    if record.loras:
        hashes = (f"{stem(file)}: {record.hashes.get(file, '')}" for file, _ in record.loras)
        yield "Lora hashes", ", ".join(hashes)
        yield "Lora weights", ", ".join(f"{stem(file)}: {weight}" for file, weight in record.loras)


def _quoted(value: str) -> str:
    """Quote what would be torn apart otherwise, or taken for quoted."""
    needs = any(char in value for char in ",:\n") or value.startswith(('"', "{"))
    return json.dumps(value, ensure_ascii=False) if needs else value


def _split(text: str) -> tuple[str, str, str]:
    """Cut a text into prompt, negative prompt and the line of settings."""
    lines = text.strip().split("\n")
    settings = lines.pop() if _is_settings(lines[-1]) else ""
    start = next((i for i, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).removeprefix(_NEGATIVE)
    return "\n".join(lines[:start]).strip(), negative.strip(), settings


def _is_settings(line: str) -> bool:
    return bool(_SETTINGS.match(line)) or len({label for label, _ in _pairs(line)} & {*_KEYS}) >= 3


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    for label, value in _PAIR.findall(line):
        yield label.strip(), _unquoted(value.strip())


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value, strict=False))
    except ValueError:
        return value


def _styles(pairs: Mapping[str, str], texts: tuple[str, str], styles: Mapping[str, Style]) -> str:
    """Name the styles: as they were written, else those whose texts stand in the prompts."""
    written = pairs.get("styles")
    if written is not None:
        try:
            return str(list(as_names(written)))
        except ValueError:
            return "[]"
    prompts = (pairs.get("raw_prompt", ""), pairs.get("raw_negative_prompt", ""))
    return str(styles_in_text(texts, prompts, styles))


def _sampler(pairs: Mapping[str, str]) -> dict[str, str]:
    """Read sampler and schedule; a schedule that nothing tells is A1111's plain one."""
    if "sampler" not in pairs:
        return {}
    sampler, told = from_display(pairs["sampler"])
    typed = SCHEDULES.get(pairs.get("schedule_type", "").casefold())
    scheduler = pairs.get("scheduler") or typed or told or "normal"
    return {"sampler": pairs.get("sampler_name", sampler), "scheduler": scheduler}


def _weights(pairs: Mapping[str, str], resolve: Resolve) -> dict[str, str]:
    values = {}
    for key in ("base_model", "refiner_model"):
        if pairs.get(key):
            name = _FILE_HASH.sub("", pairs[key])
            values[key] = resolve("checkpoint", name) or name
    if pairs.get("vae"):
        is_own = pairs["vae"].casefold() in _NO_VAE
        values["vae"] = OWN_VAE if is_own else resolve("vae", pairs["vae"]) or pairs["vae"]
    return values


def _loras(pairs: Mapping[str, str], prompt: str, resolve: Resolve) -> dict[str, str]:
    """Read LoRAs and weights; those that a tag in the prompt names come from there."""
    rows = [item.rpartition(":") for item in pairs.get("lora_weights", "").split(",")]
    found = [(name.strip(), weight.strip()) for name, colon, weight in rows if colon]
    kept = [(name, weight) for name, weight in found if f"<lora:{name}:" not in prompt]
    return {
        f"lora_combined_{number}": f"{resolve('lora', name) or name} : {weight}"
        for number, (name, weight) in enumerate(kept, start=1)
    }
