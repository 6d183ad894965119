"""What happens to a job, in the words of the page. Pure functions from the engine's and the queue's values to JSON."""

from typing import Any, assert_never

from engine import (
    Event,
    Failed,
    Finished,
    ImageReady,
    ImageSkipped,
    Plan,
    Progress,
    Queued,
    Started,
    Stopped,
)
from jobs import ImageView, JobView
from ui.before import before_facts
from ui.picture_grid import grid_facts


def update(event: Event, images: int) -> dict[str, Any]:
    """Write one event for the page.

    Args:
        event: What happened.
        images: How many pictures the job makes.

    Returns:
        ``kind`` (what happened), ``text`` (one line for the person) and the facts that the page draws.
    """
    more: dict[str, Any] = {}
    match event:
        case Queued(position=position):
            kind, text = "waiting", _waiting(position)
        case Started():
            kind, text = "started", "Starting"
        case Progress():
            kind, text = "progress", _progress(event, images)
            more = {
                "image": event.image,
                "fraction": round(event.fraction, 4),
                "preview": event.preview is not None,
            }
        case ImageReady(index=index):
            kind, text, more = "image", f"Image {index + 1} of {images} is ready", {"image": index}
        case ImageSkipped(index=index):
            kind, text, more = "skipped", f"Image {index + 1} of {images} skipped", {"image": index}
        case Finished(timings=timings, notes=notes):
            kind, text = "finished", ". ".join([_done(timings.get("total")), *notes])
        case Failed(message=message):
            kind, text = "failed", message
        case Stopped():
            kind, text = "stopped", "Stopped"
        case _:
            assert_never(event)
    return {"kind": kind, "text": text, **more}


def job_facts(job: JobView) -> dict[str, Any]:
    """Write a job for the page."""
    return {
        "id": job.id,
        "state": job.state,
        "text": _waiting(job.position or 0) if job.state == "waiting" else "",
        "prompt": job.prompt,
        "paints": job.plan is None or job.plan.needs_base_model,
        "count": image_count(job),
        "ratio": round(job.plan.size.ratio, 4) if job.plan else 1.0,
        "images": [image_facts(image) for image in job.images],
        "grid": grid_facts(job),
        "words": job.text,
    }


def image_count(job: JobView) -> int:
    """Count the pictures that a job makes; of a job from another version, those that it made."""
    return job.plan.count if job.plan else len(job.images)


def image_facts(image: ImageView) -> dict[str, Any]:
    """Write a finished picture for the page; the seed is text, since it may exceed a browser's whole numbers."""
    return {
        "id": image.id,
        "job": image.job_id,
        "index": image.index,
        "seed": str(image.seed),
        "width": image.size.width,
        "height": image.size.height,
        "prompt": image.prompt,
        "made": image.created_at.isoformat(),
        "recipe": _recipe(image.plan),
        "before": before_facts(image.plan),
        "extras": list(image.extras),
    }


def _recipe(plan: Plan | None) -> dict[str, Any] | None:
    """Write what a picture's details show; None when its plan cannot be read, and so not be used again."""
    if plan is None:
        return None
    return {
        "Not": plan.negative_prompt,
        "Model": plan.base_model,
        "Steps": plan.sampling.num_inference_steps,
        "Guidance": plan.guidance.guidance_scale,
        "Sharpness": plan.guidance.sharpness,
        "Sampler": f"{plan.sampling.sampler}, {plan.sampling.scheduler}",
    }


def _waiting(position: int) -> str:
    return f"Waiting behind {position}" if position else "Next in the queue"


def _progress(event: Progress, images: int) -> str:
    which = f", image {event.image + 1} of {images}" if images > 1 else ""
    match event.stage:
        case "fetching":
            size = f" of {event.steps}" if event.steps else ""
            return f"Fetching {event.file}: {event.step}{size} MB"
        case "loading":
            return "Loading the model"
        case "enlarging":
            return f"Enlarging the picture: {event.step} %"
        case "sampling":
            return f"Step {event.step} of {event.steps}" + which
        case _:
            assert_never(event.stage)


def _done(seconds: float | None) -> str:
    return "Done" if seconds is None else f"Done in {seconds:.1f} s"
