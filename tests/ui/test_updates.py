"""Events become one line of plain words each, and the facts that the page draws."""

import json

import pytest

from engine import (
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Progress,
    Queued,
    Size,
    Started,
    Stopped,
)
from tests.jobs.scripted_engine import toy_plan
from ui.reuse import reused
from ui.updates import image_facts, update


def sampling(image: int = 0) -> Progress:
    return Progress(stage="sampling", image=image, step=12, steps=30, fraction=0.2, preview=b"jpeg")


@pytest.mark.parametrize(
    ("event", "images", "text"),
    [
        (Queued(2), 1, "Waiting behind 2"),
        (Queued(0), 1, "Next in the queue"),
        (Started(), 1, "Starting"),
        (Progress(stage="loading"), 2, "Loading the model"),
        (sampling(), 1, "Step 12 of 30"),
        (sampling(), 2, "Step 12 of 30, image 1 of 2"),
        (ImageSkipped(0), 2, "Image 1 of 2 skipped"),
        (Finished(timings={"total": 4.26}), 1, "Done in 4.3 s"),
        (Finished(), 1, "Done"),
        (Failed(kind="out_of_memory", message="the device is full"), 1, "the device is full"),
        (Stopped(), 1, "Stopped"),
    ],
)
def test_each_event_has_its_words(event, images, text):
    assert update(event, images)["text"] == text


def test_progress_says_how_far_and_whether_there_is_something_to_see():
    facts = update(sampling(image=1), 2)
    assert (facts["image"], facts["fraction"], facts["preview"]) == (1, 0.2, True)


def test_no_picture_travels_in_an_update():
    ready = ImageReady(index=0, seed=1, size=Size(8, 8), content_type="image/png", data=b"\x89PNG")
    for event in (sampling(), ready):
        assert "PNG" not in json.dumps(update(event, 1))


@pytest.fixture
def image(jobs):
    job_id = jobs.submit(toy_plan("a star", images=2, seed=2**60))
    jobs.wait(job_id, owner="local", timeout=20)
    return jobs.job(job_id, owner="local").images[1]


def test_a_seed_is_written_as_text(image):
    assert image_facts(image)["seed"] == str(2**60 + 1)


def test_reuse_takes_the_seed_of_this_very_picture(image):
    assert reused(image, "settings")["seed"] == 2**60 + 1
    assert reused(image, "seed") == {"seed": 2**60 + 1}
    assert reused(image, "prompt") == {"prompt": "a star"}


def test_reuse_leaves_steps_to_the_performance_mode_where_it_may(image):
    request = reused(image, "settings")
    assert request["performance"] == "Speed"
    assert request["advanced"]["num_inference_steps"] is None
