"""The engine: jobs in, events out, one model call at a time.

`admit` takes a plan, `step` moves everything that runs one model call on and tells what happened, `skip` and `cancel` end
images between two steps. One thread calls it. Knows nothing of queues, owners, HTTP or Gradio.
"""

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from engine.begin import begin_image
from engine.catalog import Catalog, Checkpoint, Weights
from engine.chains import Chains
from engine.errors import EngineError, ModelIncompatible, ModelNotFound, OutOfMemory
from engine.events import Event, ImageReady, Progress
from engine.fetching import Fetches
from engine.geometry import Size
from engine.library import Library, Shelves, read_weights
from engine.logs import of_job
from engine.loop import Running, step
from engine.models.devices import choose_device, use_threads
from engine.models.expander import ModelExpander
from engine.models.hashes import FileHashes, models_hashes
from engine.models.levers import Levers
from engine.needed import needed_weights
from engine.net import Fetcher
from engine.plan import ImagePlan, Plan, only_image, plan_to_json, with_expansion
from engine.requests import TextRequest
from engine.sampling.latent_format import LatentFormat
from engine.settle import plan
from engine.stages.decode import decode_latents
from engine.stages.metadata import content_type, encode_image
from engine.stages.preview import encode_previews
from engine.stages.safety import SafetyCheck
from engine.starts import Beginning, Starts
from engine.warm import Palette, WarmModel
from engine.warm_models import usual_budget
from engine.work import Work

log = logging.getLogger(__name__)

CPU_ROWS = 8
"""UNet rows that run together on a CPU at most (design D8)."""
GPU_ROWS = 16
"""The same on a GPU, until memory runs out for the first time."""
TURN_S = 2.0
"""How long jobs that need the weights in force go first while others wait (design D8)."""
FETCH_LOOK_S = 0.5
"""How long to wait for files from the network before telling how far they are."""
FIRST_SIZE = Size(64, 64)
"""Size in pixels of the picture that a model is tried out with."""
TOO_LARGE = "the device has too little memory for a picture of this size"


def create(  # noqa: PLR0913  (one for each flag of the program)
    models_dir: str,
    model: str | None = None,
    device: str = "auto",
    *,
    fooocus_dir: str | None = None,
    presets_dir: str | None = None,
    expansion_model: str | None = None,
    allow_pickle: bool = False,
    allow_private_urls: bool = False,
    require_safety: bool = False,
    warm_gb: float | None = None,
    levers: Levers | None = None,
) -> "Engine":
    """Build an engine in the process that is to paint; arguments are plain text so that they cross processes.

    Args:
        models_dir: Folder of the weights.
        model: Name of the base model that is the default.
        device: Where to paint.
        fooocus_dir: A Fooocus folder whose weights are used too.
        presets_dir: Folder of a person's own presets, which may say where weights can be fetched.
        expansion_model: Folder or hub id of a language model that writes the words of *Fooocus V2*.
        allow_pickle: Whether weights may be read from pickled files.
        allow_private_urls: Whether weights that a request names may come from private addresses.
        require_safety: Whether pictures that are to be checked and cannot be are refused, rather than left unchecked; the
            safety checker is fetched then.
        warm_gb: Memory in gigabytes that base models may take together, so that the latest used need no loading; one stays in
            any case. None is 0.6 of a GPU's memory, or 0.4 of the machine's.
        levers: How UNets are run; None is as pays on the device.

    Raises:
        InvalidRequest: the device is not there.
        ModelNotFound: `model` is not below `models_dir`.
    """
    chosen = choose_device(device)
    use_threads(chosen)
    shelves = Shelves(
        models_dir=Path(models_dir),
        fooocus_dir=Path(fooocus_dir) if fooocus_dir else None,
        presets_dirs=(Path(presets_dir),) if presets_dir else (),
    )
    return Engine(
        lambda: read_weights(shelves, model),
        chosen,
        models_hashes(shelves.models_dir),
        guard=Fetcher(allow_private=allow_private_urls),
        expansion_model=expansion_model,
        allow_pickle=allow_pickle,
        require_safety=require_safety,
        warm_bytes=usual_budget(chosen) if warm_gb is None else int(warm_gb * 1e9),
        levers=levers,
    )


class Engine:
    """Paints the images of several jobs together on one device."""

    def __init__(  # noqa: PLR0913  (what `create` settles)
        self,
        read_catalog: Callable[[], Catalog],
        device: torch.device,
        hashes: FileHashes,
        *,
        guard: Fetcher,
        expansion_model: str | None = None,
        allow_pickle: bool = False,
        require_safety: bool = False,
        warm_bytes: int = 0,
        levers: Levers | None = None,
    ) -> None:
        self._read_catalog = read_catalog
        self._device = device
        self._palette = Palette(
            read_catalog(), device, allow_pickle=allow_pickle, budget=warm_bytes, levers=levers
        )
        self._fetches = Fetches(guard, allow_pickle=allow_pickle)
        self._expander = ModelExpander(expansion_model) if expansion_model else None
        self._hashes = hashes
        self._safety = SafetyCheck(
            device, hashes.get, is_required=require_safety, allow_pickle=allow_pickle
        )
        self._works: dict[str, Work] = {}
        self._chains = Chains(self._admit)
        self._starts = Starts(device, allow_pickle=allow_pickle)
        self._counters: Counter[str] = Counter()
        self._max_rows = CPU_ROWS if device.type == "cpu" else GPU_ROWS

    def preload(self, base_model: str) -> None:
        """Bring a base model into memory now rather than at its first job, and paint a tiny picture with it.

        Raises:
            EngineError: it is not there, not SDXL, or too large for the device.
        """
        try:
            paint_first(self._palette.load(base_model), self._palette.catalog)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"{base_model}: the device has too little memory for it") from error

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
        """Take a job; its images start as there is room for them, and when all its weights are there.

        Raises:
            ModelNotFound: weights that it needs are not in the catalog.
            InvalidRequest: its pictures must be checked, and nothing can check them.
        """
        if plan.enhancements:
            self._weights_of(plan)
            self._chains.begin(job_id, plan, inputs)
        else:
            self._admit(job_id, plan, inputs)

    def _admit(self, job_id: str, plan: Plan, inputs: Mapping[str, Path]) -> None:
        """Take a job, or a part of one, that is done in one go."""
        weights = self._weights_of(plan)
        checker = self._safety.find(self._palette.catalog, plan)
        needed = weights if checker is None else [*weights, checker]
        work = self._works[job_id] = Work(job_id, plan, inputs, self._fetches.start(needed))
        has_model = not plan.needs_base_model or self._palette.has_base(plan)
        if not work.fetches and not has_model:
            work.outbox.append(Progress(stage="loading"))

    def _weights_of(self, plan: Plan) -> list[Checkpoint | Weights]:
        """Find the weights of a plan; those that came after the last look into the folders count too."""
        try:
            return needed_weights(self._palette.catalog, plan)
        except ModelNotFound:
            self._palette.catalog = self._read_catalog()
            return needed_weights(self._palette.catalog, plan)

    def skip(self, job_id: str) -> None:
        """End the image of a job that is nearest to its end; the others go on."""
        if work := self._works.get(job_id):
            work.skip()

    def cancel(self, job_id: str) -> None:
        """End a job; images that are ready stay."""
        self._chains.forget(job_id)
        if work := self._works.get(job_id):
            work.stop()

    def step(self) -> Sequence[tuple[str, Event]]:
        """Start what fits, advance all running images by one model call, finish what is done.

        What is already known is told before anything slow begins.
        """
        return self._chains.follow(self._step())

    def _step(self) -> Sequence[tuple[str, Event]]:
        if told := self._tell():
            return told
        self._watch_fetches()
        self._start_images()
        busy = [work for work in self._works.values() if work.running]
        try:
            self._advance(busy)
        except torch.OutOfMemoryError as error:
            named = ",".join(work.job_id for work in busy)
            log.warning("out of memory: %s", error, extra={"job": named})
            self._make_room(busy)
        return self._tell()

    def _advance(self, busy: Sequence[Work]) -> None:
        """Make one model call for all that run, and do what follows from it."""
        if images := [image for work in busy for image in work.running.values()]:
            started = time.monotonic()
            calls = step(images, apart=len(busy) == 1, max_rows=self._max_rows)
            self._counters["unet_calls"] += calls
            self._counters["unet_rows"] += sum(work.rows for work in busy)
            for work in busy:
                work.timings["sample"] += time.monotonic() - started
            self._show(busy)
            self._finish_images(busy)

    def _make_room(self, busy: Sequence[Work]) -> None:
        """After memory ran out: start anew with half the rows; a picture that is too large even alone fails."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        images = [image for work in busy for image in work.running.values()]
        rows = min(self._max_rows, sum(work.rows for work in busy))  # of one UNet call
        self._max_rows = max(2, rows // 2)
        for work in busy:
            if len(images) > 1 or (rows > 2 and not images[0].is_done):
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

    def _watch_fetches(self) -> None:
        """Tell how far files are on their way; while nothing else is to do, wait a little for them."""
        waiting = [work for work in self._works.values() if work.fetches]
        if waiting and not any(work.running or work.is_ready for work in self._works.values()):
            waiting[0].fetches[0].wait(FETCH_LOOK_S)
        for work in waiting:
            if error := work.look_at_fetches():
                work.fail(error)
            elif not work.fetches:  # what came has a name of its own from now on
                self._palette.catalog = self._read_catalog()

    def _start_images(self) -> None:
        """Begin images while their rows fit: one of each job in turn, so that a large job leaves room for others.

        A job that has to look at its picture for longer does so a little at a time; meanwhile others of its weights begin.
        """
        looking: set[Work] = set()
        while waiting := self._startable(looking):
            work = self._next(waiting)
            if not self._fits(work):
                return
            try:
                with of_job(work.job_id):
                    if not self._start_image(work):
                        looking.add(work)
            except EngineError as error:
                work.fail(error)
            except torch.OutOfMemoryError as error:
                log.warning("out of memory: %s", error, extra={"job": work.job_id})
                work.fail(OutOfMemory(TOO_LARGE))

    def _startable(self, looking: Set[Work]) -> list[Work]:
        """List the jobs whose images may start, beside those that look at their pictures in this step."""
        return [
            work
            for work in self._works.values()
            if work.is_ready
            and work not in looking
            and (not looking or self._palette.serves(work.plan))
        ]

    def _next(self, waiting: Sequence[Work]) -> Work:
        """Choose whose turn it is: for a while that of jobs which need the weights that are in force (design D8)."""
        served = [work for work in waiting if self._palette.serves(work.plan)]
        is_their_turn = time.monotonic() - self._palette.changed_at < TURN_S
        chosen = served if served and (is_their_turn or len(served) == len(waiting)) else waiting
        return min(chosen, key=lambda work: len(work.running))

    def _fits(self, work: Work) -> bool:
        rows = sum(other.rows for other in self._works.values())
        is_lone = len(self._works) == 1
        if rows and (is_lone or not self._palette.serves(work.plan)):
            return False  # a lone job's pictures come one after the other, as if each were alone
        return not rows or rows + work.rows_per_image <= self._max_rows

    def _start_image(self, work: Work) -> bool:
        """Begin one image; False where what it starts from has to be looked at for longer."""
        started = time.monotonic()
        if work.plan.needs_base_model:
            self._palette.bring(work.plan)
        self._safety.prepare(self._palette.catalog, work.plan)
        loaded = time.monotonic()
        if not work.flags and not work.running and work.looking is None:
            self._hashes.prefetch(item.path for item in self._weights_of(work.plan))
        work.timings["load"] += loaded - started
        beginning = work.beginning or self._look_at_start(work)
        if beginning is not None:
            self._begin(work, beginning)
        work.timings["encode"] += time.monotonic() - loaded
        return beginning is not None

    def _look_at_start(self, work: Work) -> Beginning | None:
        if work.looking is None:
            palette = self._palette
            work.looking = self._starts.begin(
                lambda: palette.model, palette.catalog, work.plan, work.pictures
            )
        return work.look_on()

    def _begin(self, work: Work, beginning: Beginning) -> None:
        """Begin the next image of a job; one that needs no painting is ready at once."""
        index = work.waiting[0]
        if beginning.text is not None:
            work.finish_text(beginning.text)
            return
        if beginning.result is not None:
            work.waiting.pop(0)
            work.finish_image(self._ready(work, index, Image.fromarray(beginning.result)))
            return
        image, model = self._expanded(work, index), self._palette.model
        followed = model.guides.follow(self._palette.catalog, work.plan, work.pictures)
        work.running[index] = begin_image(model, image, beginning, followed)
        work.waiting.pop(0)

    def _expanded(self, work: Work, index: int) -> ImagePlan:
        """Give the plan of an image, with the words that an expansion model adds to it."""
        image = work.plan.images[index]
        if not image.is_to_expand or self._expander is None:
            return image
        text = self._expander.expand(image.prompt.partition("\n")[0], image.seed)
        work.plan = with_expansion(work.plan, index, text)
        return work.plan.images[index]

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
        alike: dict[tuple[torch.Size, LatentFormat], list[Running]] = {}
        for image in images:
            alike.setdefault((image.shape, image.latent_format), []).append(image)
        previews: dict[Running, bytes] = {}
        for (_, latent_format), group in alike.items():
            decode = partial(self._palette.model.preview_of, latent_format)
            estimates = torch.cat([image.denoised for image in group])
            previews.update(zip(group, encode_previews(decode, estimates), strict=True))
        return previews

    def _finish_images(self, busy: Iterable[Work]) -> None:
        for work in busy:
            for index in work.done():
                with of_job(work.job_id):
                    work.finish_image(self._decode(work, index))

    def _decode(self, work: Work, index: int) -> ImageReady:
        started = time.monotonic()
        image, beginning = work.running[index], work.beginning
        assert beginning is not None
        vae = self._palette.model.decoder_of(image.latent_format)
        latents = image.latent_format.to_vae(image.latents)
        ready = self._ready(work, index, beginning.finish(vae, latents))
        extras = work.extras(index, is_flagged=ready.has_nsfw_concept)
        work.timings["decode"] += time.monotonic() - started
        return dataclasses.replace(ready, extras=extras)

    def _ready(self, work: Work, index: int, picture: Image.Image) -> ImageReady:
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


def paint_first(model: WarmModel, catalog: Catalog) -> None:
    """Paint 64x64 pixels in one step and keep nothing: the text encoders, the UNet and the VAE have worked once then.

    Raises:
        ModelIncompatible: what came out are no numbers.
    """
    asked = {
        "prompt": "a star",
        "styles": (),
        "guidance_scale": 1,
        "num_images": 1,
        "aspect_ratio": str(FIRST_SIZE),
        "advanced": {"base_model": model.name, "num_inference_steps": 1},
    }
    settled = plan(TextRequest.parse(asked), Library(catalog=catalog), seed=0)
    job = dataclasses.replace(settled, sample_size=FIRST_SIZE)
    image = begin_image(model, job.images[0], Beginning(plan=job))
    while not image.is_done:
        step([image])
    if not image.latents.isfinite().all():
        raise ModelIncompatible(f"{model.name}: its first picture has no numbers in it")
    decode_latents(model.vae, image.latent_format.to_vae(image.latents), FIRST_SIZE)
