"""Libraries for tests: a catalog of one's own with the styles that ship."""

from functools import cache

from engine import Catalog, Library
from engine.library import ROOT
from engine.prompt.styles import Style, read_styles


def library_of(catalog: Catalog) -> Library:
    """A library with these weights, the shipped styles, and no wildcards."""
    return Library(catalog=catalog, styles=shipped_styles())


@cache
def shipped_styles() -> dict[str, Style]:
    return dict(read_styles([ROOT / "styles"]))
