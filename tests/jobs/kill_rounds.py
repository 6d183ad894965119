"""Kill the server and its worker at random moments, and see whether anything is lost or done twice.

    python -m tests.jobs.kill_rounds --rounds 10 --jobs 20
    python -m tests.jobs.kill_rounds --snapshots 50

Each round submits jobs, kills the worker once and the server once (SIGKILL), lets a last server finish, and audits what
is on disk. Snapshots stop the server for a moment, as a power cut would for good, and audit a copy of its folders. The
output folder holds files of other programs as well, which nobody may touch.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jobs import EngineSpec, Jobs, JobSettings, ProcessWorker
from jobs.protocol import Worker
from tests.jobs.scripted_engine import picture, toy_plan

ROOT = Path(__file__).parents[2]
SPEC = EngineSpec(
    factory="tests.jobs.scripted_engine:ScriptedEngine", kwargs={"slots": 4, "step_s": 0.02}
)
IMAGES, STEPS, SIZE = 2, 6, 30_000
ENDS = {"Finished", "Failed", "Stopped"}
FOREIGN = (
    "holiday.png",
    ".2026-01-02_03-04-05_1000.png.part",
    "2026-01-02/2026-01-02_03-04-05_1000.png",
    "2026-01-02/.2026-01-02_03-04-05_1001.png.0b7e1cbe-0000-4000-8000-000000000000.part",
    "2026-01-02/log.html",
)
"""Files in the output folder that are not ours."""


class KnownWorker(ProcessWorker):
    """A worker process whose id is written down, so that it can be killed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(SPEC)
        self._file = folder / "worker.pid"

    def start(self) -> None:
        super().start()
        self._file.write_text(str(self.pid), encoding="utf-8")


def serve(folder: Path, count: int, worker: Callable[[], Worker]) -> None:
    """Be a server: submit what is missing of `count` jobs, note each id that was returned, stay until all are over."""
    settings = JobSettings(data_dir=folder / "data", output_dir=folder / "outputs", backoff_s=0.1)
    jobs = Jobs(settings, worker)
    jobs.start()
    for _ in range(count - len(acknowledged(folder))):
        job_id = jobs.submit(
            toy_plan(f"steps={STEPS} bytes={SIZE}", images=IMAGES), inputs={"a": os.urandom(999)}
        )
        with (folder / "acknowledged").open("a", encoding="utf-8") as file:
            file.write(f"{job_id}\n")
    while jobs.active(owner="local"):
        time.sleep(0.05)
    jobs.close()


def acknowledged(folder: Path) -> list[str]:
    """The ids that `submit` returned."""
    path = folder / "acknowledged"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def add_foreign(folder: Path) -> None:
    """Put files of other programs into the output folder."""
    for name in FOREIGN:
        path = folder / "outputs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")


def kill_round(folder: Path, count: int, luck: random.Random) -> Counter[str]:
    """Kill a worker and a server, each at a random moment, finish, audit."""
    found: Counter[str] = Counter()
    add_foreign(folder)
    server = _server(folder, count)
    for target in luck.sample(["worker", "server"], 2):
        time.sleep(luck.uniform(0.8, 3.0))
        if target == "worker":
            found["kills"] += _kill(_worker_pid(folder))
        else:
            orphan = _worker_pid(folder)
            found["kills"] += _kill(server.pid)
            server.wait()
            found["orphan processes"] += not _gone(orphan)
            server = _server(folder, count)
    if server.wait(timeout=120) != 0:
        found["broken"] += 1
    return found + audit(folder, finished=True)


def snapshot_round(folder: Path, count: int, luck: random.Random) -> Counter[str]:
    """Copy a working server's folders at random instants and audit the copies."""
    found: Counter[str] = Counter()
    add_foreign(folder / "live")
    server = _server(folder / "live", 40)
    for number in range(count):
        time.sleep(luck.uniform(0.05, 0.4))
        copy = folder / f"copy {number}"
        server.send_signal(signal.SIGSTOP)
        shutil.copytree(folder / "live", copy)
        server.send_signal(signal.SIGCONT)
        found += audit(copy, finished=False)
        found["snapshots"] += 1
        shutil.rmtree(copy)
        if server.poll() is not None:
            shutil.rmtree(folder / "live")
            add_foreign(folder / "live")
            server = _server(folder / "live", 40)
    _kill(server.pid)
    server.wait()
    return found


def audit(folder: Path, *, finished: bool) -> Counter[str]:
    """Count what is wrong in a server's folders; with `finished`, every job has to be."""
    known = acknowledged(folder)
    found = Counter({"jobs": len(known)})
    foreign = [folder / "outputs" / name for name in FOREIGN]
    found["foreign"] += sum(not path.exists() for path in foreign)
    database = folder / "data" / "pochade.sqlite"
    if not database.exists():
        found["lost"] += len(known)
        return found
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found["broken"] += connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok"
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
            found["lost"] += len(known)
            return found
        states = dict(connection.execute("SELECT id, state FROM jobs"))
        images = list(connection.execute("SELECT job_id, place, path FROM images"))
        inputs = [json.loads(text) for (text,) in connection.execute("SELECT inputs FROM jobs")]
        bodies = connection.execute("SELECT job_id, body FROM events").fetchall()
    ends = Counter(job_id for job_id, body in bodies if json.loads(body)["event"] in ENDS)
    found["lost"] += sum(job_id not in states for job_id in known)
    found["twice"] += sum(number > 1 for number in ends.values())
    found["twice"] += len(images) - len({image[:2] for image in images})
    found["torn"] += sum(
        not _is_whole(folder / "outputs" / path, job_id, place) for job_id, place, path in images
    )
    found["torn"] += sum(
        not (folder / "data" / "inputs" / digest).exists()
        for item in inputs
        for digest in item.values()
    )
    files = {path for path in (folder / "outputs").rglob("*") if path.is_file()} - set(foreign)
    found["torn"] += sum(
        path.stat().st_size != SIZE for path in files if not path.name.startswith(".")
    )
    if finished:
        found["lost"] += sum(state != "finished" for state in states.values())
        found["lost"] += len(states) * IMAGES - len(images)
        found["orphan files"] += len(files) - len(images)
    return found


def _is_whole(path: Path, job_id: str, place: int) -> bool:
    return path.exists() and path.read_bytes() == picture(job_id, place, SIZE)


def _server(folder: Path, count: int) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "tests.jobs.kill_rounds",
        "--serve",
        str(folder),
        "--jobs",
        str(count),
    ]
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stderr=log)


def _worker_pid(folder: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int((folder / "worker.pid").read_text(encoding="utf-8"))
    return None


def _kill(pid: int | None) -> bool:
    with contextlib.suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _gone(pid: int | None, timeout: float = 10.0) -> bool:
    end = time.monotonic() + timeout
    while pid is not None and time.monotonic() < end:
        stat = Path(f"/proc/{pid}/stat")
        with contextlib.suppress(OSError):
            if stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.02)
                continue
        return True
    return pid is None


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill servers and workers at random moments.")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--snapshots", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.jobs, lambda: KnownWorker(given.serve))
        return
    luck = random.Random(given.seed)
    total: Counter[str] = Counter(dict.fromkeys(("lost", "twice", "torn", "foreign"), 0))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            total.update(kill_round(Path(folder) / str(number), given.jobs, luck))
        if given.snapshots:
            total.update(snapshot_round(Path(folder) / "snapshots", given.snapshots, luck))
    print(" ".join(f"{key.replace(' ', '_')}={value}" for key, value in total.items()))  # noqa: T201


if __name__ == "__main__":
    main()
