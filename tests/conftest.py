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
