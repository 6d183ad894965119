"""What an actor does with its commands and files, without Ray: in order, and nothing is left behind."""

import tempfile
import time
from pathlib import Path

import pytest

from engine import Finished, plan_to_json
from jobs import EngineSpec
from jobs.own_folders import own_folder
from jobs.protocol import Cancel, JobEvent, Quit, Ready, Run, Stopping
from jobs.ray_actor import Painter
from tests.jobs.scripted_engine import toy_plan

SOON_S = 60.0
LAST_PID = 2**22
"""No process has a higher number on Linux."""


@pytest.fixture
def painter(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    factory = "tests.jobs.scripted_engine:ScriptedEngine"
    return Painter(EngineSpec(factory=factory, base_model="toy", nice=0))


def told(painter, kind):
    """Read news until one is of a kind; returns all of them."""
    end, news = time.monotonic() + SOON_S, []
    while not any(isinstance(getattr(it, "event", it), kind) for it in news):
        assert time.monotonic() < end, "it never happened"
        news += painter.tell(0.1)
    return news


def run(words):
    return Run("a job", plan_to_json(toy_plan(words)), {"mask": Path("/of/another/machine")})


def test_inputs_are_there_while_the_job_is_and_gone_with_it(painter, tmp_path):
    painter.obey(0, run("steps=2"), {"mask": b"bytes"})
    news = told(painter, Finished)
    assert any(isinstance(it, Ready) and " on " in it.device for it in news)
    assert [it.job_id for it in news if isinstance(it, JobEvent)][-1] == "a job"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    painter.obey(1, Quit(), {})
    assert Stopping() in told(painter, type(None))
    assert not list(tmp_path.iterdir())


def test_commands_that_overtake_each_other_are_obeyed_in_order(painter):
    painter.obey(1, Cancel("a job"), {})
    painter.obey(0, run("steps=1000000"), {"mask": b""})
    painter.obey(2, Quit(), {})
    assert Stopping() in told(painter, Stopping)


def test_inputs_that_cannot_be_written_hold_no_later_command_up(painter, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    painter.obey(0, run("steps=2"), {"mask": b"bytes"})
    painter.obey(1, Quit(), {})
    assert Stopping() in told(painter, Stopping)


def test_folders_of_processes_that_are_no_more_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"kind-{LAST_PID + 1}-x").mkdir()
    (tmp_path / "kind-of-something-else").mkdir()
    mine = own_folder("kind")
    assert mine.stat().st_mode & 0o077 == 0
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, "kind-of-something-else"}
    assert own_folder("kind") != mine
    assert mine.exists()
