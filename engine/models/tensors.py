"""Reading files of tensors without trusting them.

safetensors files are mapped into memory. Pickled ones can carry code, so they are read with `weights_only`, and only when their
hash is known or the owner allows it (design D11).
"""

import pickle
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.hashes import sha256_of
from engine.models.safe_files import broken

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".patch")
"""How the names of pickled files end."""
_TRIPLE = ("q", "lo", "hi")
_BROKEN = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RecursionError,
    OSError,
)


def read_tensors(
    path: Path, *, allow_pickle: bool = False, known_sha256: Collection[str] = ()
) -> dict[str, Tensor]:
    """Read all tensors of a file, on the CPU.

    Args:
        path: A ``.safetensors`` file, or a pickled one (`PICKLED`).
        allow_pickle: Whether any pickled file may be read.
        known_sha256: Hashes in lower-case hex of the pickled files that may be read in any case.

    Returns:
        Tensor by name. Those of a safetensors file are views of the mapped file: clone what outlives the file. Of a pickled file
        nested dictionaries come flattened with dots (an outer ``state_dict`` falls away), and a triple of tensors, as Fooocus'
        inpaint patches hold, as ``key|q``, ``key|lo`` and ``key|hi``; what is no tensor is left out.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: the file is broken, holds no tensors, or is pickled and not allowed.
    """
    if not path.is_file():
        raise ModelNotFound(f"{path.name}: expected a file of weights in {path.parent}, found none")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in PICKLED:
        endings = ", ".join((".safetensors", *PICKLED))
        raise ModelIncompatible(f"{path.name}: expected a name that ends in {endings}")
    if not allow_pickle and sha256_of(path) not in known_sha256:
        raise ModelIncompatible(
            f"{path.name}: expected a safetensors file, got a pickled one, which may carry code; "
            "start with --allow-pickle if you trust it"
        )
    return _read_pickled(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in the header of a safetensors file; another file has none.

    Raises:
        ModelIncompatible: the header is broken.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise broken(path, error) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise broken(path, error) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
        if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
            content = content["state_dict"]
        tensors = dict(_flatten(content, ""))
    except _BROKEN as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        if isinstance(
            error, pickle.UnpicklingError
        ):  # torch's text tells how to load it all the same
            reason = "a file that is broken or holds more than tensors, such as code"
        raise ModelIncompatible(
            f"{path.name}: expected a pickled dictionary of tensors, got: {reason}"
        ) from error
    if not tensors:
        raise ModelIncompatible(
            f"{path.name}: expected a pickled dictionary of tensors, got a {type(content).__name__} without any"
        )
    return tensors


def _flatten(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise ValueError(f"{name}: a tensor in {value.layout} layout")
        yield name, value.detach()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, tuple | list) and len(value) == len(_TRIPLE):
        for part, item in zip(_TRIPLE, value, strict=True):
            yield from _flatten(item, f"{name}|{part}")
