"""A studio started as a Space starts it: with the variables that a Space sets and no others, on a disk that is read-only."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.test_app import ROOT, free_port, get

HOST = "x-y.hf.space"
START_S = 240.0
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "SYSTEM": "spaces",
    "SPACE_ID": "x/y",
    "SPACE_HOST": HOST,
    "SPACE_AUTHOR_NAME": "x",
    "SPACE_REPO_NAME": "y",
    "SPACE_TITLE": "Pochade",
    "SPACE_SUBDOMAIN": "x-y",
    "HF_HUB_OFFLINE": "1",  # nothing outside of this machine is asked
    "OMP_NUM_THREADS": "1",
}
BROWSER = {"host": HOST, "origin": f"https://{HOST}", "accept": "text/html,*/*"}
"""Headers that the proxy before a Space passes on from a browser."""


@dataclass(frozen=True)
class LivingSpace:
    address: str
    home: Path
    notes: Path
    process: "subprocess.Popen[bytes]"

    @property
    def log(self) -> str:
        return (self.home.parent / "log").read_text()

    def refused(self) -> list[str]:
        """What was to be written where nothing may be."""
        return self.notes.read_text().splitlines()


@contextmanager
def living_space(
    folder: Path, more: Mapping[str, str] | None = None, *, path: tuple[Path, ...] = ()
) -> Iterator[LivingSpace]:
    """Start a Space with its home below `folder`; `more` variables and folders of modules can be added."""
    home, notes, port = folder / "home", folder / "refused", free_port()
    home.mkdir(parents=True)
    environment = {
        **ENVIRONMENT,
        "HOME": str(home),
        "GRADIO_SERVER_PORT": str(port),
        "SPACE_MAY_WRITE": os.pathsep.join(map(os.path.realpath, (home, notes))),
        "SPACE_REFUSED": str(notes),
        "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT / "tests" / "space" / "recorder"))),
        **(more or {}),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    living = LivingSpace(f"http://127.0.0.1:{port}", home, notes, process)
    try:
        _wait(living)
        yield living
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(living: LivingSpace) -> None:
    """Wait until it answers; one that ended tells why."""
    until = time.monotonic() + START_S
    while True:
        assert living.process.poll() is None, living.log
        assert time.monotonic() < until, living.log
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if get(f"{living.address}/health/live")[0] == 200:
                return
        time.sleep(0.1)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder, but for what tests and git keep there."""
    left_out = {"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    found = {}
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in left_out]
        for name in files:
            facts = Path(root, name).lstat()
            found[os.path.join(root, name)] = (facts.st_size, facts.st_mtime_ns)  # noqa: PTH118
    return found
