"""Who comes in: names and passwords become logins, and logins become visitors."""

import logging
import math
from dataclasses import dataclass, field

from api.tickets import Tickets
from engine import EngineError
from people.lockout import Lockout
from people.roster import People, Person, Role

log = logging.getLogger(__name__)

COOKIE = "pochade_login"
LOGIN_S = 14 * 24 * 3600.0
"""How long a login lasts, in seconds."""
LOCAL = "local"
"""Whose everything is where nobody has to log in."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks."""

    name: str
    role: Role
    has_login: bool = True
    """False where nobody has to log in, because the studio has no people and only this machine reaches it, or on a Space."""
    cookie: str | None = field(default=None, compare=False)
    """What a browser is to keep so that it is known again, as the header ``Set-Cookie`` has it; None where it does already."""


class WrongPassword(EngineError):
    """Name or password is wrong; which of the two, nobody is told."""

    kind = "wrong_password"

    def __init__(self) -> None:
        super().__init__("Name or password is wrong.")


class TooManyTries(EngineError):
    """A password was not looked at, because too many wrong ones came before."""

    kind = "too_many_tries"

    def __init__(self, wait_s: float) -> None:
        self.wait_s = math.ceil(wait_s)
        seconds = "1 second" if self.wait_s == 1 else f"{self.wait_s} seconds"
        super().__init__(f"Too many wrong tries. Try again in {seconds}.")


class Entrance:
    """Checks passwords and recognises its own logins. Safe to use from any thread."""

    def __init__(
        self,
        people: People,
        tickets: Tickets,
        *,
        is_home: bool,
        lockout: Lockout | None = None,
    ) -> None:
        """Put it together.

        Args:
            people: Who may come in.
            tickets: Signs logins, and what else people hand on.
            is_home: Whether anybody may come in while there are no people.
            lockout: Slows down who guesses.
        """
        self.people = people
        self.tickets = tickets
        self._is_home = is_home
        self._lockout = lockout or Lockout()

    def begin(self, name: str, address: str) -> None:
        """Count a try, before its password is looked at.

        Raises:
            TooManyTries: it has to wait.
        """
        wait_s = self._lockout.begin(name, address)
        if wait_s > 0:
            raise TooManyTries(wait_s)

    def login(self, name: str, password: str, address: str) -> str:
        """Look at a password that `begin` let through; returns the login, a text that only we can write. Slow on purpose.

        Raises:
            WrongPassword: name or password is wrong.
            StorageFailed: the people cannot be read.
        """
        person = self.people.check(name, password)
        if person is None:
            log.warning("login: wrong name or password, %r from %s", name[:100], address)
            raise WrongPassword
        self._lockout.forgive(name, address)
        log.info("login: %s", person.name)
        return self._login_of(person)

    def change_password(self, name: str, old: str, new: str, address: str) -> str:
        """Give a person a new password for the old one, which `begin` let through; ends all logins but the one it returns.

        Raises:
            WrongPassword: the old one is wrong.
            InvalidRequest: the new one is too short or too long, or the name is no person's.
            StorageFailed: the people cannot be read or written.
        """
        if self.people.check(name, old) is None:
            log.warning("password: wrong old one, %r from %s", name[:100], address)
            raise WrongPassword
        self._lockout.forgive(name, address)
        self.people.set_password(name, new)
        log.info("password: %s has another one", name)
        person = self.people.find(name)
        if person is None:  # removed in this very moment
            raise WrongPassword
        return self._login_of(person)

    def _login_of(self, person: Person) -> str:
        return self.tickets.issue("login", {"name": person.name, "stamp": person.stamp}, LOGIN_S)

    def visitor(self, cookies: str) -> Visitor | None:
        """Name who asks by the header ``Cookie``; None has to log in first.

        Raises:
            StorageFailed: the people cannot be read.
        """
        if not self.people.list():
            return Visitor(LOCAL, "owner", has_login=False) if self._is_home else None
        facts = self.tickets.read("login", cookie_of(cookies, COOKIE))
        person = None if facts is None else self.people.find(str(facts["name"]))
        if facts is None or person is None or person.stamp != facts["stamp"]:
            return None
        return Visitor(person.name, person.role)


def cookie_of(cookies: str, wanted: str) -> str | None:
    """Find one cookie in the header ``Cookie``."""
    for part in cookies.split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted:
            return value
    return None
