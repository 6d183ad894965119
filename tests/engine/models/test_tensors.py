"""Files of tensors are read; broken ones and ones that carry code are refused with a sentence, and nothing of them runs."""

import hashlib
import json
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import ModelIncompatible, ModelNotFound
from engine.models.tensors import read_metadata, read_tensors

pytestmark = pytest.mark.torch
TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


class Bomb:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_reads_safetensors_and_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path, metadata={"note": "x"})
    read = read_tensors(path)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[key], value) for key, value in TENSORS.items())
    assert read["b"].dtype == torch.bfloat16
    assert read_metadata(path) == {"note": "x"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"^gone\.safetensors: expected a file of weights in "):
        read_tensors(tmp_path / "gone.safetensors")


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    problem = (
        rf"^cut\.safetensors: expected a safetensors file, got one of {len(whole) - 50} bytes "
        rf"whose header promises {len(whole)}; fetch it again$"
    )
    with pytest.raises(ModelIncompatible, match=problem):
        read_tensors(path)


LIES = {
    "shape": {"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 16]}},
    "overlap": {
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    },
    "order": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
    "huge": {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 16]}},
    "type": {"a": {"dtype": "X99", "shape": [4], "data_offsets": [0, 16]}},
    "list": ["a"],
    "text": {"a": "b"},
}


@pytest.mark.parametrize("header", LIES.values(), ids=LIES)
def test_a_lying_header_is_refused(header: object, tmp_path: Path) -> None:
    path = tmp_path / "lie.safetensors"
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(16))
    with pytest.raises(
        ModelIncompatible, match=r"^lie\.safetensors: expected a safetensors file, "
    ):
        read_tensors(path)


@pytest.mark.parametrize("raw", [b"", b"abc", b"\xff" * 64, (2**60).to_bytes(8, "little") + b"{}"])
def test_nonsense_is_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw)
    with pytest.raises(
        ModelIncompatible, match=r"^bad\.safetensors: expected a safetensors file, "
    ):
        read_tensors(path)
    with pytest.raises(
        ModelIncompatible, match=r"^bad\.safetensors: expected a safetensors file, "
    ):
        read_metadata(path)


@pytest.mark.parametrize("name", ["bomb.safetensors", "bomb.pt", "bomb.fooocus.patch"])
@pytest.mark.parametrize(
    "dump", [partial(pickle.dump, protocol=2), torch.save], ids=["pickle", "torch"]
)
def test_code_in_a_file_does_not_run(name: str, dump, tmp_path: Path) -> None:
    path, target = tmp_path / name, tmp_path / "ran"
    with path.open("wb") as file:
        dump({"a": Bomb(target)}, file)
    kind = "a safetensors file" if name.endswith("safetensors") else "a pickled dictionary"
    with pytest.raises(ModelIncompatible, match=rf"^bomb\.\S+: expected {kind}"):
        read_tensors(path, allow_pickle=True)
    assert not target.exists()


def test_a_pickled_file_needs_leave_or_a_known_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(TENSORS, path)
    problem = r"^a\.pth: expected a safetensors file, got a pickled one, which may carry code; start with --allow-pickle"
    with pytest.raises(ModelIncompatible, match=problem):
        read_tensors(path, known_sha256=["00"])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for read in (read_tensors(path, allow_pickle=True), read_tensors(path, known_sha256={digest})):
        assert all(torch.equal(read[key], value) for key, value in TENSORS.items())


def test_nested_dictionaries_and_triples_come_flat(tmp_path: Path) -> None:
    path, legacy = tmp_path / "a.patch", tmp_path / "b.ckpt"
    triple = (torch.zeros(2, dtype=torch.uint8), torch.tensor(-1.0), torch.tensor(1.0))
    content = {"x": {"*": torch.nn.Parameter(torch.ones(1))}, "step": 3, "w": triple}
    torch.save({"state_dict": content}, path)
    torch.save(content, legacy, _use_new_zipfile_serialization=False)
    for file in (path, legacy):
        read = read_tensors(file, allow_pickle=True)
        assert list(read) == ["x.*", "w|q", "w|lo", "w|hi"]
        assert not read["x.*"].requires_grad


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, "text", {"a": torch.eye(2).to_sparse()}])
def test_a_pickled_file_without_tensors_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    torch.save(content, path)
    problem = r"^a\.bin: expected a pickled dictionary of tensors, got"
    with pytest.raises(ModelIncompatible, match=problem):
        read_tensors(path, allow_pickle=True)


def test_a_broken_pickled_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(TENSORS, path)
    for raw in (path.read_bytes()[:-100], b"", b"PK\x03\x04" + bytes(30), b"\x80\x02"):
        path.write_bytes(raw)
        problem = r"^a\.pt: expected a pickled dictionary of tensors, got: ."
        with pytest.raises(ModelIncompatible, match=problem):
            read_tensors(path, allow_pickle=True)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.exe"
    path.write_bytes(b"MZ")
    with pytest.raises(ModelIncompatible, match=r"^a\.exe: expected a name that ends in \.safet"):
        read_tensors(path, allow_pickle=True)
