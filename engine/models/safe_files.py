"""Whether a file is what its ending says, before anything of it is used. No torch."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from engine.errors import ModelIncompatible

SAFE = ".safetensors"
"""Ending of the files of weights that carry no code."""


def require_safetensors(path: Path, name: str | None = None) -> None:
    """Make sure that a file is a whole safetensors file, by its header; reads no weights.

    Args:
        path: The file, whatever its name.
        name: What messages call it; None is its name.

    Raises:
        ModelIncompatible: it is not, or cut off; a pickled file under a false name is called so.
    """
    try:
        with safe_open(path, framework="np"):
            return
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise broken(path, error, name) from error


def broken(path: Path, error: Exception, name: str | None = None) -> ModelIncompatible:
    """Say what is wrong with a safetensors file, in more words than its library where the reason is common."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        header = int.from_bytes(start, "little")
        promised = 8 + header + _promised(file.read(min(header, size)))
    if start[:2] == b"PK" or start[:1] == b"\x80":
        found = "a pickled one under its name"
    elif size < promised:
        found = f"one of {size} bytes whose header promises {promised}; fetch it again"
    else:
        found = f"a broken one ({error})"
    return ModelIncompatible(f"{name or path.name}: expected a safetensors file, got {found}")


def _promised(header: bytes) -> int:
    """Count the bytes of tensors that a header speaks of; 0 where it cannot be read."""
    try:
        items = json.loads(header).values()
        return max(
            (int(item["data_offsets"][1]) for item in items if "data_offsets" in item), default=0
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return 0
