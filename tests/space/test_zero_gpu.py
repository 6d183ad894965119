"""On ZeroGPU the page paints with a card that is lent for one job: with the real package ``spaces``, and a scheduler on loopback."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.space.fake_zero_gpu import QUOTA_S, token_of
from tests.space.living_space import BROWSER, LivingSpace
from tests.space.page_client import Visitor
from tests.space.test_space_paints import PROMPT, SMALL
from zero_gpu import refusal

torch_ring = pytest.mark.torch


def visitor(space: LivingSpace, name: str) -> Visitor:
    return Visitor(space.address, {**BROWSER, "x-ip-token": token_of(name)})


def paint(who: Visitor) -> np.ndarray:
    """Paint one picture from the page; returns its pixels."""
    job = who.paint(PROMPT, **SMALL)
    ending = who.story(job)[-1]
    assert ending["kind"] == "finished", ending
    image = next(it for it in who.images() if it["job"] == job)
    return np.asarray(Image.open(io.BytesIO(who.picture(image["id"]))))


@torch_ring
def test_a_job_is_charged_to_who_asked_and_the_card_is_given_back(lent, space) -> None:
    zero, scheduler = lent
    assert len(scheduler.calls("startup-report")) == 1
    scheduler.asked.clear()
    with visitor(zero, "ann") as ann, Visitor(space.address, BROWSER) as elsewhere:
        assert np.array_equal(paint(ann), paint(elsewhere))
    [asked] = scheduler.calls("schedule")
    assert asked["token"] == token_of("ann")
    assert 15 <= int(asked["durationSeconds"]) <= 300
    assert [name for name, _ in scheduler.asked] == ["schedule", "allow", "release"]
    assert scheduler.calls("release")[0]["fail"] == "false"


@torch_ring
def test_stop_gives_the_card_back_and_the_next_visitor_gets_it(lent) -> None:
    zero, scheduler = lent
    scheduler.asked.clear()
    with visitor(zero, "ann") as ann, visitor(zero, "bob") as bob:
        job = ann.paint(PROMPT, num_images=4)
        told = []
        for said in ann.events(job):
            told.append(said["kind"])
            if said["kind"] == "progress" and said["text"].startswith("Step"):
                ann.http.post(f"/studio/jobs/{job}/cancel").raise_for_status()
        assert told[-1] == "stopped"
        paint(bob)
    assert [it.get("token") for it in scheduler.calls("schedule")] == [
        token_of("ann"),
        token_of("bob"),
    ]
    assert len(scheduler.calls("release")) == 2


@torch_ring
def test_skip_reaches_the_process_that_paints(lent) -> None:
    with visitor(lent[0], "ann") as ann:
        job = ann.paint(PROMPT, **{**SMALL, "num_images": 2})  # of 8 steps each
        kinds = []
        for said in ann.events(job):
            kinds.append(said["kind"])
            if said["kind"] == "progress" and "skipped" not in kinds:
                ann.http.post(f"/studio/jobs/{job}/skip").raise_for_status()
        assert kinds[-1] == "finished"
        assert (kinds.count("skipped") > 0, kinds.count("image") < 2) == (True, True)


@torch_ring
def test_a_quota_that_is_used_up_is_one_sentence_and_not_the_end(lent) -> None:
    with visitor(lent[0], QUOTA_S) as late, visitor(lent[0], "ann") as ann:
        ending = late.story(late.paint(PROMPT, **SMALL))[-1]
        assert ending["kind"] == "failed"
        assert ending["text"].startswith("ZeroGPU lends no graphics card for the ")
        assert "s requested vs. 7s left" in ending["text"]
        paint(ann)


@torch_ring
def test_programs_are_charged_for_theirs(lent) -> None:
    zero, scheduler = lent
    scheduler.asked.clear()
    with visitor(zero, "ann") as ann:
        body = {"prompt": PROMPT, "num_images": 1, "styles": [], "performance": "Extreme Speed"}
        answer = ann.http.post("/fal-ai/fooocus", json=body, timeout=240)
        assert answer.status_code == 200, answer.text
    assert [it["token"] for it in scheduler.calls("schedule")] == [token_of("ann")]


@torch_ring
def test_nothing_is_written_where_nothing_may_be(lent) -> None:
    zero, _ = lent
    assert {it.split()[1].rpartition("/")[2][:9] for it in zero.refused()} <= {
        "models",
        "..hashes.",
    }


@pytest.mark.parametrize(
    ("title", "message", "words"),
    [
        ("ZeroGPU worker error", "GPU task aborted", "the job had asked for 60 s"),
        ("ZeroGPU worker error", "ValueError", r"an internal error \(ValueError\)"),
        ("ZeroGPU queue timeout", "No GPU. [Sign up](https://x) to", "needs: No GPU. Sign up to"),
        ("", "503", "no graphics card for the 60 s that this job needs: 503"),
    ],
)
def test_what_spaces_says_becomes_one_sentence(title, message, words) -> None:
    said = refusal(title, message, 60)
    assert words.replace("\\", "") in said
    assert "\n" not in said
