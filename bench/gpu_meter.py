"""Seconds, memory and speed of the device that a benchmark runs on, and the time that is left for it."""

import gc
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import torch

from engine.models.devices import give_back_memory

UNET_ROW, CONTROLNET_ROW = 6.761, 3.020
"""TFLOP of one row of SDXL's networks at 1024x1024, counted by torch's `FlopCounterMode`; guidance takes two rows a step."""
DECODE, ENCODE = 10.470, 4.879
"""TFLOP of SDXL's VAE at 1024x1024."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one picture asks of the networks, at the least."""

    steps: int
    rows: int = 2
    """UNet rows of a step: 2 with guidance, else 1."""
    nets: int = 0
    """ControlNets that steer each row."""
    encodes: int = 0
    """Pictures that the VAE reads."""

    @property
    def tflop(self) -> float:
        """Floating-point operations for a picture of 1024x1024, in units of 10^12."""
        row = UNET_ROW + self.nets * CONTROLNET_ROW
        return self.steps * self.rows * row + DECODE + self.encodes * ENCODE


def share_of_limit(work: Work, rate: float, seconds: float) -> float:
    """Say which share of `seconds` a device of `rate` TFLOP/s would take if it did nothing but multiply."""
    return work.tflop / rate / seconds


def matmul_rate(device: torch.device, dtype: torch.dtype, *, side: int = 8192) -> float:
    """Measure the TFLOP/s of a large product of matrices; the best of several."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(10):
            torch.mm(a, b)

    multiply()
    best = min(_seconds(multiply, device) for _ in range(5))
    return 10 * 2 * side**3 / best / 1e12


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Memory(Protocol):
    """Counts bytes in use."""

    def reset(self) -> None:
        """Forget the peak."""

    def now(self) -> int:
        """Bytes in use."""

    def peak(self) -> int:
        """Most bytes in use since `reset`."""


class CudaMemory:
    """What torch has allocated on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)

    def now(self) -> int:
        return torch.cuda.memory_allocated(self._device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._device)


class ProcessMemory:
    """What this process has in memory, as Linux counts it; elsewhere nothing is known, and 0."""

    _status, _clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def reset(self) -> None:
        if self._clear.exists():
            self._clear.write_text("5", encoding="ascii")  # the kernel's word for: forget the peak

    def now(self) -> int:
        return self._read("VmRSS")

    def peak(self) -> int:
        return self._read("VmHWM")

    def _read(self, kind: str) -> int:
        if not self._status.exists():
            return 0
        lines = self._status.read_text(encoding="ascii").splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        return int(facts[kind].split()[0]) * 1024


class Sample(NamedTuple):
    """What one call took."""

    seconds: float
    """Of a GPU's time by the clock; elsewhere of the processor's, which other programs don't lengthen."""
    peak: int
    """Bytes at most, of what its owner had in memory and what the call added; of others that lie beside it nothing."""
    waited: float = 0.0
    """Seconds by the clock."""


class Meter:
    """Times calls on one device, and keeps apart what each of several owners has in memory there."""

    def __init__(self, device: torch.device, memory: Memory | None = None) -> None:
        """Begin with nothing in memory; `memory` counts it, None as fits the device."""
        own = CudaMemory(device) if device.type == "cuda" else ProcessMemory()
        self._device, self._memory = device, memory or own
        self._held: Counter[str] = Counter()

    def take(self, owner: str, action: Callable[[], T]) -> tuple[Sample, T]:
        """Measure one call to the end of its work on the device; gives what it gave, too."""
        synchronize(self._device)
        self._memory.reset()
        before, held = self._memory.now(), self._held[owner]
        started, worked = time.perf_counter(), time.process_time()
        result = action()
        synchronize(self._device)
        worked, waited = time.process_time() - worked, time.perf_counter() - started
        seconds = worked if self._device.type == "cpu" else waited
        peak = held + max(0, self._memory.peak() - before)
        self._held[owner] = held + self._memory.now() - before
        return Sample(seconds, peak, waited), result

    def forget(self, owner: str) -> None:
        """Hand back the memory of an owner that nobody refers to any more."""
        gc.collect()
        give_back_memory()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._held.pop(owner, None)


class Budget:
    """The time that a benchmark may take."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - self._clock()

    def refusal(self, what: str, estimate: float) -> str | None:
        """Say that something does not fit any more; None where it does."""
        left = max(0.0, self.left)
        if estimate < left:
            return None
        return f"{what}: left out, it takes about {estimate:.0f} s and {left:.0f} s are left"
