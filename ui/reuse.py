"""From a picture, or all of a job, back to the form: what *reuse* puts there."""

from typing import Any, Literal

from engine import InvalidRequest, request_of
from jobs import ImageView, JobView

What = Literal["settings", "prompt", "seed"]


def reused(image: ImageView, what: What) -> dict[str, Any]:
    """Write the part of a picture's request that goes back into the form.

    Args:
        image: The picture; everything is read from its record.
        what: ``settings`` is all of it, with the seed of this very picture.

    Raises:
        InvalidRequest: the record cannot be read.
    """
    request = {**reused_job(image), "seed": image.seed}
    return request if what == "settings" else {what: request[what]}


def reused_job(made: ImageView | JobView) -> dict[str, Any]:
    """Write all that a job asked for, or a picture's own request as it is.

    Raises:
        InvalidRequest: the record cannot be read.
    """
    if made.plan is None:
        raise InvalidRequest(
            "image", "its settings were written by a version that this one cannot read"
        )
    return request_of(made.plan)
