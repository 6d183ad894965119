"""A file is hashed once, until it changes; hashes outlive the process."""

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

from engine.models.hashes import FileHashes


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "base.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def hashes(tmp_path: Path) -> FileHashes:
    return FileHashes(tmp_path / "data" / "hashes.json")


def test_a_hash_is_the_files_sha256(hashes: FileHashes, weights: Path) -> None:
    assert hashes.peek(weights) is None
    assert hashes.get(weights) == sha256(b"weights")
    assert hashes.peek(weights) == sha256(b"weights")
    assert hashes.short(weights) == sha256(b"weights")[:10]


def test_a_changed_file_is_hashed_anew(hashes: FileHashes, weights: Path) -> None:
    hashes.get(weights)
    weights.write_bytes(b"another")

    assert hashes.peek(weights) is None
    assert hashes.get(weights) == sha256(b"another")


def test_a_known_file_is_not_read_again(hashes: FileHashes, weights: Path, tmp_path: Path) -> None:
    hashes.get(weights)
    facts = weights.stat()
    weights.write_bytes(b"secretl")  # as long as before
    os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    assert FileHashes(tmp_path / "data" / "hashes.json").get(weights) == sha256(b"weights")


def test_a_hash_can_be_learned(hashes: FileHashes, weights: Path) -> None:
    hashes.learn(weights, "a" * 64)

    assert hashes.get(weights) == "a" * 64


def test_two_processes_remember_together(tmp_path: Path, weights: Path) -> None:
    cache, other = tmp_path / "hashes.json", tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    first, second = FileHashes(cache), FileHashes(cache)
    first.get(weights)
    second.get(other)

    third = FileHashes(cache)
    assert third.peek(weights) == sha256(b"weights")
    assert third.peek(other) == sha256(b"other")
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', "\udcff"])
def test_a_broken_cache_is_begun_anew(tmp_path: Path, weights: Path, text: str) -> None:
    cache = tmp_path / "hashes.json"
    cache.write_bytes(text.encode("utf-8", "surrogateescape"))

    assert FileHashes(cache).get(weights) == sha256(b"weights")
    assert len(json.loads(cache.read_text())) == 1


def test_a_folder_has_the_hash_of_its_files(hashes: FileHashes, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for part in ("unet", "vae"):
        (folder / part).mkdir(parents=True)
        (folder / part / "model.safetensors").write_bytes(part.encode())

    assert hashes.peek(folder) is None
    first = hashes.get(folder)
    assert hashes.peek(folder) == first
    (folder / "vae/model.safetensors").write_bytes(b"other")
    assert hashes.get(folder) != first


def test_hashes_come_in_the_background(hashes: FileHashes, tmp_path: Path, weights: Path) -> None:
    hashes.prefetch([tmp_path / "missing", weights])
    hashes.prefetch([])

    deadline = time.monotonic() + 5
    while hashes.peek(weights) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hashes.peek(weights) == sha256(b"weights")


def test_threads_share_the_work(hashes: FileHashes, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        path.write_bytes(path.name.encode())
    threads = [
        threading.Thread(target=lambda: [hashes.get(path) for path in paths]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [hashes.peek(path) for path in paths] == [sha256(path.name.encode()) for path in paths]


def test_a_missing_file_is_an_error(hashes: FileHashes, tmp_path: Path) -> None:
    assert hashes.peek(tmp_path / "none") is None
    with pytest.raises(FileNotFoundError):
        hashes.get(tmp_path / "none")


def test_a_folder_that_cannot_be_written_is_told_of_once(tmp_path, caplog) -> None:
    (tmp_path / "data").write_bytes(b"a file, where a folder would be")
    hashes = FileHashes(tmp_path / "data" / "hashes.json")
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())
        assert hashes.get(tmp_path / name) == sha256(name.encode())
    assert sum("not remembered" in it for it in caplog.messages) == 1
