"""Time from `python app.py` to the page, and from submitting a job to its first step.

python -m bench.start_up [--rounds 3]
"""

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from engine import Progress, TextRequest, plan, read_catalog
from jobs import EngineSpec, Jobs, JobSettings, ProcessWorker

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    page = statistics.median(start_to_page() for _ in range(rounds))
    click = click_to_first_step(rounds)
    sys.stdout.write(
        f"start to page: {page:.2f} s\nclick to first step (model loaded): {click:.3f} s\n"
    )


def start_to_page() -> float:
    """Start the studio, wait for its page, stop it; seconds to the first answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = [
            sys.executable,
            "app.py",
            "--port",
            str(port),
            "--data-dir",
            f"{folder}/d",
            "--output-dir",
            f"{folder}/o",
        ]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not answers(f"http://127.0.0.1:{port}/"):
                time.sleep(0.02)
            return time.perf_counter() - started
        finally:
            process.terminate()
            process.wait(40)


def answers(address: str) -> bool:
    """Say whether the page is there."""
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def click_to_first_step(rounds: int) -> float:
    """Submit jobs to a worker that is ready; median seconds until each tells its first step."""
    catalog = read_catalog(ROOT / "models", "pocket")
    spec = EngineSpec(
        factory="engine.engine:create",
        kwargs={"models_dir": str(ROOT / "models"), "model": "pocket"},
        base_model="pocket",
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = JobSettings(data_dir=Path(folder) / "d", output_dir=Path(folder) / "o")
        jobs = Jobs(settings, lambda: ProcessWorker(spec))
        jobs.start()
        try:
            while jobs.status().state != "ready":
                time.sleep(0.1)
            return statistics.median(
                asyncio.run(_first_step(jobs, catalog)) for _ in range(rounds + 1)
            )
        finally:
            jobs.close()


async def _first_step(jobs: Jobs, catalog: object) -> float:
    request = TextRequest(prompt="a large red star on a blue background", num_images=1)
    started = time.perf_counter()
    job_id = jobs.submit(plan(request, catalog, seed=1))  # type: ignore[arg-type]
    first = 0.0
    async for _, event in jobs.events(job_id, owner="local"):
        if isinstance(event, Progress) and event.stage == "sampling" and not first:
            first = time.perf_counter() - started
    return first


if __name__ == "__main__":
    main()
