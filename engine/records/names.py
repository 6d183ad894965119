"""Which installed file a record means: records of other programs name weights by stem, without folder and ending.

Knows names only, not files.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from engine.catalog import Catalog, Kind

Resolve = Callable[[Kind, str], str | None]
"""From a kind of weights and a name in a record to the catalog's name; None when it is not installed."""


def resolver(files: Mapping[Kind, Sequence[str]]) -> Resolve:
    """Look names up among installed files: the full name, then the stem, then either without regard to case.

    Of several files with one stem the first is meant, as in Fooocus.
    """

    def resolve(kind: Kind, name: str) -> str | None:
        wanted = name.replace("\\", "/").strip()
        there = files.get(kind, ())
        return next((file for is_same in _RULES for file in there if is_same(file, wanted)), None)

    return resolve


def catalog_resolver(catalog: Catalog) -> Resolve:
    """Look names up among the weights that are in the models folders."""
    return resolver(
        {
            "checkpoint": [item.name for item in catalog.checkpoints],
            "lora": [item.name for item in catalog.loras],
            "vae": [item.name for item in catalog.vaes],
        }
    )


def _same_name(file: str, wanted: str) -> bool:
    return file == wanted


def _same_stem(file: str, wanted: str) -> bool:
    path = PurePosixPath(file)
    return wanted in (path.stem, path.name)


def _same_letters(file: str, wanted: str) -> bool:
    path = PurePosixPath(file)
    return wanted.casefold() in (file.casefold(), path.stem.casefold(), path.name.casefold())


_RULES = (_same_name, _same_stem, _same_letters)
