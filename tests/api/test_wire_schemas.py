"""Our description of each endpoint is fal's, but for the differences that are listed with a reason."""

import json
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from api.departures import DEPARTURES, page
from api.openapi import endpoint_document
from api.wire import ENDPOINTS
from engine import Library
from engine.catalog import Catalog
from engine.library import ROOT
from engine.prompt.styles import read_styles

FOLDER = Path(__file__).parent.parent / "golden" / "fal_openapi"
TEXTS = ("title", "description", "examples", "x-fal-order-properties")
"""What is said for people, and the order it is said in, is our own."""
MISSING = object()


def fal_document(endpoint_id):
    return json.loads((FOLDER / f"{endpoint_id.replace('/', '_')}.openapi.json").read_text())


def our_document(endpoint_id):
    library = Library(catalog=Catalog([]), styles=read_styles([ROOT / "styles"]))
    return endpoint_document(ENDPOINTS[endpoint_id], library, "https://queue.fal.run")


def plain(value, depth=0):
    """A document without what is for people, and with a lone allOf written as what it means."""
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    found = {
        key: plain(item, depth + 1)
        for key, item in value.items()
        if (key not in TEXTS or not isinstance(item, str | list))
        and (key, item) != ("additionalProperties", True)  # says nothing
    }
    if len(lone := found.get("allOf", [])) == 1:
        found = {**lone[0], **{key: item for key, item in found.items() if key != "allOf"}}
    return found


def differences(ours, fals, place=""):
    if isinstance(ours, dict) and isinstance(fals, dict):
        for key in sorted({*ours, *fals}):
            inner = f"{place}.{key}" if place else key
            yield from differences(ours.get(key, MISSING), fals.get(key, MISSING), inner)
    elif isinstance(ours, list) and isinstance(fals, list) and not place.endswith(".default"):
        if sorted(map(as_text, ours)) != sorted(map(as_text, fals)):
            yield place
    elif ours != fals:
        yield place


def as_text(value):
    return json.dumps(value, sort_keys=True)


def found_differences(endpoint_id):
    ours, fals = our_document(endpoint_id), fal_document(endpoint_id)
    return sorted(
        place
        for part in ("openapi", "components", "paths", "servers", "security")
        for place in differences(plain(ours[part]), plain(fals[part]), part)
    )


@pytest.mark.parametrize("endpoint_id", ENDPOINTS)
def test_no_difference_but_those_that_are_listed(endpoint_id):
    patterns = [departure.place for departure in DEPARTURES]
    unlisted = [
        place
        for place in found_differences(endpoint_id)
        if not any(fnmatchcase(place, pattern) for pattern in patterns)
    ]
    assert unlisted == []


def test_each_difference_that_is_listed_is_there():
    places = [place for endpoint_id in ENDPOINTS for place in found_differences(endpoint_id)]
    idle = [
        departure.place
        for departure in DEPARTURES
        if not any(fnmatchcase(place, departure.place) for place in places)
    ]
    assert idle == []


def test_the_page_of_the_docs_lists_them_too():
    assert (ROOT / "docs" / "api-differences.md").read_text() == page()


def test_the_order_of_fields_is_that_of_fal():
    for endpoint in ENDPOINTS.values():
        name = endpoint.input.__name__
        fals = fal_document(endpoint.id)["components"]["schemas"][name]["x-fal-order-properties"]
        ours = our_document(endpoint.id)["components"]["schemas"][name]["x-fal-order-properties"]
        assert ours == [*fals, "advanced"]
