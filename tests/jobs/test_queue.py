"""A job is taken, painted, recorded and told about; it can be stopped in every state; owners are treated alike."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from itertools import pairwise

import pytest

from engine import (
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Progress,
    Queued,
    Started,
    Stopped,
    is_terminal,
)
from jobs import DataDirInUse, JobNotFound, Jobs, QueueFull, ShuttingDown, ThreadWorker
from jobs.protocol import Cancel
from tests.jobs.scripted_engine import ScriptedEngine, picture, toy_plan

SOON_S = 60.0


def until(condition):
    """Wait for something that another thread does."""
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def story(jobs, job_id, *, after=0, owner="local"):
    """Read all events of a job up to its end."""

    async def read():
        return [item async for item in jobs.events(job_id, owner=owner, after=after)]

    return asyncio.run(asyncio.wait_for(read(), SOON_S))


def state(jobs, job_id, owner="local"):
    return jobs.job(job_id, owner=owner).state


def test_a_job_is_painted_recorded_and_told(studio):
    jobs = studio.open()
    job_id = jobs.submit(toy_plan("a cat", images=2), inputs={"mask": b"bytes"})
    view = jobs.wait(job_id, SOON_S)
    assert (view.state, view.is_over, view.attempt, view.error) == ("finished", True, 1, None)
    assert view.plan == toy_plan("a cat", images=2)
    assert view.timings == {"total": 0.5}
    assert [image.index for image in view.images] == [0, 1]
    assert [image.path.read_bytes() for image in view.images] == [
        picture(job_id, 0),
        picture(job_id, 1),
    ]
    assert sorted(studio.files()) == sorted(image.path for image in view.images)
    assert studio.engines[0].inputs[job_id] == {"mask": b"bytes"}
    kinds = [type(event) for _, event in story(jobs, job_id)]
    assert kinds == [Queued, Started, ImageReady, ImageReady, Finished]


def test_a_download_is_told_to_those_who_watch(studio):
    jobs = studio.open(gated=True)
    job_id = jobs.submit(toy_plan("fetches=big.safetensors"))
    studio.gate.release()
    until(lambda: jobs.job(job_id, owner="local").progress)
    progress = jobs.job(job_id, owner="local").progress
    assert (progress.stage, progress.file) == ("fetching", "big.safetensors")
    assert (progress.step, progress.steps) == (3, 7)

    async def first_three():
        events = jobs.events(job_id, owner="local")
        return [(await anext(events))[1] for _ in range(3)]

    assert asyncio.run(first_three())[2] == progress
    studio.gate.release(1000)
    assert jobs.wait(job_id, SOON_S).state == "finished"


def test_a_failure_of_the_engine_is_the_jobs_own(studio):
    jobs = studio.open()
    bad = jobs.submit(toy_plan("ends=fail"))
    refused = jobs.submit(toy_plan("admit=fail"))
    good = jobs.submit(toy_plan())
    assert jobs.wait(good, SOON_S).state == "finished"
    error = jobs.wait(bad, SOON_S).error
    assert error == Failed(kind="out_of_memory", message="the device has 1 GB, expected 8 GB")
    assert jobs.wait(refused, SOON_S).error.kind == "model_not_found"
    assert story(jobs, bad)[-1][1] == error


def test_a_defect_in_a_step_fails_only_the_job_that_has_it(studio):
    jobs = studio.open(slots=4, gated=True)
    ids = [
        jobs.submit(toy_plan(words))
        for words in ("steps=3", "ends=raise", "steps=3", "admit=raise")
    ]
    studio.gate.release(1000)
    views = [jobs.wait(job_id, SOON_S) for job_id in ids]
    assert [view.state for view in views] == ["finished", "failed", "finished", "failed"]
    assert views[1].error.kind == views[3].error.kind == "internal"
    assert len(studio.workers) == 1


def test_several_jobs_run_at_once_up_to_the_slots(studio):
    jobs = studio.open(slots=3, gated=True)
    ids = [jobs.submit(toy_plan()) for _ in range(5)]
    until(lambda: [state(jobs, job_id) for job_id in ids].count("running") == 3)
    studio.gate.release(1000)
    assert {jobs.wait(job_id, SOON_S).state for job_id in ids} == {"finished"}
    assert studio.engines[0].most_at_once == 3


def test_a_single_job_of_another_owner_starts_within_two(studio):
    jobs = studio.open(slots=1, gated=True)
    crowd = [jobs.submit(toy_plan(), owner="crowd") for _ in range(30)]
    single = jobs.submit(toy_plan(), owner="single")
    assert jobs.job(single, owner="single").position <= 1
    studio.gate.release(1000)
    jobs.wait(crowd[-1], SOON_S, owner="crowd")
    assert studio.engines[0].order.index(single) <= 2
    assert [item for item in studio.engines[0].order if item != single] == crowd


def test_more_jobs_than_may_wait_are_refused(studio):
    jobs = studio.open(slots=1, gated=True, max_waiting=3)
    running = jobs.submit(toy_plan())
    until(lambda: state(jobs, running) == "running")
    ids = [jobs.submit(toy_plan()) for _ in range(3)]
    with pytest.raises(
        QueueFull, match=r"^queue: expected fewer than 3 waiting jobs, got 3; try again later$"
    ):
        jobs.submit(toy_plan(), inputs={"image": b"never written"})
    assert not list((studio.data_dir / "inputs").glob("*"))
    jobs.submit(toy_plan(), owner="another")
    assert jobs.cancel(ids[0], owner="local")
    jobs.submit(toy_plan())


def test_many_owners_together_have_a_limit_too(studio):
    jobs = studio.open(slots=1, gated=True, max_waiting=3, max_waiting_of_all=4)
    running = jobs.submit(toy_plan())
    until(lambda: state(jobs, running) == "running")
    for number in range(4):
        jobs.submit(toy_plan(), owner=f"stranger {number}")
    with pytest.raises(QueueFull, match=r"^queue: expected fewer than 4 waiting jobs"):
        jobs.submit(toy_plan(), owner="one more")


def test_a_waiting_job_can_be_cancelled(studio):
    jobs = studio.open(slots=1, gated=True)
    first, second = jobs.submit(toy_plan()), jobs.submit(toy_plan())
    assert jobs.cancel(second, owner="local")
    assert state(jobs, second) == "stopped"
    assert not jobs.cancel(second, owner="local")
    studio.gate.release(1000)
    assert jobs.wait(first, SOON_S).state == "finished"
    assert not jobs.cancel(first, owner="local")
    assert studio.engines[0].order == [first]
    assert [type(event) for _, event in story(jobs, second)] == [Queued, Stopped]


@pytest.mark.parametrize("steps", [0, 1, 4, 7])
def test_a_running_job_can_be_cancelled_at_any_step(studio, steps):
    jobs = studio.open(gated=True)
    job_id = jobs.submit(toy_plan("steps=4", images=2))
    until(lambda: state(jobs, job_id) == "running")
    for _ in range(steps):
        studio.gate.release()
    images = steps // 4
    until(lambda: len(jobs.job(job_id, owner="local").images) == images)
    assert jobs.cancel(job_id, owner="local")
    jobs.cancel(job_id, owner="local")
    view = jobs.wait(job_id, SOON_S)
    assert view.state == "stopped"
    assert len(view.images) == len(studio.files()) == images
    until(lambda: studio.engines[0].idle())
    assert sum(is_terminal(event) for _, event in story(jobs, job_id)) == 1


def test_a_job_can_be_cancelled_before_the_worker_is_ready(studio):
    jobs = studio.open(lambda: Mute())
    job_id = jobs.submit(toy_plan())
    assert jobs.job(job_id, owner="local").position == 0
    assert jobs.cancel(job_id, owner="local")
    assert state(jobs, job_id) == "stopped"
    assert jobs.status().state == "starting"


class Mute:
    """A worker that never says a word."""

    def __init__(self):
        self._left = threading.Event()

    def start(self): ...

    def send(self, command): ...

    def receive(self, timeout):
        self._left.wait(min(timeout, 0.01))

    def alive(self):
        return not self._left.is_set()

    def kill(self):
        self._left.set()

    def stop(self, timeout):
        self._left.set()


def test_a_skipped_image_is_left_out_and_the_others_are_made(studio):
    jobs = studio.open(gated=True, slots=1)
    job_id = jobs.submit(toy_plan("steps=3", images=3))
    waiting = jobs.submit(toy_plan())
    until(lambda: state(jobs, job_id) == "running")
    assert not jobs.skip(waiting, owner="local")
    studio.gate.release(4)
    until(lambda: len(jobs.job(job_id, owner="local").images) == 1)
    assert jobs.skip(job_id, owner="local")
    studio.gate.release(1000)
    view = jobs.wait(job_id, SOON_S)
    assert (view.state, [image.index for image in view.images]) == ("finished", [0, 2])
    assert ImageSkipped(1) in [event for _, event in story(jobs, job_id)]
    assert not jobs.skip(job_id, owner="local")


def test_a_late_reader_is_told_the_same_story(studio):
    jobs = studio.open()
    job_id = jobs.submit(toy_plan("steps=5", images=3))
    live = story(jobs, job_id)
    late = story(jobs, job_id)
    assert [item for item in live if not isinstance(item[1], Progress)] == late
    assert [seq for seq, _ in live] == sorted({seq for seq, _ in live})
    assert [event.data for _, event in late if isinstance(event, ImageReady)] == [
        picture(job_id, index) for index in range(3)
    ]
    half = late[2][0]
    assert story(jobs, job_id, after=half) == late[3:]
    assert story(jobs, job_id, after=late[-1][0]) == []


def test_a_late_reader_of_a_running_job_gets_the_latest_progress(studio):
    jobs = studio.open(gated=True)
    job_id = jobs.submit(toy_plan("steps=9"))
    studio.gate.release(5)
    until(lambda: (seen := jobs.job(job_id, owner="local").progress) and seen.step == 5)

    async def first_three():
        events = jobs.events(job_id, owner="local")
        return [(await anext(events))[1] for _ in range(3)]

    queued, started, progress = asyncio.run(first_three())
    assert (type(queued), type(started), progress.step) == (Queued, Started, 5)
    assert jobs.preview(job_id, 0, owner="local") == b"preview 0 5"
    assert jobs.preview(job_id, 1, owner="local") is None
    studio.gate.release(1000)
    jobs.wait(job_id, SOON_S)
    assert jobs.preview(job_id, 0, owner="local") is None


def test_a_slow_reader_skips_steps_but_misses_no_image(studio):
    jobs = studio.open(gated=True)
    job_id = jobs.submit(toy_plan("steps=200", images=2))

    async def read():
        seen = []
        async for _, event in jobs.events(job_id, owner="local"):
            seen.append(event)
            if isinstance(event, Started):
                studio.gate.release(1000)
                await asyncio.to_thread(jobs.wait, job_id, SOON_S)
        return seen

    seen = asyncio.run(read())
    assert sum(isinstance(event, Progress) for event in seen) < 5
    assert [event.index for event in seen if isinstance(event, ImageReady)] == [0, 1]
    assert isinstance(seen[-1], Finished)


def test_a_watcher_hears_its_position_fall(studio):
    jobs = studio.open(slots=1, gated=True)
    ids = [jobs.submit(toy_plan("steps=2")) for _ in range(4)]

    async def read():
        seen = []
        async for _, event in jobs.events(ids[-1], owner="local"):
            seen.append(event)
            studio.gate.release(2)
        return seen

    seen = asyncio.run(asyncio.wait_for(read(), SOON_S))
    positions = [event.position for event in seen if isinstance(event, Queued)]
    assert positions[-1] == 0
    assert all(before > after for before, after in pairwise(positions))


def test_many_readers_come_and_go(studio):
    jobs = studio.open(gated=True)
    job_id = jobs.submit(toy_plan("steps=5"))

    async def glance():
        async for _, event in jobs.events(job_id, owner="local"):
            if isinstance(event, Started):
                return

    async def crowd():
        full = asyncio.create_task(anext_last(jobs.events(job_id, owner="local")))
        await asyncio.gather(*(glance() for _ in range(20)))
        gone = [
            asyncio.create_task(anext_last(jobs.events(job_id, owner="local"))) for _ in range(10)
        ]
        await asyncio.sleep(0.05)
        for task in gone:
            task.cancel()
        studio.gate.release(1000)
        return await full

    assert isinstance(asyncio.run(asyncio.wait_for(crowd(), SOON_S)), Finished)


async def anext_last(events):
    last = None
    async for _, event in events:
        last = event
    return last


def test_the_jobs_of_others_are_not_there(studio):
    jobs = studio.open(gated=True)
    job_id = jobs.submit(toy_plan(), owner="one")
    for ask in (jobs.job, jobs.cancel, jobs.skip):
        with pytest.raises(JobNotFound, match=f"^job: no job '{job_id}'$"):
            ask(job_id, owner="two")
    with pytest.raises(JobNotFound):
        jobs.preview(job_id, 0, owner="two")
    with pytest.raises(JobNotFound):
        story(jobs, job_id, owner="two")
    assert jobs.active(owner="two") == []
    assert [view.id for view in jobs.active(owner="one")] == [job_id]


def test_close_lets_a_running_job_end(studio):
    jobs = studio.open(slots=1)
    ids = [jobs.submit(toy_plan("steps=50 bytes=100000", images=3)) for _ in range(3)]
    until(lambda: state(jobs, ids[0]) != "waiting")
    jobs.close()
    with pytest.raises(ShuttingDown, match=r"^the server is shutting down; try again in a minute$"):
        jobs.submit(toy_plan())
    jobs.close()
    assert jobs.status().state == "stopped"
    again = studio.open()
    views = [again.wait(job_id, SOON_S) for job_id in ids]
    assert {view.state for view in views} == {"finished"}
    assert views[0].attempt == 1
    assert len(studio.files()) == 9


def test_close_gives_a_long_job_back_and_its_images_are_kept(studio):
    jobs = studio.open(gated=True, drain_s=0.2)
    job_id = jobs.submit(toy_plan("steps=2", images=2))
    studio.gate.release(3)
    until(lambda: len(jobs.job(job_id, owner="local").images) == 1)
    before = jobs.job(job_id, owner="local").images
    started = time.monotonic()
    jobs.close()
    assert time.monotonic() - started < 3
    again = studio.open()
    view = again.wait(job_id, SOON_S)
    assert (view.state, view.attempt, view.images[0]) == ("finished", 2, before[0])
    events = story(again, job_id)
    assert [event.index for _, event in events if isinstance(event, ImageReady)] == [0, 1]
    assert [type(event) for _, event in events].count(Queued) == 2
    assert [seq for seq, _ in events] == sorted(seq for seq, _ in events)
    assert len(studio.files()) == 2


def test_a_reader_is_let_go_when_the_server_closes_and_may_take_up_the_story(studio):
    jobs = studio.open(gated=True, drain_s=0.2)
    job_id = jobs.submit(toy_plan("steps=30"))

    async def read():
        closing = None
        seen = []
        async for item in jobs.events(job_id, owner="local"):
            seen.append(item)
            if isinstance(item[1], Progress) and item[1].step == 20:
                closing = asyncio.create_task(asyncio.to_thread(jobs.close))
        await closing
        return seen

    studio.gate.release(20)
    seen = asyncio.run(asyncio.wait_for(read(), SOON_S))
    assert not is_terminal(seen[-1][1])
    again = studio.open()
    assert again.wait(job_id, SOON_S).state == "finished"
    rest = story(again, job_id, after=seen[-1][0])
    assert [type(event) for _, event in rest][-3:] == [Started, ImageReady, Finished]


class Deaf(ThreadWorker):
    """A worker that does not hear when it should cancel."""

    def send(self, command):
        if not isinstance(command, Cancel):
            super().send(command)


def test_a_cancel_holds_when_the_worker_dies_before_it_obeys(studio):
    workers = []

    def build():
        workers.append(Deaf(lambda: ScriptedEngine(gate=studio.gate)))
        return workers[-1]

    jobs = studio.open(build)
    job_id = jobs.submit(toy_plan())
    until(lambda: state(jobs, job_id) == "running")
    assert jobs.cancel(job_id, owner="local")
    assert state(jobs, job_id) == "running"
    workers[0].kill()
    assert jobs.wait(job_id, SOON_S).state == "stopped"


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_a_killed_server_left_running_is_taken_up(studio, cancelled):
    jobs = studio.open(gated=True, drain_s=0.1)
    job_id = jobs.submit(toy_plan())
    jobs.close()
    day = studio.output_dir / "2020-01-01"
    orphan = day / "2020-01-01_00-00-00_1234.png"
    claim, torn = (
        day / f".2020-01-01_00-00-00_{number}.png.{job_id}.part" for number in (1234, 5678)
    )
    foreign = [
        day / "holiday.png",
        day / "2020-01-01_00-00-00_4321.png",
        day / "2020-01-01_00-00-00_5678.png",
        day / ".2020-01-01_00-00-00_4321.png.somebody-else.part",
    ]
    day.mkdir(parents=True)
    for path in (orphan, claim, *foreign):
        path.write_bytes(b"whole, but in no row")
    torn.write_bytes(b"whol")
    with contextlib.closing(sqlite3.connect(studio.data_dir / "pochade.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM lives").fetchone() == (1,)
        connection.execute("UPDATE jobs SET state = 'running', cancelled = ?", (cancelled,))
        connection.commit()
    view = studio.open().wait(job_id, SOON_S)
    assert view.state == ("stopped" if cancelled else "finished")
    assert sorted(day.iterdir()) == sorted(foreign)


def test_jobs_of_a_dead_worker_run_again_one_at_a_time(studio):
    jobs = studio.open(slots=3, gated=True)
    ids = [jobs.submit(toy_plan("steps=3", images=2)) for _ in range(4)]
    until(lambda: state(jobs, ids[2]) == "running")
    studio.workers[0].kill()
    until(lambda: len(studio.engines) == 2 and studio.engines[1].order)
    studio.gate.release(1000)
    views = [jobs.wait(job_id, SOON_S) for job_id in ids]
    assert [view.state for view in views] == ["finished"] * 4
    assert [view.attempt for view in views] == [2, 2, 2, 1]
    assert studio.engines[1].order == ids
    assert studio.engines[1].most_at_once == 1


def test_a_job_whose_worker_dies_twice_fails_with_the_reason(studio):
    jobs = studio.open(slots=2, gated=True)
    bad, good = jobs.submit(toy_plan("steps=3")), jobs.submit(toy_plan("steps=3"))
    until(lambda: state(jobs, good) == "running")
    studio.workers[0].kill()
    until(lambda: len(studio.engines) == 2 and studio.engines[1].order == [bad])
    studio.workers[1].kill()
    view = jobs.wait(bad, SOON_S)
    assert view.error == Failed(
        kind="worker_died",
        message="the worker ended while it painted this job, twice, the second time with no other beside it",
    )
    studio.gate.release(1000)
    assert jobs.wait(good, SOON_S).state == "finished"


def test_a_picture_that_cannot_be_saved_fails_its_job_and_the_queue_goes_on(studio):
    jobs = studio.open(slots=1)
    studio.output_dir.write_bytes(b"a file in the way of the folder")
    bad = jobs.wait(jobs.submit(toy_plan(images=3)), SOON_S)
    assert bad.error.kind == "storage_failed"
    assert bad.error.message.startswith("the picture could not be saved: ")
    assert bad.images == ()
    studio.output_dir.unlink()
    assert jobs.wait(jobs.submit(toy_plan()), SOON_S).state == "finished"


def test_an_open_queue_takes_jobs_before_its_worker_starts(studio):
    jobs = Jobs(studio.settings(), lambda: ThreadWorker(ScriptedEngine))
    studio.opened.append(jobs)
    jobs.open()
    job_id = jobs.submit(toy_plan())
    assert (state(jobs, job_id), jobs.status().state) == ("waiting", "starting")
    jobs.start()
    assert jobs.wait(job_id, SOON_S).state == "finished"


def test_two_servers_on_one_folder_are_refused(studio):
    studio.open()
    with pytest.raises(
        DataDirInUse, match=r"^data folder: expected one server at a time, .* is in use by another$"
    ):
        studio.open()


def test_submits_from_many_threads_all_count(studio):
    jobs = studio.open(slots=4, max_waiting=1000)
    ids: dict[str, list[str]] = {f"owner {n}": [] for n in range(8)}

    def submit(owner):
        for _ in range(10):
            ids[owner].append(jobs.submit(toy_plan("steps=1"), owner=owner))

    threads = [threading.Thread(target=submit, args=(owner,)) for owner in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for owner, own in ids.items():
        assert {jobs.wait(job_id, SOON_S, owner=owner).state for job_id in own} == {"finished"}
        assert [item for item in studio.engines[0].order if item in own] == own
    assert len(set(studio.engines[0].order)) == 80
