"""The server's threads take memory from one heap, so that what a burst has filled is used again by all."""

import subprocess
import sys

import pytest

from bench.api_load import ROOT

COUNT = """
import ctypes, sys, threading
import app

if "share" in sys.argv:
    app.prepare_process()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(6)


def take():
    together.wait()
    assert libc.malloc(10_000)
    together.wait()


threads = [threading.Thread(target=take) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.stdout = ctypes.c_void_p.in_dll(libc, "stdout")
libc.malloc_info(0, libc.stdout)
libc.fflush(libc.stdout)
"""


def heaps(*words: str) -> int:
    """Count the heaps of a process after six threads took memory at the same time."""
    command = [sys.executable, "-c", COUNT, *words]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.count("<heap ")


def test_threads_share_one_heap() -> None:
    if heaps() < 2:
        pytest.skip("this libc has one heap anyway")
    assert heaps("share") == 1
