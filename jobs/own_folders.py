"""Folders below the system's one for temporary files that end with the process they belong to, even when it is killed."""

import os
import shutil
import tempfile
from pathlib import Path


def own_folder(kind: str) -> Path:
    """Make a folder for this process, which nobody else can read, and remove those of processes that are no more.

    Args:
        kind: Word that the name begins with.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{kind}-*-*"):
        number = path.name.removeprefix(f"{kind}-").partition("-")[0]
        if number.isdigit() and _is_ours(path) and not _is_alive(int(number)):
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{kind}-{os.getpid()}-"))


def _is_ours(path: Path) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_uid == os.getuid()
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
