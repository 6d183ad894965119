"""Fixtures that many tests share."""

import os
import shutil
from pathlib import Path

import pytest

from engine.catalog import Catalog
from engine.places import read_catalog


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with one tiny SDXL of random weights, called ``tiny``."""
    from tests.tiny_model import write_tiny_model

    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "checkpoints" / "tiny")
    return folder


@pytest.fixture(scope="session")
def tiny_catalog(models_dir: Path) -> Catalog:
    return read_catalog(models_dir)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is; without one its tests are skipped, but fail where ``CI`` is set."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        reason = "needs Chromium: set CHROMIUM to its path, or install it"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return path


SLOW = (
    *("api", "clients", "space", "test_app.py", "test_endurance.py", "test_heap.py"),
    *("test_stopping.py", "jobs/test_job_kills.py", "jobs/test_job_machine.py"),
    *("jobs/test_job_process.py", "jobs/test_ray_workers.py", "engine/models/test_files.py"),
)
"""Folders and files of tests that start servers, processes or clients."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what has no place in the fast ring."""
    folder = Path(__file__).parent
    slow = [folder / name for name in SLOW]
    for item in items:
        if any(item.path.is_relative_to(place) for place in slow):
            item.add_marker(pytest.mark.slow)
