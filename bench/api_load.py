"""Load on the API: does the studio still answer at once while many look, some submit, and the worker takes a core?

Run with ``python -m bench.api_load``; it takes some two minutes and prints a page like ``bench/API_LOAD.md``. The studio is
the one that ``python app.py`` starts, but for its engine, which burns time instead of painting; those who ask are in a
process of their own. Everything goes over loopback, and nothing is left behind.
"""

import argparse
import asyncio
import datetime
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles

ROOT = Path(__file__).parent.parent
ENDPOINT = "/queue/fal-ai/fooocus"
POLLERS = 200
POLLS_PER_S = 2.0
SUBMITTERS = 8
SUBMITS_PER_S = 2.0
"""Of each submitter; all together stay below the rate that one owner may have."""
PROBES_PER_S = 20.0
"""How often it is measured how long ``/health/live`` takes."""
SECONDS = 60.0
WARM_UP_JOBS = 1000
"""After so many jobs the memory is looked at for the first time: as many calls are kept in mind."""
JOBS = 1000
"""After so many more the second time."""
LONGEST_S = 150.0
"""The load ends then whatever happened."""
STEPS = 20
STEP_S = 0.01
SLOTS = 4
WORK = {"slots": SLOTS, "steps": STEPS, "step_s": STEP_S}
AIM_MS = 100.0
BODY = b'{"prompt": "a red star", "styles": [], "performance": "Speed"}'
DONE = 'pochade_jobs_ended_total{state="finished"}'
MEMORY = "process_resident_memory_bytes"
CPU = "process_cpu_seconds_total"


@dataclass
class Tally:
    """What those who ask have seen."""

    live_ms: list[float] = field(default_factory=list)
    status_ms: list[float] = field(default_factory=list)
    submit_ms: list[float] = field(default_factory=list)
    refused: int = 0
    errors: int = 0


class Line:
    """One kept connection to the studio; as little of HTTP as it takes, so that the asking costs little."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send one request; returns status and body."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in answer.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        return int(answer.split(b" ", 2)[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Crowd:
    """Everybody who asks."""

    def __init__(self, port: int) -> None:
        self.tally = Tally()
        self._port = port
        self._calls = [""] * SUBMITTERS
        """The last call of each submitter."""

    async def ask_for(self, seconds: float, least_jobs: int) -> None:
        """Ask until the time is over and enough jobs are done."""
        loops = [self._ask_on(PROBES_PER_S, 0.0, self._probe)]
        loops += [
            self._ask_on(SUBMITS_PER_S, number / SUBMITTERS, partial(self._submit, number))
            for number in range(SUBMITTERS)
        ]
        loops += [
            self._ask_on(POLLS_PER_S, number / POLLERS, partial(self._poll, number))
            for number in range(POLLERS)
        ]
        tasks = [asyncio.create_task(loop) for loop in loops]
        started = time.monotonic()
        while (passed := time.monotonic() - started) < LONGEST_S:
            await asyncio.sleep(1.0)
            if passed >= seconds and (await numbers(self._port))[DONE] >= least_jobs:
                break
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_on(
        self, per_s: float, late_s: float, once: Callable[[Line], Awaitable[None]]
    ) -> None:
        line = Line(self._port)
        await asyncio.sleep(late_s)
        due = time.monotonic()
        try:
            while True:
                await once(line)
                due = max(due + 1 / per_s, time.monotonic() - 1 / per_s)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        finally:
            line.close()

    async def _probe(self, line: Line) -> None:
        await self._timed(line, self.tally.live_ms, "GET", "/health/live")

    async def _poll(self, number: int, line: Line) -> None:
        if call := self._calls[number % SUBMITTERS]:
            path = f"{ENDPOINT}/requests/{call}/status"
            await self._timed(line, self.tally.status_ms, "GET", path)

    async def _submit(self, number: int, line: Line) -> None:
        status, answer = await self._timed(line, self.tally.submit_ms, "POST", ENDPOINT, BODY)
        if status == 200:
            self._calls[number] = json.loads(answer)["request_id"]

    async def _timed(
        self, line: Line, times: list[float], method: str, path: str, body: bytes = b""
    ) -> tuple[int, bytes]:
        started = time.perf_counter()
        try:
            status, answer = await line.ask(method, path, body)
        except (OSError, EOFError):
            line.close()
            self.tally.errors += 1
            return 0, b""
        times.append((time.perf_counter() - started) * 1000)
        self.tally.refused += status == 429
        self.tally.errors += status >= 500
        return status, answer


async def numbers(port: int) -> dict[str, float]:
    """Read the studio's own numbers."""
    line = Line(port)
    try:
        _, text = await line.ask("GET", "/metrics")
    finally:
        line.close()
    rows = [row.rpartition(" ") for row in text.decode().splitlines() if not row.startswith("#")]
    return {name: float(value) for name, _, value in rows}


def ask_all(port: int, seconds: float, least_jobs: int) -> None:
    """Be the process of those who ask: print what they saw as JSON."""
    crowd = Crowd(port)
    asyncio.run(crowd.ask_for(seconds, least_jobs))
    sys.stdout.write(json.dumps(asdict(crowd.tally)))


def serve(folder: Path, port: int) -> int:
    """Be the studio, with the engine that burns time."""
    import app
    from engine import Catalog
    from jobs import EngineSpec
    from settings import Settings, read_settings

    def burning(settings: Settings, catalog: Catalog) -> EngineSpec:
        return EngineSpec(factory="bench.burning:BurningEngine", kwargs=WORK)

    app.engine_spec = burning
    flags = {"port": port, "data-dir": folder / "data", "output-dir": folder / "outputs"}
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    return app.serve(read_settings(arguments, {}))


def run_clients(port: int, seconds: float, least_jobs: int) -> Tally:
    """Start the process of those who ask, and wait for what it says."""
    command = [
        sys.executable,
        "-m",
        "bench.api_load",
        "--ask",
        str(port),
        str(seconds),
        str(least_jobs),
    ]
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=LONGEST_S + 30
    )
    return Tally(**json.loads(done.stdout))


def wait_ready(port: int) -> None:
    """Wait until the studio answers."""

    async def is_up() -> bool:
        line = Line(port)
        try:
            return (await line.ask("GET", "/health/live"))[0] == 200
        finally:
            line.close()

    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if asyncio.run(is_up()):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the studio did not start")


def free_port() -> int:
    """Find a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def row(name: str, times: Sequence[float]) -> str:
    """Write one row of the table of times."""
    cuts = quantiles(times, n=1000, method="inclusive")
    shown = (cuts[499], cuts[949], cuts[989], cuts[998], max(times))
    return f"| {name} | {len(times)} | " + " | ".join(f"{value:.1f}" for value in shown) + " |"


def page(
    tally: Tally, before: Mapping[str, float], after: Mapping[str, float], passed: float
) -> str:
    """Write the page of results."""
    p99 = quantiles(tally.live_ms, n=100, method="inclusive")[98]
    share = (after[CPU] - before[CPU]) / passed
    verdict = "reached" if p99 < AIM_MS else "missed"
    return "\n".join(
        [
            "# Load on the API",
            "",
            f"`python -m bench.api_load`, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {os.cpu_count()} cores,"
            f" Python {platform.python_version()}. {POLLERS} pollers at {POLLS_PER_S:g} a second and {SUBMITTERS} submitters",
            f"at {SUBMITS_PER_S:g} a second for {SECONDS:g} s at least, while the worker process burns a core ({STEPS} steps of"
            f" {STEP_S * 1000:g} ms, {SLOTS} jobs together).",
            "",
            "| ms | requests | p50 | p95 | p99 | p99.9 | longest |",
            "|---|---|---|---|---|---|---|",
            row("`/health/live`", tally.live_ms),
            row("status", tally.status_ms),
            row("submit", tally.submit_ms),
            "",
            f"p99 of `/health/live`: {p99:.1f} ms, aim below {AIM_MS:g} ms: {verdict}. Refused because the queue was full:"
            f" {tally.refused}; errors: {tally.errors}.",
            f"Memory of the server process after {before[DONE]:.0f} jobs: {before[MEMORY] / 1e6:.1f} MB, after"
            f" {after[DONE]:.0f} jobs: {after[MEMORY] / 1e6:.1f} MB. It took {share:.0%} of a core.",
            "",
        ]
    )


def main() -> int:
    """Start the studio, let it be asked, print the page; returns 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs=2, metavar=("DIR", "PORT"))
    parser.add_argument("--ask", nargs=3, metavar=("PORT", "SECONDS", "JOBS"))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    if given.serve:
        return serve(Path(given.serve[0]), int(given.serve[1]))
    if given.ask:
        ask_all(int(given.ask[0]), float(given.ask[1]), int(given.ask[2]))
        return 0
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bench.api_load", "--serve", folder, str(port)]
        studio = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_ready(port)
            run_clients(port, 1.0, WARM_UP_JOBS)
            began, before = time.monotonic(), asyncio.run(numbers(port))
            tally = run_clients(port, given.seconds, WARM_UP_JOBS + JOBS)
            passed, after = time.monotonic() - began, asyncio.run(numbers(port))
            text = page(tally, before, after, passed)
        finally:
            studio.terminate()
            studio.wait(60)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
