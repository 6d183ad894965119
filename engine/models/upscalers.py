"""Networks that enlarge pictures, from their files.

ESRGAN (also as Fooocus' file names its parts) and Compact are built here; any other kind is left to the library spandrel, where
it is installed (requirements-upscalers.txt).
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import ModelIncompatible
from engine.models.checkpoints import freeze, reading
from engine.models.tensors import read_tensors
from engine.models.upscale_nets import Compact, Esrgan

_OUTER = re.compile(r"^(?:(?:params_ema|params|model_state_dict|module|netG)\.)+")
"""What some programs put before all names."""
_NAMES = (
    (re.compile(r"\bresidual_block_(\d)"), r"RDB\1"),  # as Fooocus' file has it
    (re.compile(r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\."), r"body.\1.rdb\2.conv\3."),
    (re.compile(r"^model\.1\.sub\.\d+\.(weight|bias)$"), r"conv_body.\1"),
    (re.compile(r"^model\.0\."), r"conv_first."),
    (re.compile(r"^RRDB_trunk\.(\d+)\.RDB(\d)\."), r"body.\1.rdb\2."),
    (re.compile(r"^trunk_conv\."), r"conv_body."),
    (re.compile(r"^upconv(\d)\."), r"conv_up\1."),
    (re.compile(r"^HRconv\."), r"conv_hr."),
)
"""Older names of ESRGAN's parts, and those of `Esrgan`."""
_END = re.compile(r"^model\.(\d+)\.(weight|bias)$")
_ESRGAN = ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight")
_COMPACT = ("body.0.weight", "body.1.weight", "body.2.weight")
_COLOURS = 3
_BROKEN = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)
"""What spandrel stumbles with over files that are not what they seem."""


@dataclass(frozen=True, eq=False)
class Upscaler:
    """A loaded upscaler, in float32."""

    name: str
    run: Callable[[Tensor], Tensor]
    """(1, 3, h, w) values of 0 to 1 to (1, 3, h·scale, w·scale); some lie a little outside."""
    scale: int
    """How many times as long the sides become, at least 2."""
    device: torch.device


def load_upscaler(
    path: Path,
    device: torch.device,
    *,
    allow_pickle: bool = False,
    known_sha256: Collection[str] = (),
) -> Upscaler:
    """Read an upscaler and put it on `device`.

    Args:
        path: A safetensors or a pickled file.
        device: Where it goes.
        allow_pickle: Whether any pickled file may be read.
        known_sha256: Hashes of the pickled files that may be read in any case.

    Raises:
        ModelNotFound: there is no such file.
        ModelIncompatible: it is no network that enlarges colour pictures, of an unknown kind, broken, or pickled and not allowed.
        OutOfMemory: there is no room for it.
    """
    tensors = read_tensors(path, allow_pickle=allow_pickle, known_sha256=known_sha256)
    weights = own_names(tensors)
    with reading(path.name):
        if _is_esrgan(weights):
            network, scale = _filled(path.name, _esrgan(path.name, weights), weights)
        elif all(key in weights for key in _COMPACT):
            network, scale = _filled(path.name, _compact(path.name, weights), weights)
        else:
            network, scale = _by_spandrel(path.name, tensors)
        _require(path.name, f"to enlarge at least 2 times, got {scale}", holds=scale >= 2)
        return Upscaler(path.name, network.to(device), scale, device)


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the parts of an ESRGAN of any age the names of `Esrgan`; other names stay, but for what was put before all."""
    renamed = {}
    for key, value in tensors.items():
        short = _OUTER.sub("", key)
        for pattern, name in _NAMES:
            short = pattern.sub(name, short)
        renamed[short] = value
    ends = sorted({int(match[1]) for key in renamed if (match := _END.match(key))})
    if "conv_first.weight" in renamed and len(ends) > 2:
        *doublings, fine, last = ends
        places = {number: f"conv_up{i}" for i, number in enumerate(doublings, 1)}
        places |= {fine: "conv_hr", last: "conv_last"}
        renamed = {
            _END.sub(lambda match: f"{places[int(match[1])]}.{match[2]}", key): value
            for key, value in renamed.items()
        }
    return renamed


def _is_esrgan(weights: Mapping[str, Tensor]) -> bool:
    """Whether they are an ESRGAN's; ESRGAN+, whose blocks have one more convolution, is another network."""
    is_plus = any(".conv1x1." in key for key in weights)
    return all(key in weights for key in _ESRGAN) and not is_plus


def _esrgan(name: str, weights: Mapping[str, Tensor]) -> Esrgan:
    filters, channels = weights["conv_first.weight"].shape[:2]
    fold = {_COLOURS: 1, _COLOURS * 4: 2, _COLOURS * 16: 4}.get(channels, 0)
    _require(name, f"to read colour pictures, got {channels} channels", holds=fold > 0)
    with torch.device("meta"):
        return Esrgan(
            filters=filters,
            blocks=1 + max(int(key.split(".")[1]) for key in weights if key.startswith("body.")),
            growth=weights["body.0.rdb1.conv1.weight"].shape[0],
            doublings=sum(bool(re.match(r"conv_up\d\.weight", key)) for key in weights),
            fold=fold,
        )


def _compact(name: str, weights: Mapping[str, Tensor]) -> Compact:
    filters, channels = weights["body.0.weight"].shape[:2]
    last = max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
    out = weights[f"body.{last}.weight"].shape[0]
    scale = next((scale for scale in (1, 2, 3, 4, 8) if out == _COLOURS * scale**2), 0)
    told = f"to read and make colour pictures, got {channels} and {out} channels"
    _require(name, told, holds=channels == _COLOURS and scale > 0)
    with torch.device("meta"):
        return Compact(filters=filters, layers=last // 2 - 1, scale=scale)


def _filled(
    name: str, network: Esrgan | Compact, weights: Mapping[str, Tensor]
) -> tuple[nn.Module, int]:
    """Give a network its weights."""
    own = network.state_dict()
    for key in sorted({*weights, *own}):
        found, wanted = (tuple(it[key].shape) if key in it else None for it in (weights, own))
        _require(name, f"{key} of shape {wanted}, got {found}", holds=found == wanted)
    network.load_state_dict(
        {key: weights[key].to(torch.float32, copy=True) for key in own}, assign=True
    )
    return freeze(network), network.scale


def has_spandrel() -> bool:
    """Whether the library for other kinds is installed."""
    return all(importlib.util.find_spec(name) for name in ("spandrel", "einops"))


def spandrel_library() -> Any:
    """Import spandrel, with torchvision or without."""
    with _torchvision():
        return importlib.import_module("spandrel")


def _by_spandrel(name: str, tensors: Mapping[str, Tensor]) -> tuple[Any, int]:
    if not has_spandrel():
        raise ModelIncompatible(
            f"{name}: expected an upscaler of the kind ESRGAN or Compact; others need "
            "pip install --no-deps -r requirements-upscalers.txt"
        )
    spandrel = spandrel_library()
    try:
        loaded = spandrel.ModelLoader().load_from_state_dict(dict(tensors))
    except spandrel.UnsupportedModelError as error:
        raise ModelIncompatible(f"{name}: expected an upscaler, got an unknown network") from error
    except torch.OutOfMemoryError:
        raise
    except _BROKEN as error:
        raise ModelIncompatible(
            f"{name}: spandrel cannot read it ({type(error).__name__})"
        ) from error
    is_plain = isinstance(loaded, spandrel.ImageModelDescriptor)
    channels = (loaded.input_channels, loaded.output_channels)
    told = f"to read and make colour pictures, got {loaded.architecture.name} with {channels}"
    _require(name, told, holds=is_plain and channels == (_COLOURS, _COLOURS))
    freeze(loaded.model).float()
    return loaded, loaded.scale


def _require(name: str, rule: str, *, holds: bool) -> None:
    if not holds:
        raise ModelIncompatible(f"{name}: expected an upscaler {rule}")


@contextmanager
def _torchvision() -> Iterator[None]:
    """Let spandrel be imported where torchvision is not installed.

    It takes three names from it, for networks that mend faces and fill holes; there is no build of torchvision for every torch.
    """
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    if importlib.util.find_spec("torchvision") is not None or "spandrel" in sys.modules:
        yield
        return
    modules: MutableMapping[str, ModuleType] = sys.modules
    for name in names:
        modules[name] = ModuleType(name)
    modules[names[-1]].__dict__.update(InterpolationMode=None, rotate=None, normalize=None)
    try:
        yield
    finally:
        for name in names:
            del modules[name]
