"""Stands in for a read-only disk: a process that starts with this on its path can only write where it may, and tells of the rest.

``SPACE_MAY_WRITE`` names the folders, ``SPACE_REFUSED`` the file that every refused write is noted in. Python writes compiled
modules only where it can, so those are refused and not noted.
"""

import errno
import os
import sys

MAY = tuple(os.environ["SPACE_MAY_WRITE"].split(os.pathsep))
NOTES = os.open(os.environ["SPACE_REFUSED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"}
CHANGES |= {"os.chmod", "os.utime", "os.mkfifo", "sqlite3.connect"}


def look(event, arguments):
    if event == "open":
        paths = [arguments[0]] if (arguments[2] or 0) & WRITING else []
    else:
        paths = (
            arguments[: 2 if event in ("os.rename", "os.link") else 1] if event in CHANGES else []
        )
    for path in paths:
        if not isinstance(path, (str, bytes, os.PathLike)):
            continue
        place = os.path.realpath(os.fsdecode(path))
        if place.startswith("/dev/") or any(f"{place}/".startswith(f"{it}/") for it in MAY):
            continue
        if "__pycache__" not in place:
            os.write(NOTES, f"{event} {place}\n".encode())
        raise PermissionError(errno.EACCES, "read-only here", place)


sys.addaudithook(look)

if "SPACE_WITHOUT_CUDA" in os.environ:
    import without_cuda  # noqa: F401
