"""Weights that visitors want now, before a picture asks for them: begun, watched and ended from the page.

They come in threads of the web process, so that a browser that goes away ends none. Names are looked up in the catalog: what
can be fetched is what presets, performance modes and helpers offer; and among what is on its way, which an address may have
been given for.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from engine import Catalog, Checkpoint, Fetch, InvalidRequest, ModelNotFound
from engine.catalog import FOLDERS, Kind, Weights

Wanted = Checkpoint | Weights
MAX_FILES = 32
"""Files that one request may ask for."""


def read_files(body: bytes, catalog: Catalog, known: Iterable[Fetch] = ()) -> list[Wanted]:
    """Find the files that a request names, as ``{"files": [{"kind", "name"}]}``.

    Args:
        body: The request's.
        catalog: What there is, and what can be fetched.
        known: What is on its way, or failed to come.

    Raises:
        InvalidRequest: it is no such request, or one is neither there nor can it be fetched.
    """
    try:
        asked = [(str(it["kind"]), str(it["name"])) for it in json.loads(body)["files"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidRequest("files", "expected a list of kinds and names") from error
    if len(asked) > MAX_FILES:
        raise InvalidRequest("files", f"expected at most {MAX_FILES}, got {len(asked)}")
    return list(_found(asked, catalog, {_key(it.item): it.item for it in known}))


def download_facts(fetch: Fetch) -> dict[str, Any]:
    """Write how far a file is, and why it will not come where it failed."""
    kind, name = _key(fetch.item)
    return {
        "kind": kind,
        "name": name,
        "done": fetch.done,
        "total": fetch.total,
        "problem": None if fetch.error is None else str(fetch.error),
    }


def _key(item: Wanted) -> tuple[str, str]:
    return item.kind if isinstance(item, Weights) else "checkpoint", item.name


def _found(
    asked: list[tuple[str, str]], catalog: Catalog, known: Mapping[tuple[str, str], Wanted]
) -> Iterator[Wanted]:
    for kind, name in asked:
        if (kind, name) in known:
            yield known[kind, name]
            continue
        if kind not in FOLDERS or kind == "checkpoint":
            raise InvalidRequest("files", f"expected a kind of helper, got {kind[:40]!r}")
        try:
            yield catalog.weights(cast(Kind, kind), name, "files")
        except ModelNotFound as error:
            raise InvalidRequest("files", str(error).removeprefix("files: ")) from error
