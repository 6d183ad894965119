"""A studio with the scripted engine that all tests of clients share, and fal's JavaScript clients."""

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.running import CLIENTS, Node, Studio


@pytest.fixture(scope="session")
def shared_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("clients") / "studio")
    studio.start()
    yield studio
    studio.stop()


@pytest.fixture
def studio(shared_studio: Studio, point) -> str:
    """The address of the shared studio, which the Python client asks during a test."""
    point(shared_studio.address)
    return shared_studio.address


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Point the Python client at a studio, until the test is over; then it lets go of what it holds open."""
    import fal_client.client

    from clients import local_fal

    names = ("RUN_URL_FORMAT", "QUEUE_URL_FORMAT", "REST_URL", "CDN_URL")
    for name in names:
        monkeypatch.setattr(fal_client.client, name, getattr(fal_client.client, name))
    monkeypatch.setenv("FAL_KEY", "key-id:key-secret")
    yield local_fal.point_to
    held = vars(fal_client.sync_client)
    for name in [name for name in held if name.startswith("_")]:
        del held[name]
    gc.collect()


@pytest.fixture
def own_studio(tmp_path: Path) -> Iterator[Studio]:
    """A studio of one test, not started."""
    studio = Studio(tmp_path / "studio")
    yield studio
    studio.stop()


@pytest.fixture(scope="session")
def node() -> Node:
    """Node with fal's clients; without it its tests are skipped, but fail where ``CI`` is set."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        give_up("needs node and npm")
    problem = install(str(npm))
    if problem is not None:
        give_up(f"needs fal's clients: {problem}")
    return Node(str(program))


def give_up(reason: str) -> None:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def install(npm: str) -> str | None:
    """Install what the lock file names, unless it is there; returns what went wrong."""
    lock, installed = CLIENTS / "package-lock.json", CLIENTS / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return None
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"], cwd=CLIENTS, capture_output=True, check=False
    )
    return None if done.returncode == 0 else done.stderr.decode()[-500:]
