"""Weights from the Hugging Face hub: fetched once, resumed after a break, checked by their hash.

Only what a pipeline needs and only safetensors; half-precision files where a repository has them.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.fetch import PARTIAL, Tell, alone, fetch_file, network_error
from engine.models.hashes import sha256_of

INDEX = "model_index.json"
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
_TEXT = (".json", ".txt", ".model")


def _nobody(done: int, total: int | None) -> None:
    """Hear of progress and do nothing."""


def fetch_pipeline(
    repo_id: str, folder: Path, *, endpoint: str | None = None, tell: Tell = _nobody
) -> None:
    """Bring a diffusers repository into `folder`, which appears once it is whole.

    Until then its files are in a folder beside it, so that a broken download goes on where it stopped.

    Args:
        repo_id: ``owner/name``.
        folder: Where its files go, by their own names.
        endpoint: Address of the hub; None is the public one.
        tell: Called while another thread or process brings it, which is waited for; of a pipeline's own bytes it hears
            nothing.

    Raises:
        ModelNotFound: the hub cannot be reached, or has no such repository.
        ModelIncompatible: it is no diffusers pipeline in safetensors, or a file's sha256 is not the hub's.
    """
    if (folder / INDEX).exists():
        return
    from huggingface_hub import hf_hub_download

    with _sentence(repo_id, folder), alone(folder, tell):
        if (folder / INDEX).exists():
            return
        files = _files(repo_id, endpoint)
        partial = folder.with_name(folder.name + PARTIAL)
        for name in wanted_files(files, repo_id):
            hf_hub_download(repo_id, name, local_dir=partial, endpoint=endpoint)
            _check(partial / name, files[name].sha256)
        partial.replace(folder)


def fetch_network(
    repo_id: str, folder: Path, *, endpoint: str | None = None, tell: Tell = _nobody
) -> None:
    """Bring a transformers repository of one network into `folder`, as `fetch_pipeline` brings a pipeline.

    `tell` hears of progress; what it raises ends the download, as with `fetch_file`.
    """
    if folder.exists():
        return
    from huggingface_hub import hf_hub_url

    with _sentence(repo_id, folder), alone(folder, tell):
        if folder.exists():
            return
        files = _files(repo_id, endpoint)
        partial = folder.with_name(folder.name + PARTIAL)
        names = network_files(files, repo_id)
        before, total = 0, sum(files[name].size for name in names)
        for name in names:
            fetch_file(
                hf_hub_url(repo_id, name, endpoint=endpoint),
                partial / name,
                tell=_part_of(tell, before, total),
                sha256=files[name].sha256,
            )
            before += files[name].size
        partial.replace(folder)


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a repository, as the hub knows it."""

    sha256: str | None
    """Of what it keeps apart from the repository, as it does with weights."""
    size: int
    """Bytes; 0 where it does not say."""


def _files(repo_id: str, endpoint: str | None) -> dict[str, _File]:
    from huggingface_hub import HfApi

    siblings = HfApi(endpoint=endpoint).model_info(repo_id, files_metadata=True).siblings or []
    return {
        item.rfilename: _File(item.lfs.sha256 if item.lfs else None, item.size or 0)
        for item in siblings
    }


def _part_of(tell: Tell, before: int, total: int) -> Tell:
    """Tell of one file of several: after so many bytes of others, of so many in all."""
    return lambda done, _: tell(before + done, total or None)


@contextlib.contextmanager
def _sentence(repo_id: str, folder: Path) -> Iterator[None]:
    """Say what went wrong with the hub."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, network_error()) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"expected a model on the Hugging Face hub, got: {reason}"
        raise ModelNotFound(f"{repo_id}: {problem}; files can also be put into {folder}") from error


def wanted_files(names: Iterable[str], repo_id: str) -> list[str]:
    """Choose the files a pipeline needs, the index last.

    Raises:
        ModelIncompatible: there is no index, or a network without safetensors.
    """
    names = list(names)
    networks = {PurePosixPath(name).parts[0] for name in names if name.endswith(".safetensors")}
    halves = {PurePosixPath(name).parts[0] for name in names if _variant(name) == "fp16"}
    is_half = networks & set(_PARTS) <= halves  # of one kind throughout, as diffusers wants them
    if INDEX not in names:
        raise ModelIncompatible(f"{repo_id}: expected a diffusers pipeline with {INDEX}, got none")
    chosen: list[str] = []
    for part in _PARTS:
        inside = [name for name in names if PurePosixPath(name).parts[:-1] == (part,)]
        chosen += [name for name in inside if name.endswith(_TEXT)]
        weights = [name for name in inside if name.endswith(".safetensors")]
        chosen += [name for name in weights if is_half == (_variant(name) == "fp16")]
        if inside and not weights and any(name.endswith((".bin", ".ckpt")) for name in inside):
            raise ModelIncompatible(
                f"{repo_id}: expected safetensors in {part}, got pickled weights"
            )
    return [*chosen, INDEX]


def network_files(names: Iterable[str], repo_id: str) -> list[str]:
    """Choose the files that a network of transformers needs.

    Raises:
        ModelIncompatible: it has no description, or no safetensors.
    """
    names = list(names)
    weights = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    if "config.json" not in names or not weights:
        problem = "expected a network of transformers in safetensors, got none"
        raise ModelIncompatible(f"{repo_id}: {problem}")
    return [*(name for name in names if name.endswith(_TEXT) and "/" not in name), *weights]


def variant_of(folder: Path) -> str | None:
    """Say which variant of the weights a folder holds: ``fp16``, or None for the plain one."""
    return (
        "fp16"
        if any(_variant(path.name) == "fp16" for path in (folder / "unet").iterdir())
        else None
    )


def _variant(name: str) -> str | None:
    """Read the variant in a file name: ``fp16`` in ``model.fp16-00001-of-00002.safetensors``, None in a plain one."""
    match = re.search(r"\.([A-Za-z_0-9]+)(-\d+-of-\d+)?\.safetensors$", name)
    return match[1] if match else None


def _check(path: Path, expected: str | None) -> None:
    """Compare a file's sha256 with the hub's; a file that differs is removed."""
    if expected is None:
        return
    found = sha256_of(path)
    if found != expected:
        path.unlink()
        raise ModelIncompatible(
            f"{path.name}: sha256 {found[:12]}… does not match the hub's {expected[:12]}…; it was removed"
        )
