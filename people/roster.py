"""The people of a studio in one file: name, role, and the hash of a password.

The file is read again when it changes, so whoever is removed while the studio runs is out at once.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from engine import InvalidRequest
from jobs import StorageFailed
from jobs.files import write_whole
from people.passwords import Cost, Passwords

FILE = "people.json"
MAX_PEOPLE = 1000
Role = Literal["owner", "guest"]
_NAME = re.compile(r"[\w.@+-]{1,100}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One who may use the page."""

    name: str
    """Whose jobs and pictures are shown; the owner of a key by the same name sees the same."""
    role: Role
    hash: str
    """Of the password, with salt and cost."""
    made_at: float
    """Unix time."""

    @property
    def stamp(self) -> str:
        """Changes with the password, so that older logins end."""
        return hashlib.sha256(self.hash.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """One who was removed, and whose things are still to be seen to."""

    name: str
    with_pictures: bool = False
    """Whether the pictures go too."""


class People:
    """Everybody who may use the page now. Safe to use from any thread."""

    def __init__(self, data_dir: Path, cost: Cost | None = None) -> None:
        """Open the file in a data folder; `cost` is that of new passwords and of wrong names."""
        self._path = data_dir / FILE
        self._passwords = Passwords(cost or Cost())
        self._lock = threading.RLock()
        self._seen: tuple[int, int] | None = None
        self._people: Mapping[str, Person] = {}
        self._gone: Sequence[Departure] = ()

    def add(self, name: str, password: str, role: str = "guest") -> None:
        """Let a person in.

        Raises:
            InvalidRequest: the name is none or is taken, the password too short, or the role unknown.
            StorageFailed: the file cannot be read or written.
        """
        if not _NAME.fullmatch(name):
            rule = "expected 1 to 100 letters, digits or any of . _ @ + -"
            raise InvalidRequest("name", f"{rule}, got {name[:100]!r}")
        made = Person(
            name=name,
            role=_role(role),
            hash=self._passwords.hash(password),
            made_at=time.time(),
        )
        with self._lock:
            there = self.list()
            if self.find(name) is not None:
                raise InvalidRequest("name", f"expected one that is free, got {name!r}")
            if len(there) >= MAX_PEOPLE:
                raise InvalidRequest("name", f"expected at most {MAX_PEOPLE} people")
            self._write([*there, made], self.departed())

    def remove(self, name: str, *, with_pictures: bool = False) -> Person:
        """Let a person in no more, whom it returns. The rest is for whoever has the queue: see `departed`.

        Args:
            name: Of the person.
            with_pictures: Whether the pictures are to go too; else they stay, for whoever has that name again.

        Raises:
            InvalidRequest: there is none of that name.
            StorageFailed: the file cannot be read or written.
        """
        with self._lock:
            gone = self._known(name)
            departure = Departure(name=gone.name, with_pictures=with_pictures)
            self._write(
                [item for item in self.list() if item != gone], [*self.departed(), departure]
            )
            return gone

    def departed(self) -> Sequence[Departure]:
        """List those who were removed and whose jobs, and pictures where that was wanted, are still there."""
        with self._lock:
            self._read()
            return self._gone

    def settle(self, done: Departure) -> None:
        """Forget one whose things have been seen to.

        Raises:
            StorageFailed: the file cannot be read or written.
        """
        with self._lock:
            self._write(self.list(), [item for item in self.departed() if item != done])

    def set_password(self, name: str, password: str) -> None:
        """Give a person another password; who came in by the old one has to log in again.

        Raises:
            InvalidRequest: there is none of that name, or the password is too short.
            StorageFailed: the file cannot be read or written.
        """
        self._known(name)
        hashed = self._passwords.hash(password)
        self._replace(name, lambda it: replace(it, hash=hashed))

    def set_role(self, name: str, role: str) -> None:
        """Make a person an owner or a guest.

        Raises:
            InvalidRequest: there is none of that name, or no such role.
            StorageFailed: the file cannot be read or written.
        """
        wanted = _role(role)
        self._replace(name, lambda it: replace(it, role=wanted))

    def list(self) -> list[Person]:
        """List everybody, in the order in which they came."""
        return list(self._read().values())

    def find(self, name: str) -> Person | None:
        """Find a person; capital letters make no other name."""
        return self._read().get(name.casefold())

    def check(self, name: str, password: str) -> Person | None:
        """Find a person by name and password; takes as long for a name that is nobody's."""
        found = self.find(name)
        is_right = self._passwords.is_right(password, None if found is None else found.hash)
        return found if is_right else None

    def is_last_owner(self, name: str) -> bool:
        """Whether nobody would be left who may let people in."""
        owners = [item.name for item in self.list() if item.role == "owner"]
        return [it.casefold() for it in owners] == [name.casefold()]

    def _known(self, name: str) -> Person:
        found = self.find(name)
        if found is None:
            raise InvalidRequest("name", f"expected one of a person here, got {name[:100]!r}")
        return found

    def _replace(self, name: str, change: Callable[[Person], Person]) -> None:
        with self._lock:
            old = self._known(name)
            people = [change(item) if item == old else item for item in self.list()]
            self._write(people, self.departed())

    def _read(self) -> Mapping[str, Person]:
        """Return the people by name in small letters; reads the file when it has changed.

        Raises:
            StorageFailed: the file cannot be read; nobody is let in by mistake.
        """
        with self._lock:
            try:
                facts = self._path.stat()
                seen = (facts.st_mtime_ns, facts.st_ino)
                if seen != self._seen:
                    held = json.loads(self._path.read_text(encoding="utf-8"))
                    gone = [Departure(**item) for item in held.get("gone", ())]
                    people = {item["name"].casefold(): Person(**item) for item in held["people"]}
                    self._people, self._gone = people, gone
                    self._seen = seen
            except FileNotFoundError:
                self._people, self._gone, self._seen = {}, (), None
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                problem = f"{FILE}: expected a file of people, got {type(error).__name__}"
                raise StorageFailed(problem) from error
            return self._people

    def _write(self, people: Sequence[Person], gone: Sequence[Departure]) -> None:
        held = {"people": [*map(asdict, people)], "gone": [*map(asdict, gone)]}
        text = json.dumps(held, indent=1)
        try:
            write_whole(self._path, text.encode())
            self._path.chmod(0o600)
        except OSError as error:
            raise StorageFailed(f"{FILE}: it cannot be written ({error.strerror})") from error


def _role(role: str) -> Role:
    match role:
        case "owner" | "guest":
            return role
        case _:
            raise InvalidRequest("role", f"expected owner or guest, got {role[:40]!r}")
