"""Permissions that travel as text: signed with a secret of this studio, for one use, until a time. Nothing of them is kept."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SECRET_BYTES = 32
MAX_TICKET = 4096
"""Longest ticket in characters."""


class Tickets:
    """Writes permissions and recognises its own."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock

    def issue(self, use: str, facts: Mapping[str, Any], seconds: float) -> str:
        """Write a permission, in characters that need no escaping in an address.

        Args:
            use: What it is good for; it is worthless for anything else.
            facts: What is permitted to whom, in JSON types; they can be read by who holds the ticket.
            seconds: How long it is good.
        """
        content = {"use": use, "until": self._clock() + seconds, "facts": dict(facts)}
        body = _to_text(json.dumps(content, separators=(",", ":")).encode())
        return f"{body}.{self._sign(body)}"

    def read(self, use: str, text: str | None) -> Mapping[str, Any] | None:
        """Read the facts of a permission; None when it is not one of ours, for another use, or too old."""
        if not text or len(text) > MAX_TICKET or not text.isascii():
            return None
        body, _, signature = text.partition(".")
        if not hmac.compare_digest(signature, self._sign(body)):
            return None
        content = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        is_good = content["use"] == use and self._clock() < content["until"]
        return content["facts"] if is_good else None

    def name(self, text: str) -> str:
        """Make a name of 32 characters that always is the same for a text and that nobody else can guess."""
        return _to_text(hmac.digest(self._secret, b"name\0" + text.encode(), "sha256")[:24])

    def _sign(self, body: str) -> str:
        return _to_text(hmac.digest(self._secret, b"ticket\0" + body.encode(), hashlib.sha256))


def read_secret(path: Path) -> bytes:
    """Read the secret in a file; the first time it is drawn, and written so that only its owner can read it.

    Raises:
        OSError: it can be neither read nor written.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.read_bytes()
        if len(found) == SECRET_BYTES:
            return found
        path.unlink()  # a power cut left less than a whole secret
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path.read_bytes()


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
