"""A key is shown once, kept as a hash, belongs to an owner, and is worthless as soon as it is revoked."""

import json
from pathlib import Path

import pytest

from api.keys import FILE, Keys, keys_command
from engine import InvalidRequest
from jobs import StorageFailed


def test_a_key_belongs_to_its_owner(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    ada, bob = keys.add("ada", "laptop"), keys.add("bob")

    assert keys.owner_of(f"Key {ada}") == "ada"
    assert keys.owner_of(f"Bearer {bob}") == "bob"
    assert keys.owner_of(f"key  {bob} ") == "bob"
    assert [(key.owner, key.label) for key in keys.list()] == [("ada", "laptop"), ("bob", "")]


@pytest.mark.parametrize(
    "header",
    ["Key {id}:wrong", "Key {id}", "Key {id}:", "Key :", "Key", "", "{key}", "Basic {key}"],
)
def test_what_is_no_key_is_nobodys(tmp_path: Path, header: str) -> None:
    keys = Keys(tmp_path)
    key = keys.add("ada")

    assert keys.owner_of(header.format(key=key, id=key.partition(":")[0])) is None
    assert keys.owner_of(None) is None
    assert Keys(tmp_path / "none").owner_of(f"Key {key}") is None


def test_the_file_does_not_hold_the_secret(tmp_path: Path) -> None:
    key = Keys(tmp_path).add("ada")
    secret = key.partition(":")[2]

    assert len(secret) >= 43  # 256 bits
    assert secret not in (tmp_path / FILE).read_text()
    assert {path.name for path in tmp_path.iterdir()} == {FILE}


def test_a_revoked_key_stops_working_in_a_running_studio(tmp_path: Path) -> None:
    running, command = Keys(tmp_path), Keys(tmp_path)
    key = command.add("ada")
    assert running.owner_of(f"Key {key}") == "ada"

    assert command.revoke(key.partition(":")[0])
    assert running.owner_of(f"Key {key}") is None
    assert not command.revoke(key.partition(":")[0])


def test_a_damaged_file_lets_nobody_in(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    key = keys.add("ada")
    for text in ("{", "[]", '{"keys": [{"id": "x"}]}', "\xff"):
        (tmp_path / FILE).write_text(text, encoding="latin-1")
        with pytest.raises(StorageFailed, match="expected a file of keys"):
            Keys(tmp_path).owner_of(f"Key {key}")


@pytest.mark.parametrize("owner", ["", "a b", "../x", "a\nb", "x" * 101, "ä"])
def test_an_owner_has_a_plain_name(tmp_path: Path, owner: str) -> None:
    with pytest.raises(InvalidRequest, match="^owner: expected 1 to 100"):
        Keys(tmp_path).add(owner)


def test_the_command_makes_lists_and_revokes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys_command(["add", "ada", "--label", "night job"], tmp_path) == 0
    key = capsys.readouterr().out.strip()
    assert Keys(tmp_path).owner_of(f"Key {key}") == "ada"

    assert keys_command(["list"], tmp_path) == 0
    shown = capsys.readouterr().out
    key_id, _, secret = key.partition(":")
    assert shown.startswith(f"{key_id}  ada  20")
    assert shown.endswith("Z  night job\n")
    assert secret not in shown

    assert keys_command(["revoke", key_id], tmp_path) == 0
    assert keys_command(["revoke", key_id], tmp_path) == 1
    assert "expected one that the list shows" in capsys.readouterr().err
    assert keys_command(["add", "a b"], tmp_path) == 1
    assert capsys.readouterr().err.startswith("owner: expected")
    assert json.loads((tmp_path / FILE).read_text()) == {"keys": []}
