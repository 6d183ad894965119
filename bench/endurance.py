"""Does the studio keep what it holds flat, job after job? Memory, open files, threads, temporary files, rows.

``python -m bench.endurance [--jobs 1000] [--pocket-jobs 200] [--write]`` starts the studio as ``python app.py`` does, first
with an engine that follows scripts, then with the pocket model, lets people and programs come and go (see
`bench.endurance_visitors`), and measures web and worker process whenever all is quiet. Linux only; everything goes over
loopback, and nothing is left behind but ``bench/ENDURANCE.md`` where it is asked for.
"""

import argparse
import asyncio
import contextlib
import datetime
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.api_load import ROOT, free_port, numbers, wait_ready
from bench.endurance_visitors import POCKET, SCRIPTED, PageForm, Visit, Visitor
from bench.footprint import Footprint, children, command_of, folder_size, footprint, slope

PAGE = ROOT / "bench" / "ENDURANCE.md"
TABLES = ("jobs", "images", "events", "calls", "lives")
AT_ONCE = 6
"""Visitors that are there at the same time."""
SAMPLES = 20
"""Measurements of a run."""
QUIET_S = 30.0
"""Longest wait until the studio is at rest."""
MB = 1e6
STEADY_MB = 1.0
"""Growth of a process for 100 jobs in MB that counts as none: caches with a limit still fill."""


GROWS = """\
What may grow, and how far: Gradio keeps the state of 100 tabs (some 0.5 MB each; here every visit of the first course opens
one), the studio 64 MB of thumbnails, its last 1,000 calls, and a line for each picture that a program can still fetch (1 kB, for a
week). `tests/test_endurance.py` holds in CI that every other table, thread and file is as it was after the first jobs. Traced over
100 jobs of the pocket model, Python's own objects grew by 0.4 MB, these tables among them; the rest of a slope is memory that the
allocators keep between them. All threads of the server share one heap (`app.prepare_process`): over 600 visits of the first kind by
six tabs, the own memory grew by 8 MB with it and by 23 MB without. The worker swings by some 25 MB, with what is painted together at
a time; over 600 visits of the second kind its slope was -0.3 MB per 100 jobs."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The studio at rest, after so many visits."""

    visits: int
    web: Footprint
    worker: Footprint
    folders: dict[str, tuple[int, int]]
    """Files and bytes by folder."""
    rows: dict[str, int]
    """By table."""


@dataclass(kw_only=True)
class Course:
    """One run: what was measured, and how the visits went."""

    title: str
    visits: tuple[Visit, ...]
    samples: list[Sample] = field(default_factory=list)
    went: Counter[str] = field(default_factory=Counter)
    """How the jobs of the run ended."""
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0


def serve(folder: Path, port: int, engine: str) -> int:
    """Be the studio; ``scripted`` replaces its engine."""
    import app
    from engine import Catalog
    from jobs import EngineSpec
    from settings import Settings, read_settings

    def scripted(settings: Settings, catalog: Catalog) -> EngineSpec:
        return EngineSpec(factory="bench.endurance:scripted_engine")

    if engine == "scripted":
        app.engine_spec = scripted
    flags = {"port": port, "data-dir": folder / "data", "output-dir": folder / "outputs"}
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    return app.serve(read_settings(arguments, {}))


def scripted_engine(*, device: str = "auto") -> Any:
    """Make the engine that follows scripts, on whatever device."""
    from jobs import EngineSpec

    facts = {"slots": 4, "step_s": 0.005}
    return EngineSpec(factory="tests.ui.painting_engine:PaintingEngine", kwargs=facts).build()


class Studio:
    """The studio in a process of its own, on a folder of its own."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.port = free_port()
        self.folder = folder
        command = [sys.executable, "-m", "bench.endurance", "--serve"]
        (folder / "tmp").mkdir()
        places = {"GRADIO_TEMP_DIR": str(folder / "gradio"), "TMPDIR": str(folder / "tmp")}
        with (folder / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, str(folder), str(self.port), engine],
                cwd=ROOT,
                env={**os.environ, **places},
                stdout=log,
                stderr=log,
            )
        wait_ready(self.port)

    def close(self) -> None:
        """Let it end."""
        self._process.terminate()
        self._process.wait(60)

    async def sample(self, visits: int) -> Sample:
        """Measure, once nothing is under way."""
        worker = await self._at_rest()
        names = ("data", "outputs", "gradio", "tmp", "data/inputs", "data/uploads", "data/files")
        return Sample(
            visits=visits,
            web=footprint(self._process.pid),
            worker=footprint(worker),
            folders={name: folder_size(self.folder / name) for name in names},
            rows=self._rows(),
        )

    async def _at_rest(self) -> int:
        """Wait until no job is left, one worker is there, and no connection but those of the studio itself; names the worker."""
        async with asyncio.timeout(QUIET_S):
            before = None
            while True:
                told = await numbers(self.port)
                left = sum(told[f'pochade_jobs{{state="{it}"}}'] for it in ("waiting", "running"))
                workers = [
                    it for it in children(self._process.pid) if "jobs.child" in command_of(it)
                ]
                ready = told['pochade_worker_state{state="ready"}']
                now = (footprint(self._process.pid).files, workers)
                if not left and ready and len(workers) == 1 and now == before:
                    return workers[0]
                before = now
                await asyncio.sleep(1.0)

    def _rows(self) -> dict[str, int]:
        path = self.folder / "data" / "pochade.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return {
                name: database.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0]
                for name in TABLES
            }


async def attend(studio: Studio, course: Course, jobs: int, *, keeps_tabs: bool) -> None:
    """Send so many visits, and measure `SAMPLES` times.

    Args:
        studio: Where to.
        course: Takes what is seen.
        jobs: How many visits.
        keeps_tabs: Whether those who are there at a time have a tab of the page each; else every visit opens one.
    """
    receiver = await asyncio.start_server(_take_webhook, "127.0.0.1", 0)
    webhook = f"http://127.0.0.1:{receiver.sockets[0].getsockname()[1]}/hook"
    base = f"http://127.0.0.1:{studio.port}"
    async with httpx.AsyncClient(base_url=base) as line:
        form = PageForm((await line.get("/config")).json())
        tabs = [Visitor(line, form, webhook).session for _ in range(AT_ONCE)]
    every = max(1, jobs // SAMPLES)
    started = asyncio.get_running_loop().time()
    for first in range(0, jobs, every):
        left = iter(range(first, min(first + every, jobs)))
        async with httpx.AsyncClient(base_url=base, timeout=120.0) as line:

            async def go_on(
                tab: str, line: httpx.AsyncClient = line, left: Iterator[int] = left
            ) -> None:
                for number in left:
                    visitor = Visitor(line, form, webhook)
                    visitor.session = tab if keeps_tabs else visitor.session
                    await _visit(visitor, course, number)

            await asyncio.gather(*map(go_on, tabs))
        course.samples.append(await studio.sample(min(first + every, jobs)))
        sys.stderr.write(_progress(course.samples[-1]))
    course.seconds = asyncio.get_running_loop().time() - started
    told = await numbers(studio.port)
    for state in ("finished", "failed", "stopped"):
        course.went[state] = int(told[f'pochade_jobs_ended_total{{state="{state}"}}'])
    receiver.close()


async def _visit(visitor: Visitor, course: Course, number: int) -> None:
    visit = course.visits[number % len(course.visits)]
    try:
        await visit(visitor, number)
    except (ValueError, KeyError, LookupError, httpx.HTTPError, TimeoutError) as error:
        name = getattr(visit, "__name__", "visit")
        course.errors.append(f"{number} {name}: {type(error).__name__} {error}")


async def _take_webhook(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, EOFError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
    writer.close()


def _progress(sample: Sample) -> str:
    return (
        f"{sample.visits}: web {sample.web.rss / MB:.1f} ({sample.web.own / MB:.1f}) MB"
        f" {sample.web.files} {sample.web.threads} threads; worker {sample.worker.rss / MB:.1f}"
        f" ({sample.worker.own / MB:.1f}) MB {sample.worker.files} {sample.worker.threads} threads;"
        f" {sample.folders['gradio']} {sample.folders['tmp']} {sample.rows}\n"
    )


def verdict(samples: Sequence[Sample], name: str) -> list[str]:
    """Write rows of the table of verdicts about a process, from the second half of the samples."""
    late = samples[len(samples) // 2 :]
    looks: list[Footprint] = [getattr(sample, name) for sample in late]
    places = [sample.visits / 100 for sample in late]
    rows = []
    for what, values in (
        ("own memory (anonymous)", [it.own / MB for it in looks]),
        ("resident memory (RSS)", [it.rss / MB for it in looks]),
    ):
        grows = slope(places, values)
        word = "flat" if grows < STEADY_MB else "grows"
        shown = f"{values[0]:.1f} to {values[-1]:.1f} MB, {grows:+.2f} MB per 100 jobs"
        rows.append(f"| {name} | {what} | {shown} | {word} |")
    for what, counts in (
        ("open files", [it.open_files for it in looks]),
        ("threads", [it.threads for it in looks]),
    ):
        word = "flat" if max(counts) == min(counts) else f"differ by {max(counts) - min(counts)}"
        rows.append(f"| {name} | {what} | {min(counts)} to {max(counts)} | {word} |")
    return rows


def report(course: Course) -> str:
    """Write the part of the page that is about a run."""
    first, last = course.samples[0], course.samples[-1]
    ended = ", ".join(f"{count} {state}" for state, count in course.went.items())
    middle = course.samples[len(course.samples) // 2].visits
    lines = [
        f"## {course.title}",
        "",
        f"{last.visits} visits of {len(course.visits)} kinds in {course.seconds / 60:.0f} minutes, {AT_ONCE} at a time;"
        f" jobs: {ended}; unexpected answers: {len(course.errors)}.",
        "",
        f"| process | what | from visit {middle} to {last.visits} | |",
        "|---|---|---|---|",
        *verdict(course.samples, "web"),
        *verdict(course.samples, "worker"),
        "",
        "| visits | web: own | USS | PSS | RSS | files | threads | worker: own | USS | PSS | RSS | files | threads |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(it) for it in course.samples),
        "",
        f"| | after {first.visits} | after {last.visits} |",
        "|---|---|---|",
        *(
            f"| files below `{name}` | {before[0]}, {before[1] / MB:.2f} MB | {last.folders[name][0]},"
            f" {last.folders[name][1] / MB:.2f} MB |"
            for name, before in first.folders.items()
        ),
        *(f"| rows of `{name}` | {first.rows[name]} | {last.rows[name]} |" for name in TABLES),
        "",
    ]
    return "\n".join(lines)


def _row(sample: Sample) -> str:
    cells = [str(sample.visits)]
    for it in (sample.web, sample.worker):
        cells += [f"{size / MB:.1f}" for size in (it.own, it.uss, it.pss, it.rss)]
        cells += [str(it.open_files), str(it.threads)]
    return "| " + " | ".join(cells) + " |"


def page(courses: Sequence[Course], load: float) -> str:
    """Write the page of results; `load` is that of the machine before."""
    flags = " ".join(
        f"{flag} {course.samples[-1].visits}"
        for flag, course in zip(("--jobs", "--pocket-jobs"), courses, strict=False)
    )
    day = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    parts = [
        "# Endurance",
        "",
        f"Made by `python -m bench.endurance {flags} --write` on {day}: {os.cpu_count()} cores of {platform.machine()}, Python"
        f" {platform.python_version()}, load {load:.1f} at the start, while other programs used a part of the machine. The studio"
        " is the one that `python app.py` starts. It is measured whenever no job is left and nobody is connected; slopes are"
        " least squares over the second half of the measurements.",
        "",
        GROWS,
        "",
        *(report(course) for course in courses),
    ]
    return "\n".join(parts)


def run(course: Course, engine: str, jobs: int, *, keeps_tabs: bool) -> None:
    """Start the studio, let it be visited, end it."""
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Path(folder), engine)
        try:
            asyncio.run(attend(studio, course, jobs, keeps_tabs=keeps_tabs))
        finally:
            studio.close()
            kept = os.environ.get("POCHADE_ENDURANCE_LOG")
            if kept:
                Path(kept).write_bytes((Path(folder) / "log.txt").read_bytes())
    for error in course.errors[:10]:
        sys.stderr.write(f"{error}\n")


def main() -> int:
    """Run both courses and print the page; returns 1 where a visit went otherwise than it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs=3, metavar=("DIR", "PORT", "ENGINE"))
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--pocket-jobs", type=int, default=200)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args()
    if given.serve:
        folder, port, engine = given.serve
        return serve(Path(folder), int(port), engine)
    load = os.getloadavg()[0]
    courses = []
    if given.jobs:
        course = Course(title="With the scripted engine", visits=SCRIPTED)
        run(course, "scripted", given.jobs, keeps_tabs=False)
        courses.append(course)
    if given.pocket_jobs:
        course = Course(title="With the pocket model", visits=POCKET)
        run(course, "pocket", given.pocket_jobs, keeps_tabs=True)
        courses.append(course)
    text = page(courses, load)
    if given.write:
        PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 1 if any(course.errors for course in courses) else 0


if __name__ == "__main__":
    sys.exit(main())
