"""A queue on a fresh folder, with a scripted engine in a thread."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from jobs import Build, Jobs, JobSettings, ThreadWorker
from tests.jobs.scripted_engine import ScriptedEngine


class Studio:
    """Starts queues on one folder, one after the other, as a server that is started again does."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.output_dir = folder / "outputs"
        self.gate = threading.Semaphore(0)
        self.engines: list[ScriptedEngine] = []
        self.workers: list[ThreadWorker] = []
        self.opened: list[Jobs] = []

    def settings(self, **changes) -> JobSettings:
        given = {"drain_s": 2.0, "backoff_s": 0.01, **changes}
        return JobSettings(data_dir=self.data_dir, output_dir=self.output_dir, **given)

    def open(
        self,
        worker: Build | Mapping[str, Build] | None = None,
        *,
        gated=False,
        slots=2,
        workers=1,
        **changes,
    ) -> Jobs:
        """Start a queue; gated engines make a step only when the test releases `gate`."""

        def build() -> ScriptedEngine:
            self.engines.append(ScriptedEngine(slots=slots, gate=self.gate if gated else None))
            return self.engines[-1]

        def thread() -> ThreadWorker:
            self.workers.append(ThreadWorker(build))
            return self.workers[-1]

        threads = {f"worker {number}": thread for number in range(workers)}
        jobs = Jobs(self.settings(**changes), worker or threads)
        self.opened.append(jobs)
        jobs.start()
        return jobs

    def files(self) -> list[Path]:
        """All files below the output folder."""
        return [path for path in self.output_dir.rglob("*") if path.is_file()]

    def close(self) -> None:
        self.gate.release(1_000_000)
        for jobs in self.opened:
            jobs.close()


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(tmp_path)
    yield studio
    studio.close()
