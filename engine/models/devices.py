"""Which device paints, in which number format, with how many threads."""

import ctypes
import logging
import os
import sys
from pathlib import Path

import torch

from engine.errors import InvalidRequest


def choose_device(wanted: str = "auto") -> torch.device:
    """Find the device to paint on.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        InvalidRequest: the device is not there.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = wanted.partition(":")[0]
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(kind, False):
        have = ", ".join(name for name, there in present.items() if there)
        raise InvalidRequest("device", f"expected one that is there ({have}), got {wanted!r}")
    return torch.device(wanted)


def make_current(device: torch.device) -> None:
    """Make a GPU that was named by its number the current one of this thread: streams and pinned memory belong to that.

    Otherwise they would be those of the first, beside which another worker may paint.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def weight_dtype(device: torch.device) -> torch.dtype:
    """Choose the number format of weights: float32 on the CPU, else bfloat16 where it is native, else float16."""
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def use_threads(device: torch.device) -> int:
    """Give torch its threads: on the CPU one core is left to the web process. Returns their number."""
    cores = available_cores()
    threads = max(1, cores - 1) if device.type == "cpu" else max(1, cores // 2)
    torch.set_num_threads(threads)
    return threads


def give_back_memory() -> None:
    """Hand memory that large weights left free back to the system, which glibc would keep; elsewhere nothing."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # there is none in musl
            trim(0)


def device_name(device: torch.device) -> str:
    """Name a device for people: a GPU with its memory, else its kind with the threads that work on it."""
    if device.type == "cuda":
        size = torch.cuda.get_device_properties(device).total_memory
        return f"{torch.cuda.get_device_name(device)}, {round(size / 2**30)} GB"
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'' if threads == 1 else 's'}"


def free_bytes(device: torch.device) -> int:
    """Say how much of a device's memory can be taken now; what torch has set aside and does not use counts too."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    if device.type == "mps":
        most = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return min(int(most), host_bytes())
    return host_bytes()


def host_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Say how much of the machine's memory can be taken now; a container's share of it (`cgroup`, version 2) counts too."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if meminfo.exists():
        free = _numbers(meminfo)["MemAvailable:"] * 1024
    limit = cgroup / "memory.max"
    if limit.exists() and (most := limit.read_text(encoding="ascii").strip()) != "max":
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        used -= _numbers(cgroup / "memory.stat").get(
            "inactive_file", 0
        )  # is given up when asked for
        free = min(free, max(0, int(most) - used))
    return free


def _numbers(file: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return {name: int(number) for name, number, *_ in lines}


def available_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Count the cores this process may use; a container's share of the machine (`quota`, cgroup v2) counts too."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    if quota.exists():
        limit, period = quota.read_text(encoding="ascii").split()
        if limit != "max":
            cores = min(cores, max(1, int(limit) // int(period)))
    return cores


def quiet_libraries() -> None:
    """Keep progress bars and advice of the model libraries off the console; errors stay."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    logging.getLogger("httpx").setLevel(logging.WARNING)
