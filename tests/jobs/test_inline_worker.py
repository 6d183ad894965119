"""A device that is lent for one call at a time: one job a call, given back at its end, however that comes about."""

from pathlib import Path

import pytest

from engine import (
    EngineError,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    ModelNotFound,
    Plan,
    Progress,
    Stopped,
)
from jobs.inline_worker import InlineEngine, InlineWorker
from jobs.pace import Pace
from tests.jobs.scripted_engine import ScriptedEngine, toy_plan
from tests.jobs.test_queue import SOON_S, story


class LoadingEngine(ScriptedEngine):
    def __init__(self, **script) -> None:
        super().__init__(**script)
        self.hashed: list[str] = []

    def load(self, base_model: str) -> None:
        self.preload(base_model)

    def hash_weights(self, plan: Plan) -> None:
        self.hashed.append(plan.prompt)


class Lender:
    """Lends in this process, and notes what it was asked for and what came back."""

    def __init__(self, refusal: str | None = None) -> None:
        self.refusal = refusal
        self.asked: list[int] = []
        self.given_back = 0
        self.in_the_name_of: set[str] = set()

    def lend(self, paint, seconds):
        def told(*given):
            self.asked.append(seconds(*given))
            if self.refusal is not None:
                raise EngineError(self.refusal)
            try:
                yield from paint(*given)
            finally:
                self.given_back += 1

        return told

    def on_behalf(self, job_id, call):
        self.in_the_name_of.add(job_id)
        return call()


class Arriving:
    """A file on its way."""

    def __init__(self, error: EngineError | None = None) -> None:
        self.error, self.is_over, self.looks = error, False, 0

    def wait(self, timeout: float) -> None:
        self.looks += 1
        self.is_over = self.looks > 2

    def progress(self) -> Progress:
        return Progress(stage="fetching", file="toy.safetensors", step=self.looks)


def inline(folder: Path, lender: Lender, *, fetches=(), **script) -> InlineEngine:
    engine = LoadingEngine(**script)
    pace = Pace(folder / "pace.json", "toy")
    made = InlineEngine(engine, lender, pace, lambda plan: list(fetches))
    made.load("toy")
    return made


def run(engine: InlineEngine, job_id: str = "a") -> list:
    told = []
    while not engine.idle():
        for whose, event in engine.step():
            assert whose == job_id
            told.append(event)
    return told


def test_a_job_is_painted_in_one_call_that_is_over_before_its_end_is_told(tmp_path) -> None:
    lender = Lender()
    engine = inline(tmp_path, lender)
    engine.admit("a", toy_plan("steps=3", images=2), {})
    told = []
    while not engine.idle():
        for _, event in engine.step():
            told.append((type(event), lender.given_back))
    kinds = [kind for kind, _ in told]
    assert kinds.count(ImageReady) == 2
    assert told[0] == (Progress, 0)
    assert told[-1] == (Finished, 1)
    assert (lender.in_the_name_of, len(lender.asked)) == ({"a"}, 1)
    assert (engine.slots(), engine.counters()) == (1, {"jobs": 1})


def test_cancelling_gives_the_device_back_and_the_next_job_is_painted(tmp_path) -> None:
    lender = Lender()
    engine = inline(tmp_path, lender)
    engine.admit("a", toy_plan("steps=50"), {})
    while not any(isinstance(it, Progress) and it.stage == "sampling" for _, it in engine.step()):
        pass
    engine.cancel("a")
    assert lender.given_back == 1
    assert run(engine) == [Stopped()]
    engine.admit("b", toy_plan(), {})
    assert isinstance(run(engine, "b")[-1], Finished)


def test_cancelling_before_the_device_is_lent_asks_for_none(tmp_path) -> None:
    lender = Lender()
    engine = inline(tmp_path, lender)
    engine.admit("a", toy_plan(), {})
    engine.cancel("a")
    assert (run(engine), lender.asked) == ([Stopped()], [])


def test_skip_ends_one_image_also_when_it_was_pressed_early(tmp_path) -> None:
    engine = inline(tmp_path, Lender())
    engine.admit("a", toy_plan("steps=3", images=2), {})
    engine.skip("a")
    engine.skip("other")
    told = run(engine)
    assert [it for it in told if isinstance(it, ImageSkipped)] == [ImageSkipped(0)]
    assert [it.index for it in told if isinstance(it, ImageReady)] == [1]
    engine.admit("a", toy_plan("steps=3"), {})
    assert not [it for it in run(engine) if isinstance(it, ImageSkipped)]


def test_files_come_before_the_device_is_asked_for(tmp_path) -> None:
    lender = Lender()
    engine = inline(tmp_path, lender, fetches=[Arriving()])
    engine.admit("a", toy_plan(), {})
    [(_, first)] = engine.step()
    assert (first.stage, first.file, lender.asked) == ("fetching", "toy.safetensors", [])
    assert isinstance(run(engine)[-1], Finished)
    missing = Arriving(ModelNotFound("toy.safetensors: not there"))
    engine = inline(tmp_path, lender, fetches=[missing])
    engine.admit("a", toy_plan(), {})
    ending = run(engine)[-1]
    assert (ending.kind, ending.message) == ("model_not_found", "toy.safetensors: not there")
    assert len(lender.asked) == 1


def test_a_refusal_is_the_failure_of_that_job(tmp_path) -> None:
    lender = Lender("no card for 15 s")
    engine = inline(tmp_path, lender)
    engine.admit("a", toy_plan(), {})
    assert run(engine)[-1] == Failed(kind="engine_error", message="no card for 15 s")
    lender.refusal = None
    engine.admit("a", toy_plan(), {})
    assert isinstance(run(engine)[-1], Finished)


@pytest.mark.parametrize("prompt", ["admit=fail", "ends=fail"])
def test_what_the_engine_says_of_a_job_comes_through(tmp_path, prompt) -> None:
    lender = Lender()
    engine = inline(tmp_path, lender)
    engine.admit("a", toy_plan(prompt), {})
    assert isinstance(run(engine)[-1], Failed)
    assert lender.given_back == 1


def test_jobs_of_the_queue_are_painted_by_it(studio, tmp_path) -> None:
    lender = Lender()
    engine = inline(tmp_path, lender)
    jobs = studio.open(lambda: InlineWorker(engine, "toy"))
    first, broken, last = (
        jobs.submit(toy_plan(prompt), inputs={"mask": b"bytes"})
        for prompt in ("steps=3", "ends=raise", "steps=1")
    )
    assert [jobs.wait(it, SOON_S).state for it in (first, broken, last)] == [
        "finished",
        "failed",
        "finished",
    ]
    assert isinstance(story(jobs, broken)[-1][1], Failed)
    assert (lender.given_back, lender.in_the_name_of) == (3, {first, broken, last})


def test_a_base_model_that_is_not_there_is_told_of(tmp_path) -> None:
    engine = inline(tmp_path, Lender(), preload_fails=True)
    with pytest.raises(ModelNotFound, match="no base model named 'toy'"):
        engine.preload("toy")
