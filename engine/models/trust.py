"""Which pickled files may be read without being asked for (design D11)."""

from engine.catalog import Catalog
from engine.errors import ModelNotFound
from engine.models.fetch import recorded_hash
from engine.partners import COMMON

SAFE = ".safetensors"


def trusted_hashes(catalog: Catalog) -> frozenset[str]:
    """Collect the sha256 of the pickled helpers: those that are published, and those of the studio's own first download.

    Even these are read as tensors alone, never run.
    """
    hashes: set[str] = set()
    for offer in COMMON.values():
        if offer.file.endswith(SAFE):
            continue
        if offer.source.sha256:
            hashes.add(offer.source.sha256)
        try:
            recorded = recorded_hash(catalog.weights(offer.kind, offer.file, offer.file).path)
        except ModelNotFound:
            continue
        if recorded:
            hashes.add(recorded)
    return frozenset(hashes)
