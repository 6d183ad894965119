"""What became of a call: its pictures, or why there are none, as the answer that its client gets, now or by webhook."""

import base64
import json
import logging
from pathlib import Path
from typing import Any

from api.answers import NO_BILL, Answer, cancelled, flat, of_failure
from api.settings import Api
from api.wire.endpoints import LORA
from engine import Failed
from jobs import Call, ImageView, JobView
from jobs.files import TENSORS

log = logging.getLogger(__name__)

EXTRAS = {"latents": "debug_latents", "passes": "debug_per_pass_latents"}
"""fal's fields of the further files of a job."""
GONE = "The request is not known any more."


def answer_of(api: Api, call: Call, cdn: str | None = None) -> Answer | None:
    """Write the answer to a call; None while it is not over.

    Args:
        api: The studio.
        call: Which.
        cdn: Address of the files as the client reaches them; None takes that of the call.

    Raises:
        JobNotFound: its job is gone.
        StorageFailed: the database cannot be read.
    """
    if call.error is not None:
        status, body = call.error
        return Answer(status, json.loads(body), NO_BILL)
    job = api.jobs.job(call.id, owner=call.owner)
    if not job.is_over:
        return None
    if job.state == "stopped":
        return cancelled()
    if job.error is not None:
        return of_failed(job.error)
    return Answer(200, output(api, call, job, cdn or call.cdn), NO_BILL)


def of_failed(failed: Failed) -> Answer:
    """Write why a job failed: never as a 503, which clients ask again, so that it would be painted again."""
    answer = of_failure(failed.kind, failed.message, failed.field)
    return of_failure("internal", failed.message) if answer.status == 503 else answer


def output(api: Api, call: Call, job: JobView, cdn: str) -> dict[str, Any]:
    """Write the pictures of a job that is finished.

    Args:
        api: The studio.
        call: What asked for them.
        job: The job.
        cdn: Address of the files as the client reaches them.
    """
    found = [
        (picture, flag)
        for image, flag in zip(job.images, job.has_nsfw_concepts, strict=True)
        if (picture := _picture(api, call, image, cdn)) is not None
    ]
    return {
        "images": [picture for picture, _ in found],
        "has_nsfw_concepts": [flag for _, flag in found],
        **(
            _of_studio(api, call, job, cdn) if call.endpoint == LORA else {"timings": _timings(job)}
        ),
    }


def _timings(job: JobView) -> dict[str, float]:
    """Name the seconds by stage as fal does."""
    timings = dict(job.timings)
    if "total" in timings:
        timings["inference"] = timings.pop("total")
    return timings


def _of_studio(api: Api, call: Call, job: JobView, cdn: str) -> dict[str, Any]:
    """Write what only the LoRA endpoint answers: the seed of the first picture, and latents that were asked for."""
    told: dict[str, Any] = {"seed": job.plan.images[0].seed if job.plan else None}
    for image in job.images:
        for kind, path in image.extras.items():
            name = f"{EXTRAS[kind]}_{job.id}{path.suffix}"
            told[EXTRAS[kind]] = _tensors(api, call, path, name, cdn)
    return told


def _tensors(api: Api, call: Call, path: Path, name: str, cdn: str) -> dict[str, Any] | None:
    """Write one file of tensors; None when it is gone."""
    try:
        stored = api.files.link(path, content_type=TENSORS, file_name=name, owner=call.owner)
    except (OSError, ValueError) as error:
        log.warning("%s is gone: %s", name, type(error).__name__, extra={"job": call.id})
        return None
    return {
        "url": api.files.address(stored, cdn),
        "content_type": TENSORS,
        "file_name": stored.name,
        "file_size": stored.size,
    }


def _picture(api: Api, call: Call, image: ImageView, cdn: str) -> dict[str, Any] | None:
    """Write one picture; None when its file is gone."""
    try:
        stored = api.files.link(
            image.path,
            content_type=image.content_type,
            file_name=f"{image.id}{image.path.suffix}",
            owner=call.owner,
        )
        url = _data_uri(image) if call.sync_mode else api.files.address(stored, cdn)
    except (OSError, ValueError) as error:  # a file that is gone, or out of the output folder
        problem = type(error).__name__
        log.warning("picture %d is gone: %s", image.index, problem, extra={"job": call.id})
        return None
    return {
        "url": url,
        "content_type": image.content_type,
        "file_name": stored.name,
        "file_size": stored.size,
        "width": image.size.width,
        "height": image.size.height,
    }


def _data_uri(image: ImageView) -> str:
    data = base64.b64encode(image.path.read_bytes()).decode()
    return f"data:{image.content_type};base64,{data}"


def unknown() -> Answer:
    """Write that there is no such request."""
    return flat(404, GONE)
