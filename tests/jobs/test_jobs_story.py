"""A story keeps what must not be missed, the latest of the rest, and numbers that never run backwards."""

from engine import Finished, Progress, Queued, Started
from jobs.story import Entry, Story


def progress(image, step):
    return Progress(
        stage="sampling", image=image, step=step, steps=9, preview=f"{image} {step}".encode()
    )


def events(story, after=0):
    return [entry.event for entry in story.read(after)[0]]


def test_only_the_latest_progress_of_each_image_is_told():
    story = Story()
    story.add(Started())
    for step in (1, 2):
        for image in (0, 1):
            story.show(progress(image, step))
    assert events(story) == [Started(), progress(0, 2), progress(1, 2)]
    assert story.previews == {0: b"0 2", 1: b"1 2"}


def test_a_download_gives_way_to_what_comes_after_it():
    story = Story()
    story.add(Started())
    for done in (1, 2):
        story.show(Progress(stage="fetching", file="big.safetensors", step=done, steps=7))
    assert events(story) == [
        Started(),
        Progress(stage="fetching", file="big.safetensors", step=2, steps=7),
    ]
    story.show(progress(0, 1))
    assert events(story) == [Started(), progress(0, 1)]


def test_a_position_is_told_once_and_forgotten_when_the_job_starts():
    story = Story()
    story.add(Queued(2))
    for position in (2, 1, 1):
        story.show(Queued(position))
    assert events(story) == [Queued(2), Queued(1)]
    story.add(Started())
    assert events(story) == [Queued(2), Started()]


def test_a_job_that_waits_again_or_ends_has_no_progress():
    for event in (Queued(0), Finished()):
        story = Story()
        story.show(progress(0, 1))
        story.add(event)
        assert (events(story), story.previews, story.progress) == ([event], {}, None)


def test_numbers_of_a_later_life_are_above_all_that_an_earlier_one_gave_out():
    kept = [Entry(1, Queued()), Entry(2, Started())]
    earlier, later = Story(kept, life=3), Story(kept, life=4)
    for step in range(50):
        earlier.show(progress(0, step))
    later.add(Finished())
    assert events(later, after=earlier.read(0)[0][-1].seq) == [Finished()]
