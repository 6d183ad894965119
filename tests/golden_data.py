"""Reads the golden data: numbers recorded from Fooocus 2.5.5, described in tests/golden/README.md.

The environment variable POCHADE_GOLDEN names another folder of the same form.
"""

import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PUBLIC = Path(__file__).with_name("golden")
"""The golden data of this repository."""


def golden_folder() -> Path:
    """Where the golden data lie."""
    folder = Path(os.environ.get("POCHADE_GOLDEN") or PUBLIC)
    if not folder.is_dir():
        raise NotADirectoryError(f"POCHADE_GOLDEN: expected a folder, got {str(folder)!r}")
    return folder


def golden_model(name: str, folder: Path | None = None) -> Path:
    """Find a file of model weights: sets of golden data share those of this repository where they have none."""
    path = (folder or golden_folder()) / name
    return path if path.exists() else PUBLIC / name


def golden_json(name: str) -> Any:
    """Read a JSON file, gzipped or not; one that is not there has no cases."""
    path = golden_folder() / name
    if not path.exists():
        return {}
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if name.endswith(".gz") else raw)


def golden_arrays(name: str) -> Mapping[str, np.ndarray]:
    """Read all arrays of an npz file; one that is not there has none."""
    path = golden_folder() / name
    if not path.exists():
        return {}
    with np.load(path) as arrays:
        return dict(arrays)


def relative_error(actual: Any, expected: np.ndarray) -> float:
    """Largest difference over the standard deviation of what was expected, as the README defines it."""
    return float(np.abs(np.asarray(actual) - expected).max() / expected.std())
