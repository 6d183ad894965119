"""Weights that a request names, fetched with care: every address goes through the guard, every file is looked at (design D11).

A repository of the hub is listed first; its files are then fetched as of that commit, without anybody's token, and checked by
the sizes and hashes that the hub gives. A folder appears once it is whole; what has arrived of one is used again. No torch.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from engine.catalog import Source, Wanted
from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.fetch import MAX_ASKED, PARTIAL, Tell, alone, fetch_file
from engine.models.repositories import (
    CONFIG,
    INDEX,
    SHARDS,
    Chosen,
    OnlyPickled,
    choose_file,
    choose_network,
    choose_pipeline,
    plain_config,
    plain_index,
    plain_shards,
)
from engine.models.safe_files import SAFE
from engine.net import Fetcher, FetchError, NoFile

MAX_TEXT = 32 << 20
"""Most bytes of a file that is no weights; tokenizers have about four million."""
MAX_FILES = 64
"""Most files of one folder."""
_MAX_LISTING = 16 << 20
_TIMEOUT_S = 60.0
"""Longest time for a file that is no weights."""
_HUB = "https://huggingface.co"
_THE_HUB = "the Hugging Face hub"
_NONE = (401, 403, 404)
"""What the hub answers where there is nothing that everybody may read."""
_VERSION = ".version"
"""File in an unfinished folder that says what it is a copy of."""
_NAME = re.compile(r"[^\x00-\x1f\x7f\\:/]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """One file on the web."""

    url: str
    size: int | None = None
    """Bytes; None where nobody said."""
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repository:
    """What the hub says of a repository."""

    commit: str
    files: Mapping[str, _Piece]


@dataclass(frozen=True, slots=True)
class _Errand:
    """Whom to ask, and whom to tell."""

    fetcher: Fetcher
    tell: Tell
    allow_pickle: bool


def hub_address() -> str:
    """Name the hub: the public one, or that of ``HF_ENDPOINT``, as the hub's own client has it."""
    return os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")


def fetch_asked(
    source: Source, path: Path, *, tell: Tell, fetcher: Fetcher, allow_pickle: bool = False
) -> None:
    """Bring what a request named to its place; what is there already stays as it is.

    Args:
        source: What it named, as `engine.references.find_weights` gives it.
        path: The entry's. A pickled file takes its own ending there.
        tell: Hears of progress, as `fetch_file` says; of a folder in bytes of all its files.
        fetcher: Goes to every address.
        allow_pickle: Whether pickled files may be fetched; nobody would read them otherwise.

    Raises:
        ModelNotFound: it cannot be reached, is not there, or there is no room for it.
        ModelIncompatible: it is not what it should be; nothing of it is left in its place.
    """
    errand, wanted = _Errand(fetcher, tell, allow_pickle), source.wanted
    if source.hub_id is not None:
        assert wanted is not None
        _fetch_repository(source.hub_id, wanted, path, errand)
    elif wanted is None:
        _fetch_single(_Piece(url=source.url), path, errand)
    else:
        assert wanted.config_url is not None
        weights = {f"{wanted.usual}{SAFE}": _Piece(url=source.url)}
        config = {CONFIG: _Piece(url=wanted.config_url)}
        with _naming(source.url):
            _fetch_folder(weights | config, path, source.url, errand)


def _fetch_repository(repository: str, wanted: Wanted, path: Path, errand: _Errand) -> None:
    found = _read_repository(repository, wanted, errand.fetcher)
    chosen = _choose(found.files, repository, wanted)
    if isinstance(chosen, str):
        ending = PurePosixPath(chosen).suffix
        place = path.with_name(path.name.removesuffix(SAFE) + ending)
        _fetch_single(found.files[chosen], place, errand)
        return
    pieces = {here: found.files[name] for name, here in chosen.items()}
    if wanted.config_url is not None:
        pieces[CONFIG] = _Piece(url=wanted.config_url)
    if len(pieces) > MAX_FILES:
        problem = f"expected at most {MAX_FILES} files, got {len(pieces)}"
        raise ModelIncompatible(f"{repository}: {problem}")
    with _naming(repository):
        _fetch_folder(pieces, path, f"{repository}@{found.commit}", errand)


def _choose(names: Iterable[str], repository: str, wanted: Wanted) -> str | Chosen:
    """Choose one file, or several for a folder; weights that are only pickled are always one file."""
    if wanted.form == "pipeline":
        return choose_pipeline(names, repository, wanted)
    if wanted.form == "network":
        try:
            return choose_network(names, repository, wanted)
        except OnlyPickled:
            if wanted.endings == (SAFE,):
                raise
    return choose_file(names, repository, wanted)


def _fetch_single(piece: _Piece, path: Path, errand: _Errand) -> None:
    if path.suffix != SAFE and not errand.allow_pickle:
        problem = "expected a safetensors file, got a pickled one, which may carry code"
        raise ModelIncompatible(
            f"{path.name}: {problem}; start with --allow-pickle if you trust it"
        )
    _fetch_weights(piece, path, errand.tell, errand.fetcher)


def _fetch_weights(piece: _Piece, path: Path, tell: Tell, fetcher: Fetcher) -> None:
    fetch_file(piece.url, path, tell=tell, sha256=piece.sha256, size=piece.size, fetcher=fetcher)


def _fetch_folder(pieces: Mapping[str, _Piece], path: Path, version: str, errand: _Errand) -> None:
    """Fetch files into a folder that appears once it is whole.

    Args:
        pieces: By their names in it.
        path: The folder.
        version: What they are a copy of: files of another one are thrown away.
        errand: Whom to ask and to tell.
    """
    unfinished = path.with_name(path.name + PARTIAL)
    total = sum(piece.size or 0 for piece in pieces.values())
    if total > MAX_ASKED:
        raise ModelIncompatible(f"expected at most {MAX_ASKED} bytes, got {total}")
    with alone(path, errand.tell):
        if path.exists():
            return
        _begin(unfinished, version)
        before = 0
        for name, piece in pieces.items():
            place = unfinished / name
            if place.suffix == SAFE:
                tell = partial(_tell_part, errand.tell, before, total)
                _fetch_weights(piece, place, tell, errand.fetcher)
            elif not place.exists():
                _fetch_text(piece, place, pieces, errand.fetcher)
            before += piece.size or 0
        (unfinished / _VERSION).unlink()
        unfinished.replace(path)


@contextmanager
def _naming(origin: str) -> Iterator[None]:
    """Say what was asked for, where a sentence is about one file of several."""
    try:
        yield
    except (ModelNotFound, ModelIncompatible) as error:
        raise type(error)(f"{origin[:200]}: {error}") from error


def _tell_part(tell: Tell, before: int, total: int, done: int, size: int | None) -> None:
    """Tell of one file of several; where nobody said how large all are, of it alone."""
    tell(before + done, total or size)


def _begin(unfinished: Path, version: str) -> None:
    """Make a folder for what will arrive, or go on with one of the same version."""
    note = unfinished / _VERSION
    try:
        is_same = note.read_text(encoding="utf-8") == version
    except (OSError, ValueError):
        is_same = False
    if not is_same and unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True, exist_ok=True)
    note.write_text(version, encoding="utf-8")


def _fetch_text(piece: _Piece, place: Path, pieces: Mapping[str, _Piece], fetcher: Fetcher) -> None:
    """Fetch a file that is no weights, and bring it into the form that it has here."""
    most = MAX_TEXT if piece.size is None else min(MAX_TEXT, piece.size)
    try:
        data = fetcher.get(piece.url, max_bytes=most, timeout_s=_TIMEOUT_S).data
    except FetchError as error:
        raise ModelNotFound(f"{place.name}: {error}") from error
    if piece.sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise ModelIncompatible(f"{place.name}: expected the file of the hub's sha256, got another")
    try:
        data = _plain(place.name, data, pieces)
    except ValueError as error:
        problem = f"expected a description of weights, got {error}"
        raise ModelIncompatible(f"{place.name}: {problem}") from error
    place.parent.mkdir(parents=True, exist_ok=True)
    arriving = place.with_name(place.name + PARTIAL)
    arriving.write_bytes(data)
    arriving.replace(place)


def _plain(name: str, data: bytes, pieces: Mapping[str, _Piece]) -> bytes:
    if name == INDEX:
        return plain_index(data)
    if name.endswith(SHARDS):
        return plain_shards(data, {PurePosixPath(it).name for it in pieces})
    return plain_config(data) if name.endswith(".json") else data


def _read_repository(repository: str, wanted: Wanted, fetcher: Fetcher) -> _Repository:
    """Ask the hub for the files of a repository.

    Raises:
        ModelNotFound: there is none that everybody may read, or the hub is away.
        ModelIncompatible: it answers something else.
    """
    base = f"{hub_address()}/{repository}"
    url = f"{hub_address()}/api/models/{repository}/revision/{wanted.revision}?blobs=true"
    try:
        answer = fetcher.get(url, max_bytes=_MAX_LISTING, timeout_s=_TIMEOUT_S)
    except NoFile as error:
        is_none = error.status in _NONE
        problem = "no public repository of that name" if is_none else "no list of its files now"
        raise ModelNotFound(f"{repository}: {_THE_HUB} has {problem} ({error})") from error
    except FetchError as error:
        problem = f"{_THE_HUB} cannot be reached from this machine ({error}); try again later"
        raise ModelNotFound(f"{repository}: {problem}") from error
    try:
        facts = json.loads(answer.data)
        commit = facts["sha"]
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise ValueError(commit)
        files = dict(_listed(facts["siblings"], f"{base}/resolve/{commit}"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = "expected the hub's list of its files, got something else"
        raise ModelIncompatible(f"{repository}: {problem}") from error
    return _Repository(commit=commit, files=files)


def _listed(siblings: list[dict[str, object]], base: str) -> Iterator[tuple[str, _Piece]]:
    """Read the list of files; those whose names could lead elsewhere are not seen."""
    for item in siblings:
        name, size, apart = item["rfilename"], item["size"], item.get("lfs")
        if not isinstance(name, str) or not isinstance(size, int) or size < 0:
            raise ValueError(name)
        digest = apart["sha256"] if isinstance(apart, dict) else None
        if digest is not None and not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ValueError(digest)
        if all(_NAME.fullmatch(part) and part.strip(".") for part in name.split("/")):
            yield name, _Piece(url=f"{base}/{quote(name)}", size=size, sha256=digest)
