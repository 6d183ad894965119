"""Pickled helpers are read by a hash that is known, or that of the studio's own download; others are not."""

from pathlib import Path

import pytest

from engine.catalog import Catalog, Weights
from engine.models.fetch import RECORD
from engine.models.trust import trusted_hashes
from engine.partners import COMMON

pytestmark = pytest.mark.torch

UPSCALER = COMMON["upscaler"]
FETCHED = "ab" * 32


def catalog(folder: Path, name: str) -> Catalog:
    return Catalog([], [Weights(name=name, path=folder / name, kind="upscaler")])


def test_published_hashes_are_trusted():
    pickled = [offer for offer in COMMON.values() if not offer.file.endswith(".safetensors")]
    published = {offer.source.sha256 for offer in pickled if offer.source.sha256}
    assert len(published) == 3
    assert trusted_hashes(Catalog([])) == published


def test_the_first_download_of_a_known_helper_is_trusted(tmp_path):
    (tmp_path / f"{UPSCALER.file}{RECORD}").write_text(FETCHED, encoding="utf-8")
    assert FETCHED in trusted_hashes(catalog(tmp_path, UPSCALER.file))


def test_another_download_is_not(tmp_path):
    (tmp_path / f"other.bin{RECORD}").write_text(FETCHED, encoding="utf-8")
    assert FETCHED not in trusted_hashes(catalog(tmp_path, "other.bin"))
