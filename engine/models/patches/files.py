"""From a file of the LoRA family to the changes it makes, or a sentence on why it is not for this model."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from engine.errors import ModelIncompatible
from engine.models.patches.deltas import Delta, Full, Shape, third
from engine.models.patches.keys import Alpha, Compat, group, split_key
from engine.models.patches.layers import Factor, Parts, deltas_of
from engine.models.patches.names import UNET, Names, Place

log = logging.getLogger(__name__)

Spot = tuple[str, str]
"""A weight: network and parameter."""
MOST_UNMATCHED = 12
"""How many keys a file may hold that belong to nothing; Fooocus' number."""
_WIDTHS = {
    768: "Stable Diffusion 1.x",
    1024: "Stable Diffusion 2.x",
    1280: "the SDXL refiner",
    2048: "SDXL",
}
"""Models by the width of the text that their UNet attends to."""
_FOREIGN = (
    (re.compile(r"double_blocks|single_blocks|single_transformer_blocks"), "Flux"),
    (
        re.compile(r"joint_blocks|joint_transformer_blocks|attn[._]add_[qkv]_proj"),
        "Stable Diffusion 3",
    ),
)
_CROSS = re.compile(r"attn2[._](processor\.)?to_[kv]$")


@dataclass(frozen=True, slots=True)
class FileReport:
    """How a file fits the networks, counted in keys."""

    path: Path
    matched: int
    """Keys whose tensors change weights."""
    unmatched: int
    """Keys that belong to no module of any network."""
    skipped: int
    """Keys of modules of another shape, or of networks that are not there."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchFile:
    """What a file changes."""

    deltas: Mapping[Spot, tuple[Delta, ...]]
    report: FileReport


def read_patch(
    path: Path,
    tensors: Mapping[str, Tensor],
    names: Names,
    shapes: Mapping[Spot, Shape],
    *,
    alpha: Alpha,
    compat: Compat | None = None,
) -> PatchFile:
    """Find out what a file changes.

    Args:
        path: For messages.
        tensors: All of the file, as `read_tensors` gives them.
        names: The names of the networks' modules.
        shapes: Shape of each weight.
        alpha: Factors that the file's header holds.
        compat: Reads as Fooocus does.

    Raises:
        ModelIncompatible: too many keys belong to nothing, most layers are of another shape, or nothing fits at all.
    """
    layers, unknown = group(tensors, compat)
    found = _Found(names, shapes, alpha, unmatched=unknown)
    for name, parts in layers.items():
        if compat and "lokr_t2" in parts:
            found.skipped += len(parts)
        else:
            found.add(name, parts)
    problem = found.problem(compat)
    if problem:
        reason = _other_model(tensors, shapes) or problem
        raise ModelIncompatible(f"{path.name}: expected weights that fit this model, got {reason}")
    if found.left_out:
        count, example = len(found.left_out), found.left_out[0]
        log.warning(
            "%s: %d weights have another shape here and stay, such as %s", path.name, count, example
        )
    report = FileReport(path, found.matched, len(found.unmatched), found.skipped)
    return PatchFile(found.deltas, report)


def read_offsets(
    path: Path, tensors: Mapping[str, Tensor], names: Names, shapes: Mapping[Spot, Shape]
) -> PatchFile:
    """Read a file that holds a difference for each weight of a UNet under the weight's own name, as IC-Light does.

    A convolution may have more input channels in the file than here; the difference is that of the first ones.

    Args:
        path: For messages.
        tensors: All of the file, as `read_tensors` gives them.
        names: The names of the networks' modules.
        shapes: Shape of each weight.

    Raises:
        ModelIncompatible: a weight of the UNet has no difference, or one of another shape.
    """
    found = dict(_named(tensors, names))
    deltas: dict[Spot, tuple[Delta, ...]] = {}
    for spot, shape in shapes.items():
        if spot[0] != UNET:
            continue
        tensor = found.get(spot)
        if tensor is not None and tensor.ndim == len(shape) == 4:
            tensor = tensor[:, : shape[1]]
        delta = None if tensor is None else Full(tensor)
        if delta is None or not delta.fits(shape):
            wanted = f"expected a difference of shape {tuple(shape)} for {spot[1]}"
            got = "none" if tensor is None else f"one of {tuple(tensor.shape)}"
            raise ModelIncompatible(f"{path.name}: {wanted}, got {got}")
        deltas[spot] = (delta,)
    return PatchFile(deltas, FileReport(path, len(deltas), len(tensors) - len(deltas), 0))


def _named(tensors: Mapping[str, Tensor], names: Names) -> Iterator[tuple[Spot, Tensor]]:
    """Find the weights that the keys of a file mean; others are left out."""
    for key, tensor in tensors.items():
        module, _, kind = key.rpartition(".")
        place = names.find(module)
        if place is not None:
            yield (place.network, f"{place.modules[0]}.{kind}"), tensor


@dataclass(slots=True)
class _Found:
    """What of a file fits, layer by layer."""

    names: Names
    shapes: Mapping[Spot, Shape]
    alpha: Alpha
    deltas: dict[Spot, tuple[Delta, ...]] = field(default_factory=dict)
    matched: int = 0
    skipped: int = 0
    unmatched: list[str] = field(default_factory=list)
    """The layer's name for each key, or the key where it names none."""
    layers: int = 0
    """How many layers have a place in the networks."""
    misshapen: list[str] = field(default_factory=list)
    """Those of them of which nothing fits its weight."""
    left_out: list[str] = field(default_factory=list)
    """The weights whose change has another shape."""

    def add(self, name: str, parts: Parts) -> None:
        """Look at one layer."""
        place, count = self.names.find(name), len(parts)
        made = list(deltas_of(parts, self._factor(name, parts.pop("alpha", None)))) if place else []
        if place is None and self.names.is_elsewhere(name):
            self.skipped += count
        elif place is None or not made:
            self.unmatched += [name] * count
        else:
            self.unmatched += [name] * len(parts)
            self._place(name, place, made, count - len(parts))

    def problem(self, compat: Compat | None) -> str | None:
        """Say why the file is not for these networks; None when it is."""
        if len(self.unmatched) > MOST_UNMATCHED:
            example = f"such as {self.unmatched[0]!r}"
            return f"{len(self.unmatched)} keys that belong to no part of it, {example}"
        if 2 * len(self.misshapen) > self.layers:
            example = f"such as {self.misshapen[0]!r}"
            return f"{len(self.misshapen)} of {self.layers} layers of another shape, {example}"
        if not self.matched and not self.skipped and compat is None:
            return "none"
        return None

    def _factor(self, name: str, own: Tensor | None) -> Factor:
        def factor(rank: int) -> float:
            if own is not None:
                return float(own) / rank
            known = self.alpha(name, rank)
            return 1.0 if known is None else known

        return factor

    def _place(
        self, name: str, place: Place, made: Iterable[tuple[str, Delta]], count: int
    ) -> None:
        self.layers += 1
        has_fitted = False
        for kind, whole in made:
            for spot, delta in _spread(place, kind, whole):
                if delta.fits(self.shapes.get(spot, ())):
                    self.deltas[spot] = (*self.deltas.get(spot, ()), delta)
                    has_fitted = True
                else:
                    self.left_out.append(spot[1])
        if has_fitted:
            self.matched += count
        else:
            self.misshapen.append(name)
            self.skipped += count


def _spread(place: Place, kind: str, delta: Delta) -> Iterator[tuple[Spot, Delta]]:
    """Say which weights a change is for: one, or three that the original has in one matrix."""
    if len(place.modules) == 1:
        yield (place.network, f"{place.modules[0]}.{kind}"), delta
        return
    for index, module in enumerate(place.modules):
        part = third(delta, index)
        if part is not None:
            yield (place.network, f"{module}.{kind}"), part


def _other_model(tensors: Mapping[str, Tensor], shapes: Mapping[Spot, Shape]) -> str | None:
    """Say which model a file is made for, where its keys and shapes tell."""
    for pattern, model in _FOREIGN:
        if any(pattern.search(key) for key in tensors):
            return f"some made for {model}"
    if any(key.startswith("first_stage_model.") for key in tensors):
        return "a whole model"
    ours = next(
        (shape[1] for (_, name), shape in shapes.items() if name.endswith("attn2.to_k.weight")),
        None,
    )
    for key, tensor in tensors.items():
        name, slot = split_key(key) or ("", "")
        if slot != "down" or tensor.ndim < 2 or not _CROSS.search(name):
            continue
        if ours not in (None, width := tensor.shape[1]):
            model = _WIDTHS.get(width, "another model")
            return f"some made for {model}: cross-attention width {width}, this model has {ours}"
    return None
