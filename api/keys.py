"""Keys: who a program is. Made and revoked by a command, kept as hashes, each belongs to an owner.

The file is read again when it changes, so a key that is revoked while the studio runs stops working at once.
"""

import argparse
import hashlib
import hmac
import json
import re
import secrets
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine import EngineError, InvalidRequest
from jobs import StorageFailed
from jobs.files import write_whole

FILE = "keys.json"
_OWNER = re.compile(r"[\w.@+-]{1,100}", re.ASCII)
_SCHEMES = ("key", "bearer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key, without its secret."""

    id: str
    owner: str
    """Whose jobs and files its programs see."""
    label: str
    """What its owner calls it."""
    sha256: str
    """Hash of the whole key in hex; it has 256 random bits, so a plain hash cannot be undone."""
    made_at: float
    """Unix time."""


class Keys:
    """The keys that are valid now, in one file."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._keys: Mapping[str, Key] = {}

    def add(self, owner: str, label: str = "") -> str:
        """Make a key, ``id:secret``; it is not kept, so it can be shown only now.

        Raises:
            InvalidRequest: the owner's name is none, or the label is too long.
        """
        if not _OWNER.fullmatch(owner):
            rule = "expected 1 to 100 letters, digits or any of . _ @ + -"
            raise InvalidRequest("owner", f"{rule}, got {owner[:100]!r}")
        if len(label) > 100 or not label.isprintable():
            raise InvalidRequest("label", f"expected at most 100 characters, got {label[:100]!r}")
        key_id = secrets.token_hex(8)
        text = f"{key_id}:{secrets.token_urlsafe(32)}"
        made = Key(id=key_id, owner=owner, label=label, sha256=_hash(text), made_at=time.time())
        self._write([*self.list(), made])
        return text

    def revoke(self, key_id: str) -> bool:
        """Make a key worthless; False when there is none of that id."""
        left = [key for key in self.list() if key.id != key_id]
        if len(left) == len(self.list()):
            return False
        self._write(left)
        return True

    def list(self) -> list[Key]:
        """List the keys, the oldest first."""
        return list(self._read().values())

    def owner_of(self, authorization: str | None) -> str | None:
        """Say whose key a header ``Authorization`` holds, ``Key id:secret`` or ``Bearer id:secret``; None: nobody's."""
        scheme, _, text = (authorization or "").strip().partition(" ")
        text = text.strip()
        if scheme.lower() not in _SCHEMES:
            return None
        key = self._read().get(text.partition(":")[0])
        is_it = hmac.compare_digest(_hash(text), key.sha256 if key else "")
        return key.owner if key and is_it else None

    def _read(self) -> Mapping[str, Key]:
        """Return the keys by id; reads the file when it has changed.

        Raises:
            StorageFailed: the file cannot be read; nobody is let in by mistake.
        """
        with self._lock:
            try:
                facts = self._path.stat()
                seen = (facts.st_mtime_ns, facts.st_ino)
                if seen != self._seen:
                    items = json.loads(self._path.read_text(encoding="utf-8"))["keys"]
                    self._keys = {item["id"]: Key(**item) for item in items}
                    self._seen = seen
            except FileNotFoundError:
                self._keys, self._seen = {}, None
            except (OSError, ValueError, TypeError, KeyError) as error:
                problem = f"{FILE}: expected a file of keys, got {type(error).__name__}"
                raise StorageFailed(problem) from error
            return self._keys

    def _write(self, keys: Sequence[Key]) -> None:
        text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=1)
        write_whole(self._path, text.encode())


def keys_command(arguments: Sequence[str], data_dir: Path) -> int:
    """Run ``python app.py keys ...``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="app.py keys", description="Keys for programs.")
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="make a key; it is shown once")
    add.add_argument("owner", help="whose jobs and files its programs see")
    add.add_argument("--label", default="", help="what the key is for")
    actions.add_parser("list", help="list the keys, without their secrets")
    revoke = actions.add_parser("revoke", help="make a key worthless")
    revoke.add_argument("id", help="as the list shows it")
    asked = parser.parse_args(arguments)
    keys = Keys(data_dir)
    try:
        if asked.action == "add":
            sys.stdout.write(f"{keys.add(asked.owner, asked.label)}\n")
        elif asked.action == "list":
            sys.stdout.writelines(map(_line, keys.list()))
        elif not keys.revoke(asked.id):
            sys.stderr.write(f"id: expected one that the list shows, got {asked.id!r}\n")
            return 1
    except (EngineError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _line(key: Key) -> str:
    made = datetime.fromtimestamp(key.made_at, UTC)
    return f"{key.id}  {key.owner}  {made:%Y-%m-%d %H:%M}Z  {key.label}".rstrip() + "\n"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
