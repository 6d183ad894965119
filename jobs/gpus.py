"""How many GPUs there are, without torch: the driver is asked, in a process of its own.

The driver counts what torch counts, `CUDA_VISIBLE_DEVICES` and MIG slices included, which neither nvidia-smi nor /proc do.
What asks it keeps its state for good, so that is not the server.
"""

import subprocess
import sys
from pathlib import Path

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
ASK = """
import ctypes, sys
count = ctypes.c_int()
try:
    driver = ctypes.CDLL(sys.argv[1])
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
except OSError:
    failed = True
print(0 if failed else count.value)
"""
AMD = Path("/dev/kfd")
"""There where Linux drives a GPU of AMD, which torch calls ``cuda`` too."""
ANSWER_S = 30.0
"""How long the driver may take; it wakes sleeping devices."""


def count_gpus(driver: str = DRIVER, amd: Path = AMD) -> int | None:
    """Count the GPUs that torch would see; 0 where there is none, None where nobody says, since they are AMD's."""
    return _count(driver) or (None if amd.exists() else 0)


def _count(driver: str) -> int:
    """Ask the driver; 0 where there is none, or it does not answer."""
    command = [sys.executable, "-I", "-S", "-c", ASK, driver]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_S, check=False
        )
        return int(asked.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0
