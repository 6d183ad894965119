"""Kill the server right before each thing that it does to the output folder, and see whether its next life mends it.

    python -m tests.jobs.deaths
    python -m tests.jobs.deaths --without-links

Where `tests.jobs.kill_rounds` leaves the moment to luck, this takes all of them in turn: an audit hook counts what the
server does to files and kills it before the n-th, then a second life before a random one of its own, and a third has to
finish. Without links, the file system is one that knows no hard links.
"""

import argparse
import errno
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs import ThreadWorker
from tests.jobs.kill_rounds import add_foreign, audit, serve
from tests.jobs.scripted_engine import ScriptedEngine

TOUCHING = {"open", "os.link", "os.remove", "os.rename", "os.mkdir", "os.rmdir"}
"""The audit events that change files."""
SECOND = 8
"""A second life dies before one of its first so many acts, or not at all."""


def deaths(folder: Path, luck: random.Random, *, has_links: bool) -> Counter[str]:
    """Let servers die before their first act, their second and so on until one has nothing left to do."""
    found: Counter[str] = Counter()
    for act in range(1, 1000):
        home = folder / str(act)
        add_foreign(home)
        if not _live(home, act, has_links=has_links):
            return found
        found["deaths"] += 1 + _live(home, luck.randint(1, SECOND), has_links=has_links)
        found["broken"] += _live(home, None, has_links=has_links)
        found += audit(home, finished=True)
    raise AssertionError("a server that never comes to an end")


def _live(folder: Path, act: int | None, *, has_links: bool) -> bool:
    """Be a server in a process of its own; whether it died before the end."""
    child = os.fork()
    if child == 0:
        sys.addaudithook(_killer(str(folder / "outputs"), act, has_links=has_links))
        serve(folder, 1, lambda: ThreadWorker(ScriptedEngine))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status != 0


def _killer(
    folder: str, act: int | None, *, has_links: bool
) -> Callable[[str, tuple[Any, ...]], None]:
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event in TOUCHING and str(args[0]).startswith(folder):
            count += 1
            if count == act:
                os.kill(os.getpid(), signal.SIGKILL)
            if event == "os.link" and not has_links:
                raise OSError(errno.EPERM, "no hard links here")

    return hook


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill the server before each thing that it does.")
    parser.add_argument("--without-links", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    total: Counter[str] = Counter(
        dict.fromkeys(("lost", "twice", "torn", "foreign", "orphan files"), 0)
    )
    with tempfile.TemporaryDirectory() as folder:
        luck = random.Random(given.seed)
        total.update(deaths(Path(folder), luck, has_links=not given.without_links))
    print(" ".join(f"{key.replace(' ', '_')}={value}" for key, value in total.items()))  # noqa: T201


if __name__ == "__main__":
    main()
