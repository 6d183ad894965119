"""The picture grid of a job: all its pictures in one, for whoever asked for that with *Picture grid*.

It is put together when it is looked at, from the pictures that are there: it goes on as long as they do, and shows none that
was deleted.
"""

import hashlib
import io
from typing import TYPE_CHECKING, Any

from engine import Plan, plan_to_json
from engine.records.read_image import embed
from jobs import JobView
from ui.grid_sheet import grid_size, mosaic

if TYPE_CHECKING:
    from PIL import Image

SOFTWARE = "Pochade"
"""Name of the program in the file."""
LEAST = 2
"""Pictures that make a grid."""


def wants_grid(plan: Plan | None) -> bool:
    """Say whether a job's pictures were to come as one too."""
    return plan is not None and plan.request.advanced.picture_grid


def has_grid(job: JobView) -> bool:
    """Say whether a job has a grid: it asked for one, is over, and has several pictures."""
    return wants_grid(job.plan) and job.is_over and len(job.images) >= LEAST


def grid_version(job: JobView) -> str:
    """Name the pictures that are in a grid, so that browsers see when there are others."""
    return hashlib.sha256("".join(image.id for image in job.images).encode()).hexdigest()[:12]


def grid_facts(job: JobView) -> dict[str, Any] | None:
    """Write a job's grid for the page, as one more picture; None where it has none."""
    if not has_grid(job):
        return None
    version = grid_version(job)
    width, height = grid_size([image.size for image in job.images])
    return {
        "id": f"{job.id}-{version}",
        "grid": version,
        "pictures": [image.id for image in job.images],
        "job": job.id,
        "index": len(job.plan.images) if job.plan else len(job.images),
        "seed": "",
        "width": width,
        "height": height,
        "prompt": job.prompt,
        "made": job.images[-1].created_at.isoformat(),
        "recipe": {"Pictures": len(job.images)},
        "before": None,
        "extras": [],
    }


def grid_picture(job: JobView) -> "Image.Image":
    """Put a job's pictures together.

    Raises:
        OSError: a file is gone or is no picture.
    """
    return mosaic([image.path for image in job.images], [image.size for image in job.images])


def grid_file(job: JobView) -> bytes:
    """Write a job's grid as a PNG with the settings of the whole job inside, unless its files were to have none.

    Raises:
        OSError: a file is gone or is no picture.
    """
    plan, options = job.plan, dict[str, Any]()
    if plan is not None and plan.save_metadata:
        # Foreign forms speak of one picture; this one brings all of them back.
        options = embed(plan_to_json(plan), "pochade", "png", SOFTWARE)
    file = io.BytesIO()
    grid_picture(job).save(file, "PNG", **options)
    return file.getvalue()
