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
from collections.abc import Callable, Sequence
from pathlib import Path

from engine import Library, Progress, Shelves, TextRequest, plan, read_library
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
    rows = {"from `python app.py` to the page": page}
    rows |= {f"to the first step: {what}": took for what, took in first_steps(rounds).items()}
    sys.stdout.write("| what | seconds |\n|---|---|\n")
    sys.stdout.writelines(f"| {what} | {took:.3f} |\n" for what, took in rows.items())


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


def first_steps(rounds: int) -> dict[str, float]:
    """Submit jobs to a studio whose model is loaded; median seconds until each tells its first step."""
    library = read_library(Shelves(models_dir=ROOT / "models"), "pocket")
    spec = EngineSpec(
        factory="engine.engine:create",
        kwargs={"models_dir": str(ROOT / "models"), "model": "pocket"},
        base_model="pocket",
    )
    one, other = [item.name for item in library.catalog.loras][:2]
    with tempfile.TemporaryDirectory() as folder:
        settings = JobSettings(data_dir=Path(folder) / "d", output_dir=Path(folder) / "o")
        jobs = Jobs(settings, lambda: ProcessWorker(spec))
        jobs.start()
        try:
            while jobs.status().state != "ready":
                time.sleep(0.1)

            def seconds(loras: Callable[[int], Sequence[tuple[str, float]]]) -> float:
                times = [_first_step(jobs, library, loras(n)) for n in range(rounds + 1)]
                return statistics.median(times[1:])

            return {
                "model loaded, nothing changed": seconds(lambda n: []),
                "a LoRA in force, nothing changed": seconds(lambda n: [(one, 0.5)]),
                "another weight of the LoRA each time": seconds(lambda n: [(one, 0.3 + 0.01 * n)]),
                "another LoRA each time": seconds(
                    lambda n: [((one, other)[n % 2], 0.4 + 0.01 * n)]
                ),
                "a LoRA and none in turn": seconds(lambda n: [(one, 0.5)] * (n % 2)),
            }
        finally:
            jobs.close()


def _first_step(jobs: Jobs, library: Library, loras: Sequence[tuple[str, float]]) -> float:
    request = TextRequest.parse(
        {
            "prompt": "a large red star on a blue background",
            "styles": (),
            "num_images": 1,
            "loras": [{"path": path, "scale": scale} for path, scale in loras],
            "advanced": {"num_inference_steps": 4},
        }
    )

    async def wait() -> float:
        started, first = time.perf_counter(), 0.0
        job_id = jobs.submit(plan(request, library, seed=1))
        async for _, event in jobs.events(job_id, owner="local"):
            if isinstance(event, Progress) and event.stage == "sampling" and not first:
                first = time.perf_counter() - started
        return first

    return asyncio.run(wait())


if __name__ == "__main__":
    main()
