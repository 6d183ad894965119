"""The engine: jobs in, events out, one model call at a time.

`admit` takes a plan, `step` moves everything that runs one model call on and tells what happened, `skip` and `cancel` end
images between two steps. One thread calls it. Knows nothing of queues, owners, HTTP or Gradio.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from engine.begin import begin_image
from engine.catalog import Catalog, read_catalog
from engine.errors import EngineError, OutOfMemory
from engine.events import Event, ImageReady, Progress
from engine.loop import Running, step
from engine.models.devices import choose_device, use_threads
from engine.plan import Plan
from engine.stages.decode import decode_latents
from engine.stages.metadata import content_type, encode_image
from engine.stages.preview import encode_previews
from engine.warm import WarmModel, warm_up
from engine.work import Work

log = logging.getLogger(__name__)

CPU_ROWS = 8
"""UNet rows that run together on a CPU at most (design D8)."""
GPU_ROWS = 16
"""The same on a GPU, until memory runs out for the first time."""
TOO_LARGE = "the device has too little memory for a picture of this size"


def create(models_dir: str, model: str | None = None, device: str = "auto") -> "Engine":
    """Build an engine in the process that is to paint; arguments are plain text so that they cross processes.

    Raises:
        InvalidRequest: the device is not there.
        ModelNotFound: `model` is not below `models_dir`.
    """
    chosen = choose_device(device)
    use_threads(chosen)
    return Engine(read_catalog(Path(models_dir), model), chosen)


class Engine:
    """Paints the images of several jobs together on one device."""

    def __init__(self, catalog: Catalog, device: torch.device) -> None:
        self._catalog = catalog
        self._device = device
        self._model: WarmModel | None = None
        self._works: dict[str, Work] = {}
        self._counters: Counter[str] = Counter()
        self._max_rows = CPU_ROWS if device.type == "cpu" else GPU_ROWS

    def preload(self, base_model: str) -> None:
        """Bring a base model into memory now rather than at its first job.

        Raises:
            EngineError: it is not there, or not SDXL.
        """
        self._use(base_model)

    def slots(self) -> int:
        """Jobs that it makes sense to admit at a time."""
        return self._max_rows // 2

    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._works

    def counters(self) -> Mapping[str, int]:
        """``unet_calls`` and ``unet_rows`` since the start, and ``images`` made."""
        return dict(self._counters)

    @property
    def device(self) -> str:
        """Name the device, for people."""
        if self._device.type == "cuda":
            return torch.cuda.get_device_name(self._device)
        threads = torch.get_num_threads()
        return f"{self._device.type}, {threads} thread{'' if threads == 1 else 's'}"

    def admit(self, job_id: str, plan: Plan, inputs: Mapping[str, Path]) -> None:
        """Take a job; its images start as there is room for them.

        Raises:
            ModelNotFound: the base model is not in the catalog.
        """
        checkpoint = self._catalog.checkpoint(plan.base_model)
        work = self._works[job_id] = Work(plan)
        if self._model is None or self._model.name != checkpoint.name:
            work.outbox.append(Progress(stage="loading"))

    def skip(self, job_id: str) -> None:
        """End the image of a job that is nearest to its end; the others go on."""
        if work := self._works.get(job_id):
            work.skip()

    def cancel(self, job_id: str) -> None:
        """End a job; images that are ready stay."""
        if work := self._works.get(job_id):
            work.stop()

    def step(self) -> Sequence[tuple[str, Event]]:
        """Start what fits, advance all running images by one model call, finish what is done.

        What is already known is told before anything slow begins.
        """
        if told := self._tell():
            return told
        self._start_images()
        busy = [work for work in self._works.values() if work.running]
        try:
            self._advance(busy)
        except torch.OutOfMemoryError as error:
            log.warning("out of memory: %s", error)
            self._make_room(busy)
        return self._tell()

    def _advance(self, busy: Sequence[Work]) -> None:
        """Make one model call for all that run, and do what follows from it."""
        if images := [image for work in busy for image in work.running.values()]:
            started = time.monotonic()
            self._counters["unet_calls"] += step(images)
            self._counters["unet_rows"] += sum(work.rows for work in busy)
            for work in busy:
                work.timings["sample"] += time.monotonic() - started
            self._show(busy)
            self._finish_images(busy)

    def _make_room(self, busy: Sequence[Work]) -> None:
        """After memory ran out: start anew with half the rows; a picture that is too large even alone fails."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        images = sum(len(work.running) for work in busy)
        self._max_rows = max(2, sum(work.rows for work in busy) // 2)
        for work in busy:
            if images > 1:
                work.wait_again()
            else:
                work.fail(OutOfMemory(TOO_LARGE))

    def _tell(self) -> list[tuple[str, Event]]:
        """Empty the outboxes, and let go of what is over."""
        told = [(job_id, event) for job_id, work in self._works.items() for event in work.outbox]
        self._works = {job_id: work for job_id, work in self._works.items() if not work.is_over}
        for work in self._works.values():
            work.outbox.clear()
        return told

    def _start_images(self) -> None:
        """Begin images while their rows fit: one of each job in turn, so that a large job leaves room for others."""
        while waiting := [work for work in self._works.values() if work.waiting]:
            work = min(waiting, key=lambda work: len(work.running))
            if not self._fits(work):
                return
            try:
                self._start_image(work)
            except EngineError as error:
                work.fail(error)
            except torch.OutOfMemoryError as error:
                log.warning("out of memory: %s", error)
                work.fail(OutOfMemory(TOO_LARGE))

    def _fits(self, work: Work) -> bool:
        rows = sum(other.rows for other in self._works.values())
        if rows and (self._model is None or self._model.name != work.plan.base_model):
            return False
        return not rows or rows + work.rows_per_image <= self._max_rows

    def _start_image(self, work: Work) -> None:
        started = time.monotonic()
        model = self._use(work.plan.base_model)
        loaded = time.monotonic()
        index = work.waiting[0]
        image = work.plan.images[index]
        branches = model.encoder.branches(work.plan, image)
        work.running[index] = begin_image(model.denoiser, work.plan, image, branches)
        work.waiting.pop(0)
        work.timings["load"] += loaded - started
        work.timings["encode"] += time.monotonic() - loaded

    def _use(self, name: str) -> WarmModel:
        """Give the base model of that name, loading it where it is not the one in memory."""
        if self._model is None or self._model.name != name:
            self._model = None
            self._model = warm_up(self._catalog.checkpoint(name), self._device)
        return self._model

    def _show(self, busy: Iterable[Work]) -> None:
        """Tell how far each running image is, with a preview where one is wanted and the picture itself isn't there."""
        shown = [
            image
            for work in busy
            if work.plan.previews
            for image in work.running.values()
            if not image.is_done
        ]
        previews = self._previews(shown)
        for work in busy:
            for index, image in work.running.items():
                work.outbox.append(work.progress(index, previews.get(image)))

    def _previews(self, images: Sequence[Running]) -> dict[Running, bytes]:
        """Decode the latest estimates; those of one size together."""
        by_shape: dict[torch.Size, list[Running]] = {}
        for image in images:
            by_shape.setdefault(image.shape, []).append(image)
        previews: dict[Running, bytes] = {}
        for group in by_shape.values():
            estimates = torch.cat([image.denoised for image in group])
            previews.update(zip(group, encode_previews(self._warm.preview, estimates), strict=True))
        return previews

    def _finish_images(self, busy: Iterable[Work]) -> None:
        for work in busy:
            for index in work.done():
                work.finish_image(self._decode(work, index))

    def _decode(self, work: Work, index: int) -> ImageReady:
        started = time.monotonic()
        picture = decode_latents(self._warm.vae, work.running[index].latents, work.plan.size)
        data = encode_image(picture, work.plan, index)
        self._counters["images"] += 1
        work.timings["decode"] += time.monotonic() - started
        return ImageReady(
            index=index,
            seed=work.plan.images[index].seed,
            size=work.plan.size,
            content_type=content_type(work.plan.output_format),
            data=data,
        )

    @property
    def _warm(self) -> WarmModel:
        """The model in memory; there is one whenever an image runs."""
        assert self._model is not None
        return self._model
