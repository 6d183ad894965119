"""A device whose memory runs out on command, for tests: networks of a kind raise what torch raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

ALWAYS = 10**9


@dataclass
class Shortage:
    """How often memory ran out, and when it will."""

    first: int = 0
    """Calls that go well before the first that does not."""
    times: int = 1
    """Calls that do not."""
    rows: int = 1
    """Calls with fewer rows always go well."""
    calls: int = 0
    failed: int = 0

    def meet(self, rows: int) -> None:
        """Count a call; raise where it is one that finds no memory."""
        self.calls += 1
        if self.calls > self.first and self.failed < self.times and rows >= self.rows:
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")


@contextmanager
def shortage(kind: Any, *, first: int = 0, times: int = 1, rows: int = 1) -> Iterator[Shortage]:
    """Let all networks of a class, or of several, run out of memory together, also those that are loaded meanwhile."""
    state = Shortage(first, times, rows)

    def look(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, kind):
            state.meet(len(inputs[0]) if inputs else 1)

    handle = register_module_forward_pre_hook(look)
    try:
        yield state
    finally:
        handle.remove()
