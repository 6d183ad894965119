"""How a request names weights: by a name of the catalog, an address, or an id of the Hugging Face hub.

A reference becomes an entry of the catalog: that of its name, else one that says where its weights are fetched from and
what they are called once they are here. Nothing is fetched here, and nothing that a request names becomes a path:
what is fetched lies in a folder of its own, under a name that is made of the reference's hash.

    name        anything that is listed in the catalog
    address     https://host/.../NAME.safetensors, or a page, folder or file of huggingface.co
    hub id      owner/name, or owner/name@revision
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal, overload
from urllib.parse import quote, unquote, urlsplit

from engine.catalog import (
    ENDINGS,
    Catalog,
    Checkpoint,
    Kind,
    Source,
    Wanted,
    Weights,
    fetched_name,
)
from engine.errors import InvalidRequest, ModelNotFound
from engine.net import MAX_URL, AddressRefused, read_target

HUB = "https://huggingface.co"
"""Where hub ids lead, as far as `Library.may_fetch` is asked."""
AddOn = Literal["unet", "lora", "embedding", "controlnet", "ip_adapter", "clip_vision", "ic_light"]
"""What weights beside a base model are for; IP-Adapters lie among ControlNets in the catalog."""
Use = Literal["checkpoint"] | AddOn
_WANTED: Mapping[Use, Wanted] = {
    "checkpoint": Wanted(form="pipeline"),
    "unet": Wanted(form="network", usual="diffusion_pytorch_model", folders=("", "unet")),
    "lora": Wanted(form="file", usual="pytorch_lora_weights"),
    "embedding": Wanted(form="file", usual="learned_embeds", endings=ENDINGS["embedding"]),
    "controlnet": Wanted(form="network", usual="diffusion_pytorch_model"),
    "ip_adapter": Wanted(form="file", endings=(".safetensors", ".bin")),
    "clip_vision": Wanted(form="network", usual="model", endings=ENDINGS["clip_vision"]),
    "ic_light": Wanted(form="file"),
}
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_FILE_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".patch", ".gguf")
"""How names end that are no repositories."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,99}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+() -]{0,199}")
"""One part of a path in a repository."""
_VARIANT = re.compile(r"[A-Za-z0-9_]{1,40}")
_USUAL_ENCODER = "pytorch_model.bin"
"""What fal calls the weights of an image encoder where a request names none."""
_LONGEST = 200
"""Most characters of a value in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a request says of one file or folder of weights."""

    path: str
    """A name of the catalog, an address, or a hub id."""
    subfolder: str | None = None
    """Folder in the repository."""
    weight_name: str | None = None
    """Name of the file of weights in it; of a pickled one its twin in safetensors is taken, where there is one."""
    variant: str | None = None
    """Which of several files of the same weights, such as ``fp16``; names of the catalog have none."""
    config_url: str | None = None
    """Address of the ``config.json`` of a ControlNet."""


def _anywhere(_url: str) -> bool:
    return True


@overload
def find_weights(
    catalog: Catalog,
    use: Literal["checkpoint"],
    reference: Reference,
    field: str,
    may_fetch: Callable[[str], bool] = ...,
) -> Checkpoint: ...
@overload
def find_weights(
    catalog: Catalog,
    use: AddOn,
    reference: Reference,
    field: str,
    may_fetch: Callable[[str], bool] = ...,
) -> Weights: ...
@overload
def find_weights(
    catalog: Catalog,
    use: Use,
    reference: Reference,
    field: str,
    may_fetch: Callable[[str], bool] = ...,
) -> Checkpoint | Weights: ...
def find_weights(
    catalog: Catalog,
    use: Use,
    reference: Reference,
    field: str,
    may_fetch: Callable[[str], bool] = _anywhere,
) -> Checkpoint | Weights:
    """Find the entry of weights that a request names; found again without network once they were fetched.

    Args:
        catalog: What is there; a name of it comes first.
        use: What the weights are for.
        reference: How they are named.
        field: The request's field, for messages.
        may_fetch: Whether an address may be fetched from (design D11); of a hub id it is asked for the repository's page.
            A plan that was settled is not asked again.

    Returns:
        An entry of the catalog. Where its `source` is not None the weights are fetched first, by `engine.fetching`.

    Raises:
        ModelNotFound: it is neither a name of the catalog nor an address nor a hub id; the message names the closest.
        InvalidRequest: it is none that may be, or may not be fetched from.
    """
    kind: Kind = "controlnet" if use == "ip_adapter" else use
    try:
        return _named(catalog, kind, reference.path, field)
    except ModelNotFound:
        source = _source(use, kind, reference, field)
        if source is None:
            raise
    for url in (source.url, source.wanted.config_url if source.wanted else None):
        if url is not None and not may_fetch(url):
            problem = (
                "expected a name of the models folder, or an address on a host of --allow-downloads"
            )
            raise InvalidRequest(field, f"{problem}, got {_shown(url)}")
    return _entry(catalog, kind, source)


def _named(catalog: Catalog, kind: Kind, name: str, field: str) -> Checkpoint | Weights:
    if kind == "checkpoint":
        return catalog.checkpoint(name, field)
    return catalog.weights(kind, name, field)


def _entry(catalog: Catalog, kind: Kind, source: Source) -> Checkpoint | Weights:
    """Name what is fetched: as it lies there, else as it will."""
    names = list(_names(kind, source))
    places = [(name, catalog.place(kind, name)) for name in names]
    there = next((place for place in places if place[1].exists()), None)
    name, path = there or places[0]
    origin = None if there else source
    if kind == "checkpoint":
        return Checkpoint(name=name, path=path, source=origin)
    return Weights(name=name, path=path, kind=kind, source=origin)


def _names(kind: Kind, source: Source) -> Iterator[str]:
    """List the names that may be given to what is fetched, the most likely first."""
    wanted = source.wanted
    if source.hub_id is None:
        file = PurePosixPath(unquote(urlsplit(source.url).path)).name
        stem, _, ending = file.rpartition(".") if "." in file else (file, "", "safetensors")
        name = fetched_name(_key(source), stem)
        yield name + f".{ending}" if wanted is None else name
        return
    assert wanted is not None
    given = None if wanted.file is None else wanted.file.rpartition(".")[0]
    stem = given if wanted.form == "file" and given else source.hub_id.rpartition("/")[2]
    name = fetched_name(_key(source), stem)
    if wanted.form == "file":
        yield from (name + ending for ending in wanted.endings)
        return
    yield name
    yield from (name + ending for ending in wanted.endings if ending != ".safetensors")


def _key(source: Source) -> str:
    """Write down how weights were asked for: equal exactly for equal weights of the hub."""
    wanted = source.wanted
    if wanted is None:
        return source.url
    parts = (
        source.url,
        wanted.form,
        wanted.revision,
        "|".join(wanted.folders),
        wanted.file or "",
        wanted.variant or "",
        wanted.config_url or "",
    )
    return "\n".join(parts)


def _source(use: Use, kind: Kind, reference: Reference, field: str) -> Source | None:
    """Read where weights are fetched from; None where the path is neither an address nor a hub id.

    Raises:
        InvalidRequest: it is one that may not be.
    """
    path = reference.path
    if len(path) > MAX_URL:
        raise InvalidRequest(field, f"expected at most {MAX_URL} characters, got {len(path)}")
    wanted = _wanted(use, reference, field)
    if "://" in path:
        return _at_address(kind, path, wanted, reference, field)
    name, has_revision, revision = path.partition("@")
    if path.endswith(_FILE_ENDINGS) or not _REPOSITORY.fullmatch(name) or ".." in name:
        if re.search(r"[\x00-\x1f\x7f\\]|\.\.|^[/~]|^\w+:", path):
            problem = "expected a name of the models folder, an address, or owner/name on the hub"
            raise InvalidRequest(field, f"{problem}, got {_shown(path)}")
        return None
    if has_revision:
        wanted = replace(wanted, revision=_revision(revision, field))
    return _on_hub(name, wanted)


def _wanted(use: Use, reference: Reference, field: str) -> Wanted:
    """Read what is wanted of a repository, as far as it matters for the use.

    Raises:
        InvalidRequest: a name in it may not be.
    """
    wanted = _WANTED[use]
    if reference.subfolder:
        folder = _inside(reference.subfolder, "a subfolder such as sdxl_models", field)
        wanted = replace(wanted, folders=(folder,))
    if reference.variant and wanted.form != "file":
        if not _VARIANT.fullmatch(reference.variant):
            problem = "expected a variant of letters, digits and underscores, such as fp16"
            raise InvalidRequest(field, f"{problem}, got {_shown(reference.variant)}")
        wanted = replace(wanted, variant=reference.variant)
    is_usual = use == "clip_vision" and reference.weight_name == _USUAL_ENCODER
    if reference.weight_name and wanted.form != "pipeline" and not is_usual:
        endings = " or ".join(wanted.endings)
        rule = f"a file name that ends in {endings}"
        file = _inside(reference.weight_name, rule, field)
        if not file.endswith(wanted.endings):
            raise InvalidRequest(field, f"expected {rule}, got {_shown(file)}")
        wanted = replace(wanted, file=file)
    if reference.config_url and use == "controlnet":
        wanted = replace(wanted, config_url=_config_address(reference.config_url, field))
    return wanted


def _at_address(kind: Kind, url: str, wanted: Wanted, reference: Reference, field: str) -> Source:
    """Read an address: of the hub's pages and folders as a repository, of all else as a file."""
    host, parts = _taken_apart(url, field)
    if host in _HUB_HOSTS and len(parts) >= 2 and _REPOSITORY.fullmatch("/".join(parts[:2])):
        repository, rest = "/".join(parts[:2]), parts[2:]
        if not rest:
            return _on_hub(repository, wanted)
        if rest[0] == "tree" and len(rest) >= 2:
            wanted = replace(wanted, revision=_revision(rest[1], field))
            if len(rest) > 2 and not reference.subfolder:
                folder = _inside("/".join(rest[2:]), "a folder of the repository", field)
                wanted = replace(wanted, folders=(folder,))
            return _on_hub(repository, wanted)
        url = _as_file(url)
    file = parts[-1] if parts else ""
    endings = ENDINGS[kind]
    stem = file.rpartition(".")[0] if "." in file else file
    is_named = file.endswith(endings) or "." not in file
    if not is_named or not stem.strip("."):
        rule = " or ".join(f"NAME{ending}" for ending in endings)
        raise InvalidRequest(field, f"expected an address that ends in {rule}, got {_shown(url)}")
    if wanted.config_url is None:
        return Source(url=url, is_asked=True)
    if "." in file and not file.endswith(".safetensors"):
        problem = "expected weights in safetensors, which a configuration is put beside"
        raise InvalidRequest(field, f"{problem}, got {_shown(url)}")
    return Source(url=url, is_asked=True, wanted=wanted)


def _on_hub(repository: str, wanted: Wanted) -> Source:
    url = f"{HUB}/{repository}"
    return Source(url=url, is_asked=True, hub_id=repository, wanted=wanted)


def _taken_apart(url: str, field: str) -> tuple[str, list[str]]:
    """Split an address into its host and the parts of its path.

    Raises:
        InvalidRequest: it is none of http or https, names a user, or is no address at all.
    """
    try:
        host = read_target(url).host.rstrip(".")
    except AddressRefused as error:
        raise InvalidRequest(field, f"{error}, got {_shown(url)}") from error
    return host, [unquote(part) for part in urlsplit(url).path.split("/") if part]


def _as_file(url: str) -> str:
    """Turn the address of a file's page on the hub into that of the file."""
    scheme, _, rest = url.partition("://")
    parts = rest.split("/")
    if len(parts) > 3 and parts[3] in ("blob", "raw"):
        parts[3] = "resolve"
    return f"{scheme}://{'/'.join(parts)}"


def _config_address(url: str, field: str) -> str:
    host, parts = _taken_apart(url, field)
    if not parts or not parts[-1].endswith(".json"):
        problem = "expected the address of a configuration that ends in .json"
        raise InvalidRequest(field, f"{problem}, got {_shown(url)}")
    return _as_file(url) if host in _HUB_HOSTS else url


def _revision(text: str, field: str) -> str:
    if not _REVISION.fullmatch(text) or ".." in text:
        problem = "expected a branch, tag or commit of the repository after @"
        raise InvalidRequest(field, f"{problem}, got {_shown(text)}")
    return quote(text, safe="")


def _inside(path: str, rule: str, field: str) -> str:
    """Read a path inside a repository.

    Raises:
        InvalidRequest: it is absolute, climbs, or has characters that names of weights don't have.
    """
    parts = [part for part in path.removesuffix("/").split("/") if part != "."]
    if not all(map(_PART.fullmatch, parts)):
        raise InvalidRequest(field, f"expected {rule}, got {_shown(path)}")
    return "/".join(parts)


def _shown(value: str) -> str:
    return repr(value[:_LONGEST])
