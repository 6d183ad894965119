"""Passwords as hashes: argon2id, slow on purpose, so that a stolen file tells little."""

from dataclasses import dataclass
from functools import cached_property

from engine import InvalidRequest

SHORTEST, LONGEST = 8, 200
"""Length of a password in characters."""


@dataclass(frozen=True)
class Cost:
    """What one look at a password costs; the usual values are the second choice of RFC 9106."""

    passes: int = 3
    kibibytes: int = 65536
    lanes: int = 4


def require_password(password: str) -> None:
    """Refuse what may be no password.

    Raises:
        InvalidRequest: it is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        rule = f"expected {SHORTEST} to {LONGEST} characters"
        raise InvalidRequest("password", f"{rule}, got {len(password)}")


class Passwords:
    """Makes hashes and compares with them. Safe to use from any thread."""

    def __init__(self, cost: Cost) -> None:
        from argon2 import PasswordHasher

        self._hasher = PasswordHasher(
            time_cost=cost.passes, memory_cost=cost.kibibytes, parallelism=cost.lanes
        )

    def hash(self, password: str) -> str:
        """Make the hash of a password, with a salt of its own.

        Raises:
            InvalidRequest: it is too short or too long.
        """
        require_password(password)
        return self._hasher.hash(_bytes(password))

    def is_right(self, password: str, hashed: str | None) -> bool:
        """Compare a password with a hash; None, of a person that is not there, takes as long and is never right."""
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            self._hasher.verify(hashed or self._nobody, _bytes(password[: LONGEST + 1]))
        except (VerificationError, InvalidHashError):
            return False
        return hashed is not None

    @cached_property
    def _nobody(self) -> str:
        return self._hasher.hash(b"nobody's password")


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
