"""An engine that takes a core and paints nothing, for measuring what stands around an engine."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine import Event, Finished, ImageReady, Plan, Progress, Stopped

PICTURE = b"a picture".ljust(50_000, b".")


class BurningEngine:
    """Computes for a while at each step, and calls a job done after some of them."""

    device = "nothing"

    def __init__(self, *, slots: int, steps: int, step_s: float, device: str = "auto") -> None:
        self._slots = slots
        self._steps = steps
        self._step_s = step_s
        self._jobs: dict[str, Plan] = {}
        self._done: dict[str, int] = {}
        self._cancelled: set[str] = set()

    def preload(self, base_model: str) -> None:
        """Do nothing."""

    def slots(self) -> int:
        """How many jobs are computed together."""
        return self._slots

    def admit(self, job_id: str, plan: Plan, inputs: Mapping[str, Path]) -> None:
        """Take a job in."""
        self._jobs[job_id], self._done[job_id] = plan, 0

    def skip(self, job_id: str) -> None:
        """Do nothing."""

    def cancel(self, job_id: str) -> None:
        """End a job at the next step."""
        self._cancelled.add(job_id)

    def step(self) -> Sequence[tuple[str, Event]]:
        """Compute, then tell of every job."""
        until = time.perf_counter() + self._step_s
        while time.perf_counter() < until:
            pass
        return [(job_id, event) for job_id in list(self._jobs) for event in self._advance(job_id)]

    def idle(self) -> bool:
        """Whether there is no job."""
        return not self._jobs

    def counters(self) -> Mapping[str, int]:
        """Count nothing."""
        return {}

    def _advance(self, job_id: str) -> list[Event]:
        if job_id in self._cancelled:
            self._forget(job_id)
            return [Stopped()]
        self._done[job_id] += 1
        step, plan = self._done[job_id], self._jobs[job_id]
        if step < self._steps:
            share = step / self._steps
            return [Progress(stage="sampling", step=step, steps=self._steps, fraction=share)]
        self._forget(job_id)
        seed = plan.images[0].seed
        picture = ImageReady(
            index=0, seed=seed, size=plan.size, content_type="image/png", data=PICTURE
        )
        return [picture, Finished(timings={"total": self._steps * self._step_s})]

    def _forget(self, job_id: str) -> None:
        del self._jobs[job_id], self._done[job_id]
        self._cancelled.discard(job_id)
