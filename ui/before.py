"""What a picture was made from: where that lies in the picture, and the file of it.

A job keeps what was sent along with it, so this is there as long as the picture is, and however it was asked for. Of an
enhanced picture it is the one that the enhancement found.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from engine import Plan
from engine.plan import FromPicture, Given, Repainting
from jobs import ImageView, Jobs, JobView

OUTPAINTED = 0.3
"""Share of its height or width that a picture grows by at each side, as `engine.stages.masks` has it."""


def before_facts(plan: Plan | None) -> dict[str, Any] | None:
    """Write for the page how a picture lies over what it was made from; None where it was made from none.

    ``box`` is where that lies in the picture, as left, top, width and height in shares of the picture's own; ``fit`` says what
    happens where the shapes differ, in the words of CSS.
    """
    if plan is None or not (plan.is_enhancement or _input_of(plan)):
        return None
    sides = (
        () if plan.is_enhancement or not isinstance(plan.start, Repainting) else plan.start.outpaint
    )
    fit = "cover" if plan.studio is not None else "fill"
    return {"box": box_of(sides), "fit": fit}


def box_of(sides: Collection[str]) -> list[float]:
    """Say where a picture lies in what it became by being painted beyond its sides."""
    wide = 1 + OUTPAINTED * (("Left" in sides) + ("Right" in sides))
    high = 1 + OUTPAINTED * (("Top" in sides) + ("Bottom" in sides))
    left, top = OUTPAINTED * ("Left" in sides) / wide, OUTPAINTED * ("Top" in sides) / high
    return [round(it, 5) for it in (left, top, 1 / wide, 1 / high)]


def before_file(jobs: Jobs, image: ImageView, owner: str) -> Path | None:
    """Find the file of what a picture was made from; None where there is none, or none any more.

    Raises:
        JobNotFound: the picture is not the owner's.
    """
    plan = image.plan
    if plan is None:
        return None
    if plan.is_enhancement:
        return _before_enhancement(jobs, image, owner)
    name = _input_of(plan)
    return None if name is None else jobs.input(image.job_id, name, owner=owner)


def _before_enhancement(jobs: Jobs, image: ImageView, owner: str) -> Path | None:
    job = jobs.job(image.job_id, owner=owner)
    if job.plan is None or not job.plan.enhancements:
        return None
    given = job.plan.start.image if isinstance(job.plan.start, Given) else None
    if (earlier := _earlier(job, image.index, is_given=given is not None)) is not None:
        return earlier.path
    return None if given is None else jobs.input(job.id, given, owner=owner)


def _earlier(job: JobView, index: int, *, is_given: bool) -> ImageView | None:
    """Find the picture of a job that another one was made from, among those of the same beginning."""
    assert job.plan is not None
    if job.plan.keeps_final_only:
        return None
    steps = len(job.plan.enhancements[0]) + (0 if is_given else 1)
    first = index - index % steps
    return next((it for it in reversed(job.images) if first <= it.index < index), None)


def _input_of(plan: Plan) -> str | None:
    """Name the file that a picture starts from."""
    if plan.studio is not None and plan.studio.relighting is not None:
        return plan.studio.relighting.image
    return plan.start.image if isinstance(plan.start, FromPicture | Repainting | Given) else None
