"""Fooocus' own record: one JSON object with its keys in alphabetical order.

Source: golden/metadata.
"""

import json
from typing import Any

from engine.errors import InvalidRequest
from engine.records.literals import json_object, require_length
from engine.records.names import Resolve
from engine.records.record import NONE, OWN_VAE, Record, log_rows, stem

_KINDS = (("base_model", "checkpoint"), ("refiner_model", "checkpoint"), ("vae", "vae"))


def write(record: Record) -> str:
    """Write a record as Fooocus writes it; weights are named by stem."""
    values: dict[str, Any] = {key: value for _, key, value in log_rows(record)}
    values["full_prompt"] = list(record.full_prompt)
    values["full_negative_prompt"] = list(record.full_negative_prompt)
    values["base_model"] = stem(record.base_model)
    values["base_model_hash"] = record.hashes.get(record.base_model, "")
    if record.refiner_model is not None:
        values["refiner_model"] = stem(record.refiner_model)
        values["refiner_model_hash"] = record.hashes.get(record.refiner_model, "")
    if record.vae is not None:
        values["vae"] = stem(record.vae)
    for number, (file, weight) in enumerate(record.loras, start=1):
        values[f"lora_combined_{number}"] = f"{stem(file)} : {weight}"
    values["loras"] = [
        [stem(file), weight, record.hashes.get(file, "")] for file, weight in record.loras
    ]
    if record.created_by:
        values["created_by"] = record.created_by
    return json.dumps(values, sort_keys=True)


def read(text: str, resolve: Resolve) -> dict[str, Any]:
    """Read a record, or any JSON object with its keys or labels.

    Args:
        text: The JSON.
        resolve: Finds installed files; a name that it doesn't know stays as it is.

    Raises:
        InvalidRequest: the text is no JSON object.
    """
    require_length(text)
    found = json_object(text)
    if found is None:
        raise InvalidRequest("metadata", f"expected a JSON object, got {text.strip()[:40]!r}")
    values = dict(found)
    for key, kind in _KINDS:
        name = values.get(key)
        if isinstance(name, str) and name not in (NONE, OWN_VAE):
            values[key] = resolve("vae" if kind == "vae" else "checkpoint", name) or name
    for key in [key for key in values if key.startswith("lora_combined_")]:
        values[key] = with_installed_lora(values[key], resolve)
    return values


def with_installed_lora(row: Any, resolve: Resolve) -> Any:
    """Put the installed file's name into ``name : weight`` or ``True : name : weight``."""
    parts = row.split(" : ") if isinstance(row, str) else []
    if len(parts) not in (2, 3):
        return row
    parts[-2] = resolve("lora", parts[-2]) or parts[-2]
    return " : ".join(parts)
