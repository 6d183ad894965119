"""An engine that does what the prompt of each job says; no torch, importable by a worker process.

A prompt is words; these mean something, all others are just words:

    steps=N      model steps of each image (default 2)
    ends=WAY     what its last step does: finish (default), fail, raise, crash (the process exits), hang
    once=FILE    `ends` holds only as long as FILE does not exist; it is created then
    waits=FILE   its last step comes only once FILE exists
    admit=WAY    what taking it in does: fail, raise
    bytes=N      size of each picture
    fetches=FILE what its first step fetches instead of painting
    adds=WORD    what it adds to the prompt of each picture while it paints
    flagged=N    the image that a safety checker would take for unsafe
"""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import (
    Catalog,
    Checkpoint,
    EngineError,
    Event,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Library,
    ModelNotFound,
    OutOfMemory,
    Plan,
    Progress,
    Stopped,
    TextRequest,
    plan,
    plan_to_json,
)
from engine.plan import only_image, with_expansion

CATALOG = Catalog([Checkpoint(name="toy", path=Path("toy"))])


def toy_plan(prompt: str = "a red star", *, images: int = 1, seed: int = 7) -> Plan:
    """Plan a job whose prompt is its script."""
    return plan(
        TextRequest(prompt=prompt, num_images=images, styles=()),
        Library(catalog=CATALOG),
        seed=seed,
    )


def picture(job_id: str, index: int, size: int = 200) -> bytes:
    """Make the bytes that stand for an image: anyone can tell whose they are and whether they are whole."""
    head = f"{job_id}/{index}/".encode()
    return head + b"." * (size - len(head) - 3) + b"END"


@dataclass
class Script:
    """One job on its way."""

    plan: Plan
    words: dict[str, str]
    image: int = 0
    step: int = 0
    skipped: set[int] = field(default_factory=set)
    is_cancelled: bool = False

    @property
    def steps(self) -> int:
        return int(self.words.get("steps", 2))

    @property
    def ends(self) -> str:
        once = self.words.get("once")
        if once is not None:
            if Path(once).exists():
                return "finish"
            if self.is_last_step:
                Path(once).touch()
        return self.words.get("ends", "finish")

    @property
    def is_last_step(self) -> bool:
        return self.step >= self.steps and self.image + 1 >= len(self.plan.images)

    @property
    def is_before_last_step(self) -> bool:
        return self.step + 1 >= self.steps and self.image + 1 >= len(self.plan.images)


class ScriptedEngine:
    """Follows scripts, one step of every job at a time."""

    device = "toy"

    def __init__(
        self,
        *,
        slots: int = 2,
        step_s: float = 0.0,
        preload_fails: bool = False,
        preload_exits: int | None = None,
        gate: threading.Semaphore | None = None,
        ran: str | None = None,
    ) -> None:
        self._slots = slots
        self._step_s = step_s
        self._preload_fails = preload_fails
        self._preload_exits = preload_exits
        self._gate = gate
        self._ran = ran
        self._jobs: dict[str, Script] = {}
        self.most_at_once = 0
        self.order: list[str] = []
        self.inputs: dict[str, dict[str, bytes]] = {}

    def preload(self, base_model: str) -> None:
        if self._preload_exits is not None:
            os._exit(self._preload_exits)
        if self._preload_fails:
            raise ModelNotFound(f"base_model: no base model named {base_model!r}")

    def slots(self) -> int:
        return self._slots

    def admit(self, job_id: str, plan: Plan, inputs: Mapping[str, Path]) -> None:
        words = dict(word.split("=", 1) for word in plan.prompt.split() if "=" in word)
        match words.get("admit"):
            case "fail":
                raise ModelNotFound("base_model: no base model named 'toy'")
            case "raise":
                raise RuntimeError("a defect in admit")
        self._jobs[job_id] = Script(plan, words)
        self.order.append(job_id)
        self.most_at_once = max(self.most_at_once, len(self._jobs))
        self.inputs[job_id] = {name: path.read_bytes() for name, path in inputs.items()}

    def skip(self, job_id: str) -> None:
        if job_id in self._jobs:
            self._jobs[job_id].skipped.add(self._jobs[job_id].image)

    def cancel(self, job_id: str) -> None:
        if job_id in self._jobs:
            self._jobs[job_id].is_cancelled = True

    def step(self) -> Sequence[tuple[str, Event]]:
        if not self._jobs:
            return []
        if self._gate is not None and not self._gate.acquire(timeout=0.002):
            return self._cancelled()
        time.sleep(self._step_s)
        found = self._cancelled()
        for job_id, script in list(self._jobs.items()):
            found += [(job_id, event) for event in self._advance(job_id, script)]
        return found

    def idle(self) -> bool:
        return not self._jobs

    def counters(self) -> Mapping[str, int]:
        return {}

    def _cancelled(self) -> list[tuple[str, Event]]:
        gone = [job_id for job_id, script in self._jobs.items() if script.is_cancelled]
        for job_id in gone:
            del self._jobs[job_id]
        return [(job_id, Stopped()) for job_id in gone]

    def _advance(self, job_id: str, script: Script) -> list[Event]:
        if (file := script.words.pop("fetches", None)) is not None:
            return [Progress(stage="fetching", file=file, step=3, steps=7)]
        if script.is_before_last_step and not Path(script.words.get("waits", "/")).exists():
            return []
        script.step += 1
        if script.image in script.skipped:
            return self._next_image(job_id, script, ImageSkipped(script.image))
        if script.is_last_step and script.ends != "finish":
            return self._misbehave(job_id, script.words["ends"])
        if script.step < script.steps:
            return [_progress(script)]
        return [_progress(script), *self._next_image(job_id, script, _ready(job_id, script))]

    def _next_image(self, job_id: str, script: Script, event: Event) -> list[Event]:
        script.image, script.step = script.image + 1, 0
        if script.image < len(script.plan.images):
            return [event]
        del self._jobs[job_id]
        if self._ran is not None:
            with Path(self._ran).open("a") as file:
                file.write(f"{job_id}\n")
        return [event, Finished(timings={"total": 0.5})]

    def _misbehave(self, job_id: str, way: str) -> list[Event]:
        match way:
            case "fail":
                del self._jobs[job_id]
                error: EngineError = OutOfMemory("the device has 1 GB, expected 8 GB")
                return [Failed(kind=error.kind, message=str(error))]
            case "raise":
                raise RuntimeError("a defect in step")
            case "crash":
                os._exit(3)
            case "hang":
                while True:
                    time.sleep(3600)
        raise ValueError(way)


def with_pid(device: str = "toy", **kwargs: Any) -> ScriptedEngine:
    """Make an engine whose device says in which process it is."""
    engine = ScriptedEngine(**kwargs)
    engine.device = f"{device} {os.getpid()}"
    return engine


def _progress(script: Script) -> Progress:
    done = (script.image + script.step / script.steps) / len(script.plan.images)
    return Progress(
        stage="sampling",
        image=script.image,
        step=script.step,
        steps=script.steps,
        fraction=min(done, 1.0),
        preview=f"preview {script.image} {script.step}".encode(),
    )


def _ready(job_id: str, script: Script) -> ImageReady:
    return ImageReady(
        index=script.image,
        seed=script.plan.images[script.image].seed,
        size=script.plan.size,
        content_type="image/png",
        data=picture(job_id, script.image, int(script.words.get("bytes", 200))),
        has_nsfw_concept=script.words.get("flagged") == str(script.image),
        plan=_painted(script),
    )


def _painted(script: Script) -> str | None:
    words = script.words.get("adds")
    if words is None:
        return None
    grown = with_expansion(script.plan, script.image, words)
    return plan_to_json(only_image(grown, script.image))
