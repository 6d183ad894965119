"""How many seconds a job asks for: more for more work, learned from what was painted, never beyond the bounds."""

import dataclasses
import json
from pathlib import Path

import pytest

from engine import Progress, Size
from jobs import pace
from jobs.pace import LEAST_S, MOST_S, Pace, Timing
from tests.jobs.scripted_engine import toy_plan


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def test_more_pictures_steps_and_pixels_ask_for_more(tmp_path: Path) -> None:
    known = Pace(tmp_path / "pace.json", "toy")
    one = toy_plan()
    steps = dataclasses.replace(one.sampling, num_inference_steps=60)
    large = dataclasses.replace(one, size=Size(2048, 2048))
    many = [toy_plan(images=4), dataclasses.replace(one, sampling=steps), large]
    assert all(known.seconds(more) > known.seconds(one) for more in many)
    assert known.seconds(toy_plan(images=32)) <= MOST_S
    assert Pace(tmp_path / "pace.json", "other").seconds(one) > known.seconds(one)
    assert known.seconds(one) >= LEAST_S


def test_seconds_a_step_are_learned_and_remembered(tmp_path: Path, clock) -> None:
    file = tmp_path / "pace.json"
    slow, plan = Pace(file, "toy"), toy_plan(images=2)
    before = slow.seconds(plan)
    with slow.timing(plan) as timing:
        for step in range(1, 5):
            clock[0] += 2.0
            timing.note([Progress(stage="sampling", step=step, steps=30)])
    assert slow.seconds(plan) > before
    assert Pace(file, "toy").seconds(plan) == slow.seconds(plan)
    file.write_text(json.dumps([1]))
    assert Pace(file, "toy").seconds(plan) == before


def test_waiting_between_pictures_is_no_step(clock) -> None:
    timing = Timing()
    assert timing.step_s is None
    for image in (0, 1):
        clock[0] += 50.0
        for step in (1, 2, 3):
            clock[0] += 0.5
            timing.note([Progress(stage="sampling", image=image, step=step, steps=3)])
    assert timing.step_s == pytest.approx(0.5)
