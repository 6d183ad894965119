"""What a process holds: memory, open files, threads; and how fast a number grows. Linux only; knows nothing of studios."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KIB = 1024
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """One process at one moment."""

    rss: int
    """Resident memory in bytes."""
    pss: int
    """The same, where shared pages count by their share."""
    uss: int
    """What would be free if it ended; it changes with whoever else has the same libraries loaded."""
    own: int
    """Memory that is of no file: what the process itself has filled."""
    files: dict[str, int] = field(default_factory=dict)
    """Open files by kind: ``socket``, ``pipe``, ``anon``, ``file``."""
    threads: int = 0

    @property
    def open_files(self) -> int:
        """All open files."""
        return sum(self.files.values())


def footprint(pid: int) -> Footprint:
    """Look at a process.

    Raises:
        OSError: there is none of that id.
    """
    rows = _rows((PROC / str(pid) / "smaps_rollup").read_text())
    status = _rows((PROC / str(pid) / "status").read_text())
    return Footprint(
        rss=rows["Rss"] * KIB,
        pss=rows["Pss"] * KIB,
        uss=(rows["Private_Clean"] + rows["Private_Dirty"]) * KIB,
        own=rows["Anonymous"] * KIB,
        files=dict(Counter(_kinds(pid))),
        threads=status["Threads"],
    )


def children(pid: int) -> list[int]:
    """List the processes that a process started."""
    found = []
    for task in (PROC / str(pid) / "task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def command_of(pid: int) -> str:
    """Write the command line of a process."""
    return (PROC / str(pid) / "cmdline").read_text().replace("\0", " ")


def folder_size(folder: Path) -> tuple[int, int]:
    """Count the files below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """Fit a line by least squares; returns how much `values` grow for each one of `places`."""
    count = len(places)
    middle_x, middle_y = sum(places) / count, sum(values) / count
    spread = sum((x - middle_x) ** 2 for x in places)
    together = sum((x - middle_x) * (y - middle_y) for x, y in zip(places, values, strict=True))
    return together / spread


def _kinds(pid: int) -> Iterator[str]:
    for entry in (PROC / str(pid) / "fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue  # closed meanwhile
        kind = target.partition(":")[0]
        yield {"anon_inode": "anon"}.get(kind, kind) if ":" in target else "file"


def _rows(text: str) -> dict[str, int]:
    """Read ``Name: 12 kB`` lines; what is no number is left out."""
    rows = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            rows[name] = int(number[0])
    return rows
