"""Whether a file that somebody brought is what they say, before it gets its place. No torch."""

from pathlib import Path

from engine.catalog import Checkpoint, Weights, read_header
from engine.errors import EngineError
from engine.lora_facts import require_lora
from engine.models.safe_files import require_safetensors


def check_lora(path: Path, name: str) -> None:
    """Make sure that a file is a whole safetensors file and holds a LoRA.

    Args:
        path: The file, whatever its name.
        name: What messages call it.

    Raises:
        ModelIncompatible: it is not, or does not; the sentence says what it is where that is known.
    """
    require_safetensors(path, name)
    require_lora(name, read_header(path))


def check_asked(item: Checkpoint | Weights) -> None:
    """Look at what was fetched from an address that a person named, and remove it where it is something else.

    Raises:
        ModelIncompatible: it is; nothing of it is left.
    """
    is_asked = item.source is not None and item.source.is_asked
    if not isinstance(item, Weights) or item.kind != "lora" or not is_asked:
        return
    try:
        check_lora(item.path, item.name)
    except EngineError:
        item.path.unlink(missing_ok=True)
        item.path.with_name(f"{item.path.name}.sha256").unlink(missing_ok=True)
        raise
