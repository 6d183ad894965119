"""From what was painted to a file: decoded, looked over, with its settings inside."""

import dataclasses
import logging
import time
from collections import Counter

from PIL import Image

from engine.errors import ModelNotFound
from engine.events import ImageReady
from engine.models.hashes import FileHashes
from engine.needed import needed_weights
from engine.palette import Palette
from engine.plan import Plan, only_image, plan_to_json
from engine.room import ran_out
from engine.stages.metadata import content_type, encode_image
from engine.stages.safety import SafetyCheck
from engine.work import Work

log = logging.getLogger(__name__)


class Finishing:
    """Finishes the images of all jobs."""

    def __init__(
        self, palette: Palette, safety: SafetyCheck, hashes: FileHashes, counters: Counter[str]
    ) -> None:
        """Finish with what others hold; ``images`` is counted."""
        self._palette = palette
        self._safety = safety
        self._hashes = hashes
        self._counters = counters

    def decode(self, work: Work, index: int) -> ImageReady:
        """Decode an image that is painted, and write its file.

        Where memory runs out even in tiles, the same latents are decoded while the UNet is aside.
        """
        started = time.monotonic()
        made: list[ImageReady] = []
        if ran_out(lambda: made.append(self._decoded(work, index)), work.job_id):
            with self._palette.model.aside():
                made.append(self._decoded(work, index))
        extras = work.extras(index, is_flagged=made[0].has_nsfw_concept)
        work.timings["decode"] += time.monotonic() - started
        return dataclasses.replace(made[0], extras=extras)

    def ready(self, work: Work, index: int, picture: Image.Image) -> ImageReady:
        """Look a finished picture over, and write its file."""
        picture, is_flagged = self._safety.look_over(work.plan, picture)
        painted = dataclasses.replace(work.plan, hashes=self._hashes_of(work.plan))
        data = encode_image(picture, painted, index)
        self._counters["images"] += 1
        return ImageReady(
            index=index,
            seed=painted.images[index].seed,
            size=painted.size,
            content_type=content_type(painted.output_format),
            data=data,
            has_nsfw_concept=is_flagged,
            plan=plan_to_json(only_image(painted, index)),
        )

    def _decoded(self, work: Work, index: int) -> ImageReady:
        image, beginning = work.running[index], work.beginning
        assert beginning is not None
        vae = self._palette.model.decoder_of(image.latent_format)
        latents = image.latent_format.to_vae(image.latents)
        return self.ready(work, index, beginning.finish(vae, latents))

    def _hashes_of(self, plan: Plan) -> tuple[tuple[str, str], ...]:
        """Name the sha256 of every file that the plan is painted with; they are worked out while it is painted.

        A file that is gone meanwhile has none: a hash never costs a picture.
        """
        hashes = []
        try:
            for item in needed_weights(self._palette.catalog, plan) if plan.save_metadata else ():
                hashes.append((item.name, self._hashes.get(item.path)))
        except (OSError, ModelNotFound) as error:
            log.warning("no hash in the record: %s", error)
        return tuple(hashes)
