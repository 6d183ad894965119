"""A ticket is good for one use, until its time is over, and only where it was written."""

import stat
import sys
from pathlib import Path

import pytest

from api.tickets import SECRET_BYTES, Tickets, read_secret


def test_a_ticket_is_recognised_until_its_time_is_over() -> None:
    now = [1000.0]
    tickets = Tickets(b"s" * 32, lambda: now[0])
    text = tickets.issue("put", {"owner": "ada", "n": 1}, 60)

    assert tickets.read("put", text) == {"owner": "ada", "n": 1}
    assert tickets.read("cdn", text) is None
    assert Tickets(b"t" * 32, lambda: now[0]).read("put", text) is None
    now[0] += 60
    assert tickets.read("put", text) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: "x" + t,
        lambda t: t.partition(".")[0],
        lambda t: t + "ä",
        lambda t: "",
    ],
)
def test_a_ticket_that_was_changed_is_none(change: object) -> None:
    tickets = Tickets(b"s" * 32)
    text = tickets.issue("put", {"owner": "ada"}, 60)

    assert tickets.read("put", change(text)) is None  # type: ignore[operator]
    assert tickets.read("put", None) is None
    assert tickets.read("put", "a" * 100_000) is None


def test_names_are_steady_and_not_to_be_guessed() -> None:
    tickets = Tickets(b"s" * 32)
    assert tickets.name("a") == Tickets(b"s" * 32).name("a")
    assert len({tickets.name("a"), tickets.name("b"), Tickets(b"t" * 32).name("a")}) == 3
    assert len(tickets.name("a")) == 32


def test_a_secret_is_drawn_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret.key"
    secret = read_secret(path)

    assert len(secret) == SECRET_BYTES
    assert read_secret(path) == secret
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"half")
    assert len(read_secret(path)) == SECRET_BYTES
    assert [item.name for item in path.parent.iterdir()] == ["secret.key"]
