"""Calls of programs: one id is one job, low priority waits, what must start in time does or fails, and the log is kept."""

import asyncio
import time
import uuid
from dataclasses import replace

import pytest

from jobs import Call, IdTaken, JobNotFound
from jobs.waiting import Waiting
from tests.jobs.scripted_engine import toy_plan


def new_call(owner="ann", **changes):
    given = {"id": str(uuid.uuid4()), "endpoint": "fal-ai/fooocus", "cdn": "here"}
    return Call(owner=owner, **given | changes)


def submit(jobs, call, prompt="a star", **how):
    return jobs.submit(toy_plan(prompt), owner=call.owner, call=call, **how)


def messages(jobs, call):
    return [line.message for line in jobs.log(call.id, owner=call.owner)]


def test_a_call_is_its_job_and_is_remembered_over_a_restart(studio):
    jobs, call = studio.open(), new_call(sync_mode=True, webhook="https://example.org/hook")
    assert submit(jobs, call, "steps=3") == call.id
    jobs.wait(call.id, 10, owner="ann")
    jobs.close()
    jobs = studio.open()
    found = jobs.calls.get(call.id, "ann")
    assert found == replace(call, created_at=found.created_at)
    assert jobs.calls.get(call.id, "bob") is None
    assert jobs.standing(call.id, owner="ann").state == "finished"
    expected = ["started", "step 1/3", "step 2/3", "step 3/3", "image 1 is ready", "finished"]
    assert messages(jobs, call) == expected
    with pytest.raises(JobNotFound):
        jobs.log(call.id, owner="bob")


def test_the_same_id_again_is_the_same_job(studio):
    jobs, call = studio.open(gated=True), new_call()
    for _ in range(10):
        assert submit(jobs, call) == call.id
    assert len(jobs.active(owner="ann")) == 1
    with pytest.raises(IdTaken, match="request id: expected one of your own, got '.{36}'"):
        submit(jobs, replace(call, owner="bob"))


def test_a_refused_call_keeps_its_error(studio):
    jobs, call = studio.open(), new_call(has_job=False, error=(422, '{"detail":[]}'))
    jobs.calls.add(call)
    jobs.calls.add(replace(call, error=(500, "{}")))
    assert jobs.calls.get(call.id, "ann").error == (422, '{"detail":[]}')
    with pytest.raises(IdTaken):
        jobs.calls.add(replace(call, owner="bob"))
    assert submit(jobs, replace(call, has_job=True, error=None)) == call.id
    assert jobs.active(owner="ann") == []


def test_calls_go_with_time_but_not_before_they_are_over_and_told(studio):
    now, hook = time.time(), "https://example.org/hook"
    old, older = now - 2 * 86_400, now - 31 * 86_400
    refused = {"has_job": False, "error": (422, "{}")}
    kept = {
        "young": new_call(created_at=old),
        "waiting": new_call(created_at=older),
        "untold": new_call(created_at=older, webhook=hook),
        "refused": new_call(**refused),
        "refused, untold": new_call(created_at=older, webhook=hook, **refused),
    }
    gone = {
        "old": new_call(created_at=older),
        "told": new_call(created_at=older, webhook=hook),
        "refused": new_call(created_at=old, **refused),
    }
    jobs = studio.open()
    for call in (kept["young"], kept["untold"], gone["old"], gone["told"]):
        jobs.wait(submit(jobs, call), 10, owner="ann")
    for call in (kept["refused"], kept["refused, untold"], gone["refused"]):
        jobs.calls.add(call)
    jobs.calls.note_delivery(gone["told"].id, is_done=True, next_try_at=None)
    jobs.close()
    jobs = studio.open(gated=True)
    submit(jobs, kept["waiting"], "steps=1000")
    jobs.close()
    jobs = studio.open(gated=True)
    assert [name for name, call in kept.items() if jobs.calls.get(call.id, "ann") is None] == []
    assert [name for name, call in gone.items() if jobs.calls.get(call.id, "ann")] == []
    assert len(jobs.history(owner="ann")) == 4


def test_jobs_of_low_priority_wait_behind_all_others():
    queue = Waiting()
    queue.add("low", number=1, owner="ann", priority="low")
    queue.add("low 2", number=2, owner="bob", priority="low")
    queue.add("normal", number=3, owner="ann")
    queue.add("again", number=4, owner="bob", alone=True)
    assert queue.order() == ["again", "normal", "low", "low 2"]
    assert queue.positions() == {"again": 0, "normal": 1, "low": 2, "low 2": 3}
    assert queue.count("ann") == 2
    for expected in queue.order():
        assert queue.first() == expected
        queue.take(expected)
    assert len(queue) == 0


def test_a_low_job_starts_last_also_after_a_restart(studio):
    jobs = studio.open(gated=True, slots=1)
    first, low, normal = new_call(), new_call(), new_call()
    submit(jobs, first)
    submit(jobs, low, priority="low")
    submit(jobs, normal)
    assert jobs.standing(low.id, owner="ann").position == 1
    jobs.close()
    studio.open(slots=1).wait(low.id, 10, owner="ann")
    assert studio.engines[-1].order == [first.id, normal.id, low.id]


def test_a_job_that_must_start_in_time_fails_while_it_waits(studio):
    jobs = studio.open(gated=True, slots=1)
    running, late, patient = new_call(), new_call(), new_call()
    submit(jobs, running, start_within_s=0.1)
    submit(jobs, late, start_within_s=0.1)
    submit(jobs, patient, start_within_s=3600)
    view = jobs.wait(late.id, 10, owner="ann")
    assert view.error.kind == "start_timeout"
    assert jobs.standing(late.id, owner="ann").error == view.error
    assert jobs.standing(running.id, owner="ann").state == "running"
    assert jobs.standing(patient.id, owner="ann").position == 0


def test_a_webhook_is_due_when_its_call_is_over(studio):
    jobs = studio.open(gated=True)
    hook = "https://example.org/hook"
    running, refused = (
        new_call(webhook=hook),
        new_call(webhook=hook, has_job=False, error=(422, "")),
    )
    submit(jobs, running)
    submit(jobs, new_call())
    jobs.calls.add(refused)
    now = time.time()
    assert [call.id for call in jobs.calls.due_deliveries(now)] == [refused.id]
    jobs.calls.note_delivery(refused.id, is_done=False, next_try_at=now + 60)
    assert jobs.calls.due_deliveries(now) == []
    assert [call.tries for call in jobs.calls.due_deliveries(now + 61)] == [1]
    jobs.calls.note_delivery(refused.id, is_done=True, next_try_at=None)
    studio.gate.release(100)
    jobs.wait(running.id, 10, owner="ann")
    assert [call.id for call in jobs.calls.due_deliveries(now + 61)] == [running.id]


def test_a_watcher_hears_of_every_change_until_the_end(studio):
    jobs, call = studio.open(gated=True), new_call()
    submit(jobs, call, "steps=3")

    async def watch():
        seen = []
        with jobs.watching(call.id) as news:
            while True:
                await asyncio.wait_for(news.wait(), 10)
                news.clear()
                standing = jobs.standing(call.id, owner="ann")
                seen.append(len(jobs.log(call.id, owner="ann")))
                if standing.is_over:
                    return seen
                studio.gate.release()

    seen = asyncio.run(watch())
    assert seen == sorted(seen)
    assert seen[-1] == 6
    with pytest.raises(JobNotFound):
        jobs.standing(call.id, owner="bob")


def test_a_failure_is_the_last_line_of_the_log(studio):
    jobs, call = studio.open(), new_call()
    submit(jobs, call, "ends=fail steps=1")
    jobs.wait(call.id, 10, owner="ann")
    line = jobs.log(call.id, owner="ann")[-1]
    assert (line.level, line.message) == ("ERROR", "the device has 1 GB, expected 8 GB")
