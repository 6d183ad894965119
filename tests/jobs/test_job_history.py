"""Pictures are found again, hidden, brought back, and gone for good after a while."""

import asyncio

import pytest

from engine import ImageReady, plan_from_json
from engine.plan import with_expansion
from jobs import ImageNotFound
from tests.jobs.scripted_engine import toy_plan

SOON_S = 60.0


@pytest.fixture
def jobs(studio):
    return studio.open(slots=1)


def paint(jobs, prompt="a cat", *, images=1, owner="local", seed=7):
    job_id = jobs.submit(toy_plan(prompt, images=images, seed=seed), owner=owner)
    return jobs.wait(job_id, SOON_S, owner=owner).images


def prompts(jobs, search):
    return [image.prompt for image in jobs.history(owner="local", search=search)]


def test_history_is_newest_first_and_pages_by_the_last_id(jobs):
    made = [*paint(jobs, images=3), *paint(jobs, images=4)]
    pages, before = [], None
    while page := jobs.history(owner="local", before=before, limit=3):
        pages.append(page)
        before = page[-1].id
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [image for page in pages for image in page] == made[::-1]


def test_search_finds_all_words_in_any_case_and_takes_signs_literally(jobs):
    for prompt in ("A Red Star", "red moon", "100% ÄRGER_x", "100 percent"):
        paint(jobs, prompt)
    assert prompts(jobs, "red") == ["red moon", "A Red Star"]
    assert prompts(jobs, " STAR red ") == ["A Red Star"]
    assert prompts(jobs, "ärger") == prompts(jobs, "0%") == prompts(jobs, "r_X") == ["100% ÄRGER_x"]
    assert prompts(jobs, "' OR 1=1 --") == []


def test_a_picture_knows_the_plan_of_itself_alone(jobs):
    image = paint(jobs, images=3, seed=40)[2]
    assert (image.index, image.seed) == (2, 42)
    assert image.plan == toy_plan("a cat", seed=42)
    assert jobs.image(image.id, owner="local") == image


def test_a_picture_knows_its_plan_as_it_was_painted(studio):
    jobs = studio.open()
    images = paint(jobs, "a cat adds=finely", images=2, seed=40)
    given = toy_plan("a cat adds=finely", seed=41)
    assert images[1].plan == with_expansion(given, 0, "finely") != given
    jobs.close()
    jobs = studio.open()
    assert jobs.history(owner="local") == list(images[::-1])
    assert jobs.job(images[0].job_id, owner="local").plan == toy_plan(
        "a cat adds=finely", images=2, seed=40
    )


def test_a_story_tells_the_plan_as_it_was_painted_also_later(studio):
    jobs = studio.open()
    (image,) = paint(jobs, "a cat adds=finely")

    async def read():
        return [event async for _, event in jobs.events(image.job_id, owner="local")]

    (ready,) = [event for event in asyncio.run(read()) if isinstance(event, ImageReady)]
    assert plan_from_json(ready.plan) == image.plan


def test_pictures_of_others_are_not_there(jobs):
    (image,) = paint(jobs, owner="one")
    with pytest.raises(ImageNotFound, match=f"^image: no picture '{image.id}'$"):
        jobs.image(image.id, owner="two")
    assert jobs.history(owner="two") == []
    assert jobs.delete([image.id], owner="two") == 0
    assert jobs.image(image.id, owner="one") == image


def test_a_deleted_picture_can_be_restored(jobs):
    images = paint(jobs, images=3)
    ids = [image.id for image in images[:2]]
    assert jobs.delete([*ids, *ids, "unknown"], owner="local") == 2
    assert jobs.delete(ids, owner="local") == 0
    assert jobs.history(owner="local") == [images[2]]
    assert jobs.job(images[0].job_id, owner="local").images == (images[2],)
    with pytest.raises(ImageNotFound):
        jobs.image(ids[0], owner="local")
    assert jobs.restore(ids, owner="local") == 2
    assert jobs.restore(ids, owner="local") == 0
    assert jobs.history(owner="local") == list(images[::-1])
    assert all(image.path.exists() for image in images)


def test_deleted_pictures_go_for_good_at_a_later_start(studio):
    jobs = studio.open()
    kept, gone = paint(jobs, images=2)
    assert jobs.delete([gone.id], owner="local") == 1
    jobs.close()
    jobs = studio.open()
    assert gone.path.exists()
    jobs.close()
    jobs = studio.open(trash_days=0.0)
    assert studio.files() == [kept.path]
    assert jobs.restore([gone.id], owner="local") == 0
    assert jobs.history(owner="local") == [kept]


def test_many_pictures_can_be_deleted_in_one_call(jobs):
    (image,) = paint(jobs)
    assert jobs.delete([*(f"unknown {n}" for n in range(5000)), image.id], owner="local") == 1
