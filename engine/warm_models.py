"""Which base models stay in memory beside the one that paints: as many as a budget holds, the latest used."""

import logging
import os
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch

from engine.models.devices import give_back_memory, weight_dtype

log = logging.getLogger(__name__)

GPU_SHARE = 0.6
"""Share of a GPU's memory that models may take together; pictures need the rest."""
RAM_SHARE = 0.4
"""The same of the machine's memory, where models lie there."""


class Sized(Protocol):
    """What takes memory."""

    @property
    def nbytes(self) -> int:
        """How many bytes, now."""


M = TypeVar("M", bound=Sized)


class WarmModels(Generic[M]):
    """Loaded models by what makes them differ; there is always room for one."""

    def __init__(self, budget: int) -> None:
        """Keep models.

        Args:
            budget: Bytes that all together may take; 0 keeps one.
        """
        self._budget = budget
        self._models: OrderedDict[Hashable, M] = OrderedDict()

    def get(self, key: Hashable) -> M | None:
        """Give a model that is in memory, as the latest used; None where it is not."""
        model = self._models.get(key)
        if model is not None:
            self._models.move_to_end(key)
        return model

    def __contains__(self, key: Hashable) -> bool:
        return key in self._models

    def make_room(self, nbytes: int) -> None:
        """Let models go, those used longest ago first, until so many bytes more are within the budget."""
        held = len(self._models)
        while self._models and self._taken + nbytes > self._budget:
            self._models.popitem(last=False)
        if len(self._models) < held:
            log.info("%d base models left memory", held - len(self._models))
            give_back_memory()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def keep_only(self, wanted: M | None) -> bool:
        """Let all models go but one; False where there was no other."""
        others = [key for key, model in self._models.items() if model is not wanted]
        for key in others:
            del self._models[key]
        if others:
            log.info("%d base models left memory", len(others))
        return bool(others)

    def keep(self, key: Hashable, model: M) -> None:
        """Take in a model that was loaded."""
        self._models[key] = model

    @property
    def _taken(self) -> int:
        return sum(model.nbytes for model in self._models.values())


def usual_budget(device: torch.device) -> int:
    """Choose how many bytes models may take on a device."""
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return int(RAM_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def bytes_when_loaded(path: Path, device: torch.device) -> int:
    """Estimate what a file or folder of weights takes in memory; most are stored in 16 bits."""
    files = path.rglob("*.safetensors") if path.is_dir() else [path]
    stored = sum(file.stat().st_size for file in files if file.is_file())
    return stored * weight_dtype(device).itemsize // 2
