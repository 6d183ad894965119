"""Files are whole or absent, never overwritten, and leftovers are found."""

import hashlib
import threading

import pytest

from jobs.files import InputFolder, OutputFolder, sweep_parts, write_whole


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


def test_half_written_files_are_swept(tmp_path):
    (tmp_path / "day").mkdir()
    for name in (".a.png.1234.part", "day/.b.png.1234.part", "day/b.png", "c.part"):
        (tmp_path / name).touch()
    sweep_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b.png", "c.part", "day"]


def test_inputs_are_named_by_their_content_and_kept_while_used(tmp_path):
    inputs = InputFolder(tmp_path)
    hashes = inputs.save({"mask": b"same", "image": b"same", "other": b"other"})
    assert hashes["mask"] == hashes["image"] == hashlib.sha256(b"same").hexdigest()
    assert {path.read_bytes() for path in inputs.paths(hashes).values()} == {b"same", b"other"}
    inputs.sweep([hashes["mask"]])
    assert [path.name for path in tmp_path.iterdir()] == [hashes["mask"]]


def test_names_of_pictures_never_collide(tmp_path):
    outputs = OutputFolder(tmp_path)
    names = {outputs.save("0123456789", 0, "image/webp", bytes([n])) for n in range(20)}
    assert len(names) == 20
    assert {outputs.path(name).read_bytes() for name in names} == {bytes([n]) for n in range(20)}
    assert all(name.endswith("_01234567.webp") for name in names)


def test_orphans_are_those_of_the_job_that_nobody_recorded(tmp_path):
    outputs = OutputFolder(tmp_path)
    known, orphan = (outputs.save("aaaaaaaa-1", index, "image/png", b"x") for index in (0, 1))
    other = outputs.save("bbbbbbbb-1", 0, "image/png", b"x")
    assert outputs.orphans("aaaaaaaa-1", [known]) == [orphan]
    for name in (known, orphan, other):
        outputs.remove(name)
    assert list(tmp_path.iterdir()) == []
