"""Files are whole or absent, never overwritten, and leftovers are found; what others wrote stays."""

import hashlib
import random
import re
import threading
import time

import pytest

from engine.records.file_names import file_name
from jobs.files import InputFolder, OutputFolder, write_whole

FOOOCUS = r"(\d{4}-\d\d-\d\d)/\1_\d\d-\d\d-\d\d_[1-9]\d{3}\."
"""How the path of a picture begins."""


def test_a_file_replaces_the_one_before_and_leaves_no_part(tmp_path):
    path = tmp_path / "new folder" / "file"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_whole_as_soon_as_it_is_there(tmp_path):
    data = bytes(4_000_000)
    writing = threading.Thread(
        target=lambda: [write_whole(tmp_path / str(n), data) for n in range(8)]
    )
    writing.start()
    sizes = set()
    while writing.is_alive():
        sizes |= {path.stat().st_size for path in tmp_path.glob("[0-9]*")}
    assert sizes <= {len(data)}


def test_a_file_that_cannot_be_written_leaves_no_part_behind(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "file", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_inputs_are_named_by_their_content_and_kept_while_used(tmp_path):
    inputs = InputFolder(tmp_path)
    (tmp_path / f".{'0' * 64}.1234.part").touch()
    hashes = inputs.save({"mask": b"same", "image": b"same", "other": b"other"})
    assert hashes["mask"] == hashes["image"] == hashlib.sha256(b"same").hexdigest()
    assert {path.read_bytes() for path in inputs.paths(hashes).values()} == {b"same", b"other"}
    inputs.sweep([hashes["mask"]])
    assert [path.name for path in tmp_path.iterdir()] == [hashes["mask"]]


def contents(folder):
    """Everything below a folder, by path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("ending", ["png", "jpeg", "webp"])
def test_a_picture_is_called_as_fooocus_calls_it(tmp_path, ending):
    outputs = OutputFolder(tmp_path)
    before = time.strftime("%Y-%m-%d_%H-%M-%S")
    name = outputs.save("job", f"image/{ending}", b"x")
    assert re.fullmatch(FOOOCUS + ending, name)
    assert before <= name[11:30] <= time.strftime("%Y-%m-%d_%H-%M-%S")


def test_names_of_pictures_never_collide(tmp_path):
    outputs = OutputFolder(tmp_path)
    names = {outputs.save("job", "image/webp", n.to_bytes(2)) for n in range(300)}
    assert {outputs.path(name).read_bytes() for name in names} == {
        n.to_bytes(2) for n in range(300)
    }


def test_a_name_that_somebody_else_has_taken_is_drawn_again(tmp_path):
    taken = {}
    for second in range(5):
        draws = random.Random(1)
        for _ in range(3):
            name = file_name(time.localtime(time.time() + second), draws, "png")
            taken[name] = f"of somebody else, {name}".encode()
            write_whole(tmp_path / name, taken[name])
    name = OutputFolder(tmp_path, random.Random(1)).save("job", "image/png", b"ours")
    assert name not in taken
    found = contents(tmp_path)
    assert taken.items() <= found.items()
    assert found[name] == b"ours"


def test_a_claim_leads_to_its_picture_until_it_is_confirmed(tmp_path):
    outputs = OutputFolder(tmp_path)
    names = [outputs.save("job-1", "image/png", bytes([n])) for n in range(3)]
    other = outputs.save("job-2", "image/png", b"other")
    assert sorted(outputs.claims()) == sorted([*(("job-1", n) for n in names), ("job-2", other)])
    outputs.confirm("job-1", names[0])
    outputs.withdraw("job-1", names[1])
    assert sorted(outputs.claims()) == sorted([("job-1", names[2]), ("job-2", other)])
    assert outputs.path(names[0]).read_bytes() == bytes([0])
    assert not outputs.path(names[1]).exists()
    outputs.confirm("job-1", names[2])
    outputs.confirm("job-2", other)
    assert set(contents(tmp_path)) == {names[0], names[2], other}
    for name in (names[0], names[2], other):
        outputs.remove(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", [None, b"", b"the pic", b"the picture"])
def test_what_a_killed_server_left_of_a_picture_is_withdrawn(tmp_path, written):
    outputs = OutputFolder(tmp_path)
    name = outputs.save("job", "image/png", b"the picture")
    outputs.path(name).unlink()
    if written is not None:
        outputs.path(name).write_bytes(written)  # as a copy, where there are no hard links
    assert list(outputs.claims()) == [("job", name)]
    outputs.withdraw("job", name)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("claim", [b"", b"half of it", b"half of it and the rest"])
def test_a_claim_on_the_file_of_somebody_else_removes_nothing_but_itself(tmp_path, claim):
    outputs = OutputFolder(tmp_path)
    day = tmp_path / "2026-01-02"
    day.mkdir()
    name = "2026-01-02_03-04-05_1000.png"
    (day / name).write_bytes(b"a picture of Fooocus")
    (day / f".{name}.job.part").write_bytes(claim)
    assert list(outputs.claims()) == [("job", f"2026-01-02/{name}")]
    outputs.withdraw("job", f"2026-01-02/{name}")
    assert contents(tmp_path) == {f"2026-01-02/{name}": b"a picture of Fooocus"}


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    day = tmp_path / time.strftime("%Y-%m-%d")
    day.write_bytes(b"a file in the way of the folder")
    with pytest.raises(NotADirectoryError):
        OutputFolder(tmp_path).save("job", "image/png", b"x")
    assert list(tmp_path.iterdir()) == [day]


def test_a_picture_that_does_not_fit_leaves_nothing_behind(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            OutputFolder(tmp_path).save("job", "image/png", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
