"""Fixtures that many tests share."""

from pathlib import Path

import pytest

from engine.catalog import Catalog, read_catalog


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
