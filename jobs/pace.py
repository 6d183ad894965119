"""How long jobs take on a device that is lent by the second: declared beforehand, learned from those that were painted."""

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine import Event, Plan, Progress
from jobs.files import write_whole

log = logging.getLogger(__name__)

STEP_S = 0.15
"""A step over a million pixels before one was measured, in seconds."""
BEGIN_S = 10.0
"""Bringing the weights to the device, in seconds."""
LOAD_S = 20.0
"""The same for a base model that has to be loaded first."""
FINISH_S = 2.0
"""Reading inputs, decoding and writing a picture of a million pixels, in seconds."""
MARGIN = 1.3
"""A job that takes longer than declared is ended; one that declares too much waits longer for its turn."""
LEAST_S, MOST_S = 15, 300
"""Bounds of what is declared, in seconds."""
FORGETS = 0.3
"""How much of what was known gives way to a quicker measurement; a slower one counts at once."""
REPAINTED = 2
"""How often a picture is painted again, at a guess, for each round of *Enhance*."""


class Pace:
    """Says how long a plan takes; safe to use from any thread."""

    def __init__(self, file: Path, warm: str) -> None:
        """Start with what `file` remembers of seconds a step, by base model.

        Args:
            file: Where it is kept.
            warm: The base model that is in memory.
        """
        self._file = file
        self._warm = warm
        self._step_s = _read(file)

    def seconds(self, plan: Plan) -> int:
        """Say for how many seconds the device is needed."""
        begin_s = BEGIN_S
        if not plan.needs_base_model:
            return math.ceil(begin_s + LEAST_S)
        if plan.base_model != self._warm:
            begin_s += LOAD_S
        step_s = self._step_s.get(plan.base_model, STEP_S)
        picture_s = _megapixels(plan) * (plan.sampling.num_inference_steps * step_s + FINISH_S)
        rounds = 1 + REPAINTED * sum(map(len, plan.enhancements))
        whole = begin_s + len(plan.images) * rounds * picture_s * MARGIN
        return min(MOST_S, max(LEAST_S, math.ceil(whole)))

    @contextmanager
    def timing(self, plan: Plan) -> Iterator["Timing"]:
        """Measure a job that is painted inside, and remember it, however it ends: one that was cut short above all."""
        timing = Timing()
        try:
            yield timing
        finally:
            self._learn(plan, timing.step_s)

    def _learn(self, plan: Plan, measured: float | None) -> None:
        if measured is None or not plan.needs_base_model:
            return
        measured /= _megapixels(plan)
        known = self._step_s.get(plan.base_model, measured)
        kept = max(measured, (1 - FORGETS) * known + FORGETS * measured)
        self._step_s = {**self._step_s, plan.base_model: kept}
        try:
            write_whole(self._file, json.dumps(self._step_s, indent=2).encode())
        except OSError as error:
            log.warning("pace: not remembered: %s", error)


class Timing:
    """The steps of one job, as they are told."""

    def __init__(self) -> None:
        self._spent_s = 0.0
        self._steps = 0
        self._last: tuple[int, int, float] | None = None

    def note(self, events: Sequence[Event]) -> None:
        """Look at what was told just now."""
        for event in events:
            if not isinstance(event, Progress) or event.stage != "sampling":
                continue
            now = time.monotonic()
            if self._last is not None and self._last[0] == event.image:
                self._steps += max(0, event.step - self._last[1])
                self._spent_s += now - self._last[2]
            self._last = (event.image, event.step, now)

    @property
    def step_s(self) -> float | None:
        """Seconds a step; None before two steps of one picture were told."""
        return self._spent_s / self._steps if self._steps else None


def _megapixels(plan: Plan) -> float:
    area = max(size.width * size.height for size in (plan.size, plan.sample_size))
    return area / 1_000_000


def _read(file: Path) -> dict[str, float]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): float(seconds) for name, seconds in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
