"""Which files of a repository on the hub make up what was asked for, and what they are called here.

Names alone, no network: diffusers' and transformers' habits of naming. Weights go by their plain names here, whatever variant
they are of, so that nobody who reads them has to know it. Never a file that could carry code, but where one is asked for.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

from engine.catalog import Wanted
from engine.errors import ModelIncompatible
from engine.models.safe_files import SAFE

INDEX = "model_index.json"
CONFIG = "config.json"
SHARDS = ".safetensors.index.json"
"""Ending of the list of a network's files, where they are several."""
_NETWORKS: Mapping[str, str] = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Parts of a pipeline that have weights, and what the files are called."""
_TEXTS = ("tokenizer", "tokenizer_2", "scheduler")
_PARTS = (*_NETWORKS, *_TEXTS)
_TEXT = (".json", ".txt", ".model")
_HALF = "fp16"
_LIBRARIES = ("diffusers", "transformers")
_MANY = 5
"""Most names in a message."""

Chosen = dict[str, str]
"""Names in the repository, and here."""


class OnlyPickled(ModelIncompatible):
    """The weights are there, but in no other form than pickled."""


def choose_file(names: Iterable[str], repository: str, wanted: Wanted) -> str:
    """Choose one file of weights; one in safetensors where the same is there pickled too.

    Raises:
        ModelIncompatible: there is none, or several and no name was given.
    """
    listed = list(names)
    for folder in wanted.folders:
        inside = [_join(folder, name) for name in _inside(listed, folder)]
        stem = wanted.usual
        if wanted.file is not None:
            stem = wanted.file.rpartition(".")[0]
        twins = [] if stem is None else [_join(folder, stem + end) for end in wanted.endings]
        if found := next((twin for twin in twins if twin in listed), None):
            return found
        if wanted.file is not None:
            continue
        for ending in wanted.endings:
            same = [name for name in inside if name.endswith(ending)]
            if len(same) == 1:
                return same[0]
            if same:
                problem = f"expected the name of one of its files of weights: {_some(same)}"
                raise ModelIncompatible(f"{repository}: {problem}")
    what = wanted.file or f"a file of weights that ends in {' or '.join(wanted.endings)}"
    found_names = [name for name in listed if name.endswith(wanted.endings)]
    problem = f"expected {what} in {_place(wanted)}, got {_some(found_names)}"
    raise ModelIncompatible(f"{repository}: {problem}")


def choose_network(names: Iterable[str], repository: str, wanted: Wanted) -> Chosen:
    """Choose the weights and the configuration of one network.

    Where no variant was asked for, half precision is taken where there is some, else the plain file, else the only one.

    Raises:
        OnlyPickled: its weights are in no file in safetensors.
        ModelIncompatible: it is not there, or not in that variant.
    """
    listed = list(names)
    for folder in wanted.folders:
        weights = _weights(_inside(listed, folder), wanted)
        config = _join(folder, CONFIG)
        if not weights or (config not in listed and wanted.config_url is None):
            continue
        chosen = {_join(folder, name): here for name, here in weights.items()}
        return chosen if wanted.config_url is not None else {**chosen, config: CONFIG}
    usual = f"{wanted.usual}.{wanted.variant}" if wanted.variant else wanted.usual
    what = wanted.file or f"{usual}{SAFE}"
    found = [name for folder in wanted.folders for name in _of_weights(listed, folder)]
    problem = f"{repository}: expected {what} and {CONFIG} in {_place(wanted)}, got {_some(found)}"
    is_pickled = found and not any(name.endswith(SAFE) for name in found)
    raise (OnlyPickled if is_pickled else ModelIncompatible)(problem)


def choose_pipeline(names: Iterable[str], repository: str, wanted: Wanted) -> Chosen:
    """Choose the files of a pipeline of diffusers, its index last.

    A part that has no file of the variant is taken plain, as diffusers takes it. Where no variant was asked for, half
    precision is taken where all parts have it.

    Raises:
        OnlyPickled: a part's weights are in no file in safetensors.
        ModelIncompatible: it is no pipeline, or nothing of it is in that variant.
    """
    [folder] = wanted.folders
    inside = [name for name in names if not folder or name.startswith(f"{folder}/")]
    names = [name.removeprefix(f"{folder}/") if folder else name for name in inside]
    if INDEX not in names:
        problem = f"expected a diffusers pipeline with {INDEX}, got {_some(names)}"
        raise ModelIncompatible(f"{repository}: {problem}")
    parts = {part: _inside(names, part) for part in _PARTS}
    variant = wanted.variant
    networks = {part: usual for part, usual in _NETWORKS.items() if parts[part]}
    having = {
        part for part in networks if _of_variant(parts[part], networks[part], variant or _HALF)
    }
    if variant is None:
        variant = _HALF if having == set(networks) else None
    elif not having:
        found = sorted({name for part in networks for name in _of_weights(names, part)})
        problem = f"expected weights of the variant {variant!r}, got {_some(found)}"
        raise ModelIncompatible(f"{repository}: {problem}")
    chosen: Chosen = {}
    for part, files in parts.items():
        weights: Chosen = {}
        if part in networks:
            usual = networks[part]
            weights = _of_variant(files, usual, variant) or _of_variant(files, usual, None)
            if not weights:
                problem = f"expected safetensors in {part}, got {_some(_of_weights(names, part))}"
                raise OnlyPickled(f"{repository}: {problem}")
        texts = [name for name in files if name.endswith(_TEXT) and ".index." not in name]
        for name, here in {**dict(zip(texts, texts, strict=True)), **weights}.items():
            chosen[_join(folder, _join(part, name))] = _join(part, here)
    chosen[_join(folder, INDEX)] = INDEX
    return chosen


def plain_index(data: bytes) -> bytes:
    """Leave in a pipeline's index what the engine reads: its own parts, of the two libraries.

    An index can name any module of Python, which diffusers would import.

    Raises:
        ValueError: it is none.
    """
    content = _json_object(data)
    kept = {key: value for key, value in content.items() if not isinstance(value, list)}
    for part in _PARTS:
        value = content.get(part)
        if isinstance(value, list) and len(value) == 2 and value[0] in _LIBRARIES:
            kept[part] = value
    return json.dumps(kept, indent=2).encode()


def plain_shards(data: bytes, here: Collection[str]) -> bytes:
    """Rewrite the list of a network's files to their names here.

    Args:
        data: The list.
        here: The files that were taken.

    Raises:
        ValueError: it is none, or names other files.
    """
    content = _json_object(data)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(it, str) for it in places.values()):
        raise ValueError("no weight_map")
    plain = {key: _without_variant(name) for key, name in places.items()}
    if others := set(plain.values()) - set(here):
        raise ValueError(f"the file {min(others)!r}")
    return json.dumps({**content, "weight_map": plain}).encode()


def plain_config(data: bytes) -> bytes:
    """Take a configuration as it is; diffusers would take a text in its place for the name of another repository.

    Raises:
        ValueError: it is none.
    """
    _json_object(data)
    return data


def _json_object(data: bytes) -> dict[str, object]:
    try:
        content = json.loads(data)
    except RecursionError as error:
        raise ValueError("JSON that is too deep") from error
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}")
    return content


def _weights(files: Collection[str], wanted: Wanted) -> Chosen:
    """Choose the weights of a network among the files of its folder; nothing where there are none."""
    assert wanted.usual is not None
    if wanted.file is not None:
        twin = wanted.file.rpartition(".")[0] + SAFE
        return {twin: wanted.usual + SAFE} if twin in files else {}
    if wanted.variant is not None:
        return _of_variant(files, wanted.usual, wanted.variant)
    half = _of_variant(files, wanted.usual, _HALF) or _of_variant(files, wanted.usual, None)
    only = [name for name in files if name.endswith(SAFE)]
    return half or ({only[0]: wanted.usual + SAFE} if len(only) == 1 else {})


def _of_variant(files: Collection[str], usual: str, variant: str | None) -> Chosen:
    """Choose one file of a variant, None being the plain one, or several with their list."""
    marked = f".{variant}" if variant else ""
    single = f"{usual}{marked}{SAFE}"
    if single in files:
        return {single: usual + SAFE}
    listing = f"{usual}{SAFE}.index{marked}.json"
    if listing not in files:
        return {}
    mark = re.escape(marked)
    shard = rf"{re.escape(usual)}(?:{mark}-\d+-of-\d+|-\d+-of-\d+{mark})\.safetensors"
    shards = [name for name in files if re.fullmatch(shard, name)]
    return {listing: usual + SHARDS, **{name: _without_variant(name) for name in shards}}


def _without_variant(name: str) -> str:
    """Name one of several files plainly: ``model-00001-of-00002.safetensors``."""
    match = re.fullmatch(r"([^.]+)(?:\.\w+)?(-\d+-of-\d+)(?:\.\w+)?\.safetensors", name)
    return f"{match[1]}{match[2]}{SAFE}" if match else name


def _of_weights(names: Iterable[str], folder: str) -> list[str]:
    endings = (SAFE, ".bin", ".pt", ".pth", ".ckpt")
    return [_join(folder, name) for name in _inside(names, folder) if name.endswith(endings)]


def _inside(names: Iterable[str], folder: str) -> list[str]:
    """List what lies directly in a folder, without its name."""
    place = PurePosixPath(folder)
    return [PurePosixPath(name).name for name in names if PurePosixPath(name).parent == place]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _place(wanted: Wanted) -> str:
    return " or ".join(folder or "the repository" for folder in wanted.folders)


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:_MANY]
    more = ", …" if len(names) > _MANY else ""
    return (", ".join(shown) + more) or "none"
