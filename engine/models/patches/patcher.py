"""Changes weights in place by LoRAs and the like, and takes the changes back exactly (design D5).

Weights are always `pristine + what the patches add`, worked out in float32 and rounded once. Their addresses stay, so a compiled
network needs no recompiling. Knows no requests and no catalog: files come as paths.
"""

import hashlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.errors import ModelIncompatible, ModelNotFound, OutOfMemory
from engine.models.patches.deltas import Delta
from engine.models.patches.face_loras import attention_names, without_adapter
from engine.models.patches.files import FileReport, PatchFile, Spot, read_offsets, read_patch
from engine.models.patches.keys import Compat, peft_alpha
from engine.models.patches.names import UNET, Names
from engine.models.patches.recent import Recent
from engine.models.tensors import read_metadata, read_tensors

CACHE_BYTES = 2**30
"""Room for each of: files read, sets merged, pristine copies that are not needed now. What touches all of SDXL is larger (4.4 GB)."""
Identity = tuple[str, int, int]
"""A file as it is now: path, bytes, time of its last change."""
Source = tuple[Identity, bool]
"""A file, and whether it is read as `Patch.is_offset` says."""
Recipe = tuple[tuple[Source, float], ...]
"""What a weight is made of beside its pristine values: files and scales, in order."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One file of the LoRA family at one weight."""

    path: Path
    scale: float
    """0 changes nothing; below 0 the other way."""
    unet_only: bool = False
    """Leaves the text encoders alone, as the inpaint patch does."""
    is_offset: bool = False
    """Holds a difference for each weight of the UNet under the weight's own name, as IC-Light does."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a change of patches did."""

    files: tuple[FileReport, ...]
    """One for each patch whose scale is not 0, in order."""
    seconds: float
    changed: frozenset[str]
    """Networks with weights that are others now."""


class WeightPatcher:
    """The patches in force on some networks; nobody else may write their weights meanwhile."""

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        *,
        compat: Compat | None = None,
        cache_bytes: int = CACHE_BYTES,
        keep_on: torch.device | None = None,
        allow_pickle: bool = False,
        known_sha256: Collection[str] = (),
    ) -> None:
        """Take charge of the networks' weights, which are pristine now.

        Args:
            networks: By ``unet``, ``text_encoder`` and ``text_encoder_2``, as far as there are any.
            compat: ``fooocus`` reads files as Fooocus does: PEFT's names and DoRA count as unknown, LoKr in Tucker's form is left out.
            cache_bytes: Room for each of: files read, merged weights of earlier sets, pristine copies of weights that are
                pristine now. What is larger is read, merged or copied anew each time.
            keep_on: Where pristine copies and merged weights lie; None is the CPU. On a large GPU, its own memory makes
                a change much faster.
            allow_pickle: Whether any pickled file may be read.
            known_sha256: Pickled files that may be read in any case.
        """
        self._weights: dict[Spot, Tensor] = {
            (part, name): weight
            for part, network in networks.items()
            for name, weight in network.named_parameters()
        }
        self._names = Names(networks)
        self._attention = attention_names(networks.get(UNET))
        self._shapes = {spot: weight.shape for spot, weight in self._weights.items()}
        self._compat = compat
        self._keep_on = keep_on or torch.device("cpu")
        self._allow_pickle = allow_pickle
        self._known_sha256 = known_sha256
        self._trusted: set[Identity] = set()
        """Files that were read, so that a large pickled one is hashed once."""
        self._files: Recent[PatchFile] = Recent(cache_bytes)
        self._merged: Recent[dict[Spot, Tensor]] = Recent(cache_bytes)
        self._idle: Recent[Tensor] = Recent(cache_bytes)
        """Pristine copies of weights that are pristine now."""
        self._pristine: dict[Spot, Tensor] = {}
        """The weights that are changed now, as they were."""
        self._recipes: dict[Spot, Recipe] = {}
        self._key = ""

    def trust(self, known_sha256: Collection[str]) -> None:
        """Say which pickled files may be read in any case, from now on."""
        self._known_sha256 = known_sha256

    @property
    def key(self) -> str:
        """Names the set in force, by its files and scales; empty when the weights are pristine."""
        return self._key

    @property
    def pristine_bytes(self) -> int:
        """Memory that pristine copies take now."""
        return sum(copy.nbytes for copy in self._pristine.values())

    @property
    def kept_bytes(self) -> int:
        """Memory that is taken now to be faster next time, and could be given back."""
        return self._files.used + self._merged.used + self._idle.used

    def check(self, path: Path) -> FileReport:
        """Say how a file fits the networks, without using it.

        Raises:
            ModelNotFound: there is no such file.
            ModelIncompatible: it is not for this model, broken, or pickled and not allowed.
        """
        return self._read((_identity(path), False)).report

    def changed_by(self, path: Path) -> frozenset[str]:
        """Name the weights of the UNet that a file changes.

        Raises:
            ModelNotFound, ModelIncompatible: as `check` says.
        """
        deltas = self._read((_identity(path), False)).deltas
        return frozenset(name for part, name in deltas if part == UNET)

    def use(self, patches: Sequence[Patch]) -> Report:
        """Make the weights pristine plus these patches, in order; nothing is done when that is how they are.

        Raises:
            ModelNotFound, ModelIncompatible: as `check` says; nothing was changed.
            OutOfMemory: the device had no room; all weights are pristine.
        """
        started = time.perf_counter()
        wanted = [
            (patch, (_identity(patch.path), patch.is_offset))
            for patch in patches
            if patch.scale != 0
        ]
        files = [self._read(source) for _, source in wanted]
        recipes: dict[Spot, Recipe] = {}
        for (patch, source), file in zip(wanted, files, strict=True):
            for spot in file.deltas:
                if spot[0] == UNET or not patch.unet_only:
                    recipes[spot] = (*recipes.get(spot, ()), (source, patch.scale))
        changed = {
            spot
            for spot in recipes.keys() | self._recipes.keys()
            if recipes.get(spot) != self._recipes.get(spot)
        }
        deltas = {source: file.deltas for (_, source), file in zip(wanted, files, strict=True)}
        self._change(changed, recipes, deltas, _key(wanted) if recipes else "")
        seconds = time.perf_counter() - started
        reports = tuple(file.report for file in files)
        return Report(reports, seconds, frozenset(network for network, _ in changed))

    def _read(self, source: Source) -> PatchFile:
        kept = self._files.get(source)
        if kept is not None:
            return kept
        identity, is_offset = source
        path = Path(identity[0])
        tensors = read_tensors(
            path,
            allow_pickle=self._allow_pickle or identity in self._trusted,
            known_sha256=self._known_sha256,
        )
        self._trusted.add(identity)
        size = sum(tensor.nbytes for tensor in tensors.values())
        if is_kept := size <= self._files.room:  # the file itself may be overwritten meanwhile
            tensors = {key: tensor.clone() for key, tensor in tensors.items()}
        with _reading(path.name):
            if is_offset:
                file = read_offsets(path, tensors, self._names, self._shapes)
            else:
                alpha = peft_alpha({} if self._compat else read_metadata(path))
                held = without_adapter(tensors, self._attention)
                file = read_patch(
                    path, held, self._names, self._shapes, alpha=alpha, compat=self._compat
                )
        if is_kept:
            self._files.keep(source, file, size)
        return file

    @torch.inference_mode()
    def _change(
        self,
        changed: Iterable[Spot],
        recipes: Mapping[Spot, Recipe],
        deltas: Mapping[Source, Mapping[Spot, Sequence[Delta]]],
        key: str,
    ) -> None:
        """Bring the weights at `changed` to their new recipes."""
        merged, scratch = self._merged.get(key), _Scratch()
        try:
            for spot in sorted(changed, key=lambda spot: -self._weights[spot].numel()):
                if spot not in recipes:
                    self._restore(spot)
                elif merged is not None:
                    self._save(spot)
                    self._weights[spot].copy_(merged[spot])
                else:
                    weight = scratch.holding(self._save(spot), self._weights[spot])
                    for source, scale in recipes[spot]:
                        for delta in deltas[source][spot]:
                            delta.add_to(weight, scale)
                    self._weights[spot].copy_(weight)
            self._recipes, self._key = dict(recipes), key
            if merged is None:
                self._remember()
        except BaseException as error:
            self._restore_all()
            if isinstance(error, torch.OutOfMemoryError):
                problem = "loras: expected room on the device to apply them, got too little memory"
                raise OutOfMemory(problem) from error
            raise

    def _save(self, spot: Spot) -> Tensor:
        """Make sure there is a pristine copy of a weight. Returns the weight as it was pristine, where it is nearest."""
        weight = self._weights[spot]
        if spot in self._pristine:
            return self._pristine[spot]
        idle = self._idle.take(spot)
        self._pristine[spot] = self._copy(weight) if idle is None else idle
        return weight

    def _restore(self, spot: Spot) -> None:
        self._weights[spot].copy_(self._pristine[spot])
        copy = self._pristine.pop(spot)
        self._idle.keep(spot, copy, copy.nbytes)

    def _restore_all(self) -> None:
        for spot in list(self._pristine):
            self._restore(spot)
        self._recipes, self._key = {}, ""

    def _remember(self) -> None:
        """Keep the weights of the set in force, so that coming back to it is a copy only."""
        size = sum(self._weights[spot].nbytes for spot in self._recipes)
        if 0 < size <= self._merged.room:
            merged = {spot: self._copy(self._weights[spot]) for spot in self._recipes}
            self._merged.keep(self._key, merged, size)

    def _copy(self, weight: Tensor) -> Tensor:
        return weight.detach().to(self._keep_on, copy=True)


class _Scratch:
    """One float32 buffer a device, used again for each weight: fresh memory costs more than the arithmetic."""

    def __init__(self) -> None:
        self._buffers: dict[torch.device, Tensor] = {}

    def holding(self, source: Tensor, weight: Tensor) -> Tensor:
        """Give `source` in float32 on the weight's device, until the next call."""
        buffer = self._buffers.get(weight.device)
        if buffer is None or buffer.numel() < weight.numel():
            buffer = torch.empty(weight.numel(), dtype=torch.float32, device=weight.device)
            self._buffers[weight.device] = buffer
        return buffer[: weight.numel()].view(weight.shape).copy_(source)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Tell of tensors with fewer or more sides than such ones have."""
    try:
        yield
    except (IndexError, ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        problem = f"expected weights that fit this model, got tensors of other sides: {reason}"
        raise ModelIncompatible(f"{name}: {problem}") from error


def _identity(path: Path) -> Identity:
    try:
        facts = path.stat()
    except OSError as error:
        raise ModelNotFound(
            f"{path.name}: expected a file of weights in {path.parent}, found none"
        ) from error
    return str(path.absolute()), facts.st_size, facts.st_mtime_ns


def _key(wanted: Iterable[tuple[Patch, Source]]) -> str:
    parts = [(source, patch.scale, patch.unet_only) for patch, source in wanted]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32] if parts else ""
