"""What people say of a file, made safe: its name, its type, how long it is to live."""

import contextlib
import json
import mimetypes
import re
import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import PureWindowsPath

MAX_NAME = 100
UNKNOWN_TYPE = "application/octet-stream"
_TOKEN = re.compile(r"[\w-]{32}", re.ASCII)
_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,100}", re.ASCII)
_ENDINGS = {"image/jpeg": ".jpg", UNKNOWN_TYPE: ".bin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What is known of a file before it is here."""

    owner: str
    content_type: str = UNKNOWN_TYPE
    """What it is said to be."""
    file_name: str | None = None
    """What it is said to be called; None makes a name up."""
    token: str | None = None
    """What was promised for its address; None draws one. A file that has it already is replaced."""
    seconds: float | None = None
    """How long it is to be kept; None is as long as may be."""

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise ValueError("token: expected one that was drawn here")


def safe_name(name: str | None, content_type: str) -> str:
    """Make a file name of plain characters out of what somebody calls a file; None makes one up."""
    ending = _ENDINGS.get(content_type) or mimetypes.guess_extension(safe_type(content_type))
    last = PureWindowsPath((name or "").replace("\0", "")).name
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).lstrip(".-_")
    if not plain.strip("._-"):
        return f"{secrets.token_hex(6)}{ending or '.bin'}"
    stem, dot, suffix = plain.rpartition(".")
    if dot and stem and len(suffix) < 20:
        return f"{stem[: MAX_NAME - 1 - len(suffix)]}.{suffix}"
    return plain[:MAX_NAME]


def safe_type(content_type: str) -> str:
    """Take the media type out of what somebody says a file is, without parameters; nonsense becomes plain bytes."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind if _TYPE.fullmatch(kind) else UNKNOWN_TYPE


def seconds_of(lifecycle: str | None) -> float | None:
    """Read the lifetime out of fal's lifecycle header; None when it says nothing of it."""
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        seconds = float(json.loads((lifecycle or "")[:2000])["expiration_duration_seconds"])
        if seconds > 0:
            return seconds
    return None
